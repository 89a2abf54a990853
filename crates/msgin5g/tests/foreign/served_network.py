"""What NRF, NEF and CAPIF core function are for, each success of it once; see served.py."""

import json
import tempfile

from inbox import Inbox
from parties import INVOKERS, Onboarding, Outside, Provider
from ue import Network, Ue, kdf, subscribers

MERGE_PATCH = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
DESTINATION = "https://localhost:9/capif"


def patch(function, peer, path, change, headers):
    return function.ask(peer, "PATCH", path, headers=headers, content=json.dumps(change))


def repository(lab, function):
    amf = lab.peer("lab-nf")
    itself = f"/nnrf-nfm/v1/nf-instances/{amf.nf_instance_id}"
    profile = {"nfInstanceId": amf.nf_instance_id, "nfType": "AMF", "nfStatus": "REGISTERED", "ipv4Addresses": ["127.0.0.1"],
               "priority": 1, "nfProfileChangesSupportInd": True}
    made = function.ask(amf, "PUT", itself, profile)
    assert made.status_code == 201 and made.headers["location"] == f"{function.root}{itself}", made.headers
    assert function.ask(amf, "PUT", itself, profile).status_code == 200
    kept = function.ask(amf, "GET", itself).json()
    assert kept["priority"] == 1 and "nfProfileChangesSupportInd" not in kept, "what it does not know is kept, what is asked for is not"
    alive = patch(function, amf, itself, [{"op": "replace", "path": "/nfStatus", "value": "REGISTERED"}], JSON_PATCH)
    assert alive.status_code == 204, alive.text
    changed = patch(function, amf, itself, [{"op": "replace", "path": "/priority", "value": 2}], JSON_PATCH)
    assert changed.status_code == 200 and changed.json()["priority"] == 2, changed.text
    assert patch(function, amf, itself, [{"op": "test", "path": "/priority", "value": 2}],
                 {**JSON_PATCH, "if-match": '"0"'}).status_code == 412
    listed = function.ask(amf, "GET", "/nnrf-nfm/v1/nf-instances?nf-type=AMF").json()
    assert f"{function.root}{itself}" in [link["href"] for link in listed["_links"]["item"]], listed
    assert function.ask(amf, "OPTIONS", "/nnrf-nfm/v1/nf-instances").status_code == 204
    subscribed = function.ask(amf, "POST", "/nnrf-nfm/v1/subscriptions",
                              {"nfStatusNotificationUri": "https://127.0.0.1:9/", "requesterFeatures": "1", "subscrCond": {
                                  "conditionType": "SERVICE_NAME_LIST_COND", "serviceNameList": ["nudr-dr"]}})
    assert subscribed.status_code == 201, subscribed.text
    assert subscribed.json()["subscrCond"]["conditionType"] and "requesterFeatures" not in subscribed.json(), subscribed.text
    subscription = subscribed.headers["location"].removeprefix(function.root)
    later = [{"op": "replace", "path": "/validityTime", "value": subscribed.json()["validityTime"]}]
    assert patch(function, amf, subscription, later, JSON_PATCH).status_code == 200
    assert function.ask(amf, "DELETE", subscription).status_code == 204
    found = function.ask(amf, "GET", "/nnrf-disc/v1/nf-instances?target-nf-type=AUSF&requester-nf-type=AMF"
                                     "&preferred-locality=here").json()
    assert found["nfInstances"] and found["ignoredQueryParams"] == ["preferred-locality"], found
    form = {"grant_type": "client_credentials", "nfInstanceId": amf.nf_instance_id, "targetNfType": "AUSF", "scope": "nausf-auth"}
    assert function.ask(amf, "POST", "/oauth2/token", data=form).json()["token_type"] == "Bearer"
    wrong = function.ask(amf, "POST", "/oauth2/token", data={**form, "scope": "no-such"})
    assert wrong.status_code == 400 and wrong.json()["error"] == "invalid_scope", wrong.text
    assert function.ask(amf, "DELETE", itself).status_code == 204


def framework(lab, function):
    """CAPIF: an API is published, an invoker comes, agrees, gets a token, is logged, and goes."""
    provider = Provider(lab)
    apis = f"/published-apis/v1/{provider.apf_id}/service-apis"
    published = function.ask(provider.apf, "GET", apis).json()
    description = {"apiName": "served", "aefProfiles": published[0]["aefProfiles"]}
    made = function.ask(provider.apf, "POST", apis, description)
    assert made.status_code == 201, made.text
    api, api_id = made.headers["location"].removeprefix(function.root), made.json()["apiId"]
    assert function.ask(provider.apf, "GET", api).json()["apiName"] == "served"
    assert function.ask(provider.apf, "PUT", api, description).status_code == 200
    assert patch(function, provider.apf, api, {"description": "changed"}, MERGE_PATCH).json()["description"] == "changed"
    domain = f"/api-provider-management/v1/registrations/{provider.domain}"
    details = patch(function, provider.amf, domain, {"apiProvDomInfo": "the lab's NEF"}, MERGE_PATCH).json()
    assert function.ask(provider.amf, "PUT", domain, details).json() == details, "nothing changed"

    with tempfile.TemporaryDirectory() as folder:
        coming = Onboarding(lab, folder, 0)
        invoker = coming.invoker(function.ask(coming.nobody, "POST", INVOKERS, coming.details, token=coming.credential))
        itself = f"{INVOKERS}/{invoker.id}"
        assert function.ask(invoker, "PUT", itself, coming.details).status_code == 200
        assert patch(function, invoker, itself, {"apiInvokerInformation": "served"}, MERGE_PATCH).status_code == 200
        found = function.ask(invoker, "GET", f"/service-apis/v1/allServiceAPIs?api-invoker-id={invoker.id}&api-name=served")
        assert found.json()["serviceAPIDescriptions"][0]["apiId"] == api_id, found.text
        agreements(function, provider, invoker, api_id)
        events(lab, function, invoker)
        assert function.ask(invoker, "DELETE", itself).status_code == 204
    assert function.ask(provider.apf, "DELETE", api).status_code == 204


def agreements(function, provider, invoker, api_id):
    context = f"/capif-security/v1/trustedInvokers/{invoker.id}"
    wish = {"securityInfo": [{"aefId": provider.aef_id, "apiId": api_id, "prefSecurityMethods": ["OAUTH"]}],
            "notificationDestination": DESTINATION}
    assert function.ask(invoker, "PUT", context, wish).status_code == 201
    assert function.ask(invoker, "POST", f"{context}/update", wish).status_code == 200
    assert function.ask(invoker, "GET", context).status_code == 200
    told = function.ask(provider.aef, "GET", f"{context}?authenticationInfo=true&authorizationInfo=true").json()
    assert "served" in told["securityInfo"][0]["authorizationInfo"], told
    endpoint, form = f"/capif-security/v1/securities/{invoker.id}/token", {"grant_type": "client_credentials", "client_id": invoker.id}
    assert function.ask(invoker, "POST", endpoint, data=form).json()["token_type"] == "Bearer"
    assert function.ask(invoker, "POST", endpoint, data={**form, "scope": "3gpp#nobody:nothing"}).json()["error"] == "invalid_scope"
    assert function.ask(invoker, "POST", endpoint, data={**form, "client_id": "another"}).status_code == 401
    policies = function.ask(provider.aef, "GET",
                            f"/access-control-policy/v1/accessControlPolicyList/{api_id}?aef-id={provider.aef_id}").json()
    assert invoker.id in [policy["apiInvokerId"] for policy in policies["apiInvokerPolicies"]], policies

    log = {"aefId": provider.aef_id, "apiInvokerId": invoker.id, "logs": [
        {"apiId": api_id, "apiName": "served", "apiVersion": "v1", "resourceName": "served", "protocol": "HTTP_2", "result": "200"}]}
    assert function.ask(provider.aef, "POST", f"/api-invocation-logs/v1/{provider.aef_id}/logs", log).status_code == 201
    audit = f"/logs/v1/apiInvocationLogs?api-invoker-id={invoker.id}"
    assert function.ask(provider.amf, "GET", audit).json()["apiInvokerId"] == invoker.id
    assert function.ask(provider.aef, "POST", f"/api-invocation-logs/v1/{provider.aef_id}/logs", log).status_code == 201
    assert len(function.ask(provider.amf, "GET", audit).json()["multipleInvocationLogs"]) == 2

    revoked = {"apiInvokerId": invoker.id, "apiIds": [api_id], "cause": "OVERLIMIT_USAGE"}
    assert function.ask(provider.aef, "POST", f"{context}/delete", revoked).status_code == 204
    assert function.ask(invoker, "DELETE", context).status_code == 204


def events(lab, function, invoker):
    """A subscriber that listens: the event that it asked for arrives, and another does not."""
    inbox = Inbox(lab, lab.application_server())
    subscriptions, itself = f"/capif-events/v1/{invoker.id}/subscriptions", f"{INVOKERS}/{invoker.id}"
    listening = inbox.url.replace("127.0.0.1", "localhost")
    made = function.ask(invoker, "POST", subscriptions, {
        "events": ["API_INVOKER_UPDATED"], "eventFilters": [{"aefIds": ["another"]}], "notificationDestination": f"{listening}/other"})
    assert made.status_code == 201, made.text
    wish = {"events": ["API_INVOKER_UPDATED"], "eventFilters": [{"apiInvokerIds": [invoker.id]}],
            "notificationDestination": f"{listening}/told"}
    made = function.ask(invoker, "POST", subscriptions, wish)
    assert made.status_code == 201, made.text
    path = made.headers["location"].removeprefix(function.root)
    assert patch(function, invoker, itself, {"apiInvokerInformation": "told"}, MERGE_PATCH).status_code == 200
    told = {"subscriptionId": path.rsplit("/", 1)[1], "events": "API_INVOKER_UPDATED", "eventDetail": {"apiInvokerIds": [invoker.id]}}
    assert inbox.next("/told") == told
    elsewhere = {**wish, "notificationDestination": "https://127.0.0.1:9/capif"}
    refused = function.ask(invoker, "PUT", path, elsewhere)
    assert (refused.status_code, refused.json()["cause"]) == (403, "NOTIFICATION_DESTINATION_NOT_ALLOWED"), refused.text
    assert function.ask(invoker, "PUT", path, wish).status_code == 200
    changed = patch(function, invoker, path, {"events": ["SERVICE_API_UPDATE"]}, MERGE_PATCH).json()
    assert changed["events"] == ["SERVICE_API_UPDATE"], changed
    assert function.ask(invoker, "DELETE", path).status_code == 204
    assert inbox.received.empty(), "the other subscription's filter lets nothing pass"


def withdrawal(lab, function):
    """The provider goes, which nobody can do anything after."""
    provider = Provider(lab)
    domain = f"/api-provider-management/v1/registrations/{provider.domain}"
    assert function.ask(provider.amf, "DELETE", domain).status_code == 204


def exposure(lab, function):
    """The NEF's own APIs but those of messages."""
    weather = Outside(lab)
    network = Network(lab.path("lab.json"))
    ue = Ue(network, subscribers(network, 2)[1]).authenticate()
    fqdn, protocol = weather.description["fqdn"], "0100000007"
    request = {"afId": f"{fqdn}:{protocol}", "aKId": ue.a_kid}
    key = function.ask(weather, "POST", "/3gpp-akma/v1/retrieve", request).json()
    assert key["kaf"] == ue.k_af(bytes.fromhex(protocol), fqdn).hex() and "supi" not in key, key
    assert function.ask(weather, "POST", "/3gpp-akma/v1/retrieve", {**request, "aKId": "0.unknown@x"}).status_code == 204

    provider = Provider(lab)
    with tempfile.TemporaryDirectory() as folder:
        invoker = Onboarding(lab, folder, 1).onboard()
        wish = {"securityInfo": [{"aefId": provider.aef_id, "prefSecurityMethods": ["PKI"]}], "notificationDestination": DESTINATION}
        agreed = invoker.request("PUT", f"{lab.core['capif']}/capif-security/v1/trustedInvokers/{invoker.id}", wish)
        assert agreed.status_code == 201, agreed.text
        check = {"apiInvokerId": invoker.id, "supportedFeatures": "0"}
        assert function.ask(invoker, "POST", "/aef-security/v1/check-authentication", check).status_code == 200
    lab.invoker = invoker  # for who else wants to be one
    revoked = {"revokeInfo": {"apiInvokerId": invoker.id, "apiIds": [provider.apis[0][1]], "cause": "UNEXPECTED_REASON"},
               "supportedFeatures": "0"}
    assert function.ask(provider.core, "POST", "/aef-security/v1/revoke-authorization", revoked).status_code == 200
