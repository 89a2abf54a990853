"""One request of each operation that chance would not bring to a success, written out: it needs a resource that is there, a proof,
or members that belong together. generated.py asks for them first, and holds their answers to the files like all others."""

import datetime

import eap
from inbox import Inbox
from parties import Onboarding
from peer import Peer
from ue import Connection, Network, Ue, kdf, milenage, subscribers

MERGE_PATCH, JSON_PATCH, FORM = "application/merge-patch+json", "application/json-patch+json", "application/x-www-form-urlencoded"


class Written:
    """A request of an operation of the file. `values` of the path, `body`, `query` and `peer` may be functions of the answers so
    far: `answers(method, path)` is the last one."""

    def __init__(self, method, path, peer, body=None, *, values=None, query=None, media_type="application/json"):
        self.method, self.path, self.media_type = method, path, media_type
        self.what = {"peer": peer, "body": body, "values": values or {}, "query": query or {}}

    def made(self, answers):
        made = {name: what(answers) if callable(what) else what for name, what in self.what.items()}
        made["values"] = {name: value(answers) if callable(value) else value for name, value in made["values"].items()}
        return made


def location_of(path, method="POST"):
    """The identifier of what was made there."""
    return lambda answers: answers(method, path).headers["location"].rsplit("/", 1)[-1]


def repository(amf, profile):
    one, subscriptions = "/nf-instances/{nfInstanceID}", "/subscriptions"
    itself = {"nfInstanceID": amf.nf_instance_id}
    subscription = {"subscriptionID": location_of(subscriptions)}
    later = lambda answers: [{"op": "replace", "path": "/validityTime", "value": answers("POST", subscriptions).json()["validityTime"]}]
    return [
        Written("PUT", one, amf, {**profile, "priority": 1}, values=itself),
        Written("GET", one, amf, values=itself),
        Written("PATCH", one, amf, [{"op": "replace", "path": "/priority", "value": 2}], values=itself, media_type=JSON_PATCH),
        Written("POST", subscriptions, amf, {"nfStatusNotificationUri": "https://127.0.0.1:9/", "subscrCond": {"nfType": "AUSF"}}),
        Written("PATCH", "/subscriptions/{subscriptionID}", amf, later, values=subscription, media_type=JSON_PATCH),
        Written("DELETE", "/subscriptions/{subscriptionID}", amf, values=subscription),
    ]


def registrations(application_server):
    wish = {"asSvcId": application_server.service_id, "targetUri": "https://127.0.0.1:9/"}
    return [Written("POST", "/registrations", application_server, wish),
            Written("DELETE", "/registrations/{registrationId}", application_server,
                    values={"registrationId": location_of("/registrations")})]


def messages(lab, application_server, number, root):
    """To a UE that is registered, has sent a message, and is away."""
    me, inbox = {"addrType": "AS", "addr": application_server.service_id}, Inbox(lab, application_server)
    registered = application_server.post(f"{root}/msgs-asregistration/v1/registrations",
                                         {"asSvcId": application_server.service_id, "targetUri": f"{inbox.url}/inbox"})
    assert registered.status_code == 201, registered.text
    network = Network(lab.path("lab.json"))
    device = Connection(Ue(network, subscribers(network, number + 1)[number]).authenticate(), "openssl tls1.3")
    assert device.register()[0] == "2.01"
    assert device.send(me, b"reported on", report=True)[0] == "2.04"
    received, ue = inbox.next("/inbox/deliver-message")["msgId"], device.ue.address()
    device.close()
    message = {"oriAddr": me, "destAddr": ue, "msgId": "written", "stoAndFwInd": True, "payload": "aGVsbG8="}
    report = {"oriAddr": me, "destAddr": ue, "msgId": received, "delivSt": "REPT_DELY_SUCCESS"}
    return [Written("POST", "/deliver-as-message", application_server, message),
            Written("POST", "/deliver-report", application_server, report)]


def topics(application_server):
    me = {"addrType": "AS", "addr": application_server.service_id}
    wish = {"oriAddr": me, "destAddr": {"addrType": "AS", "addr": "msgin5g@lab.example"}, "notificationURI": "https://127.0.0.1:9/"}
    return [Written("POST", "/topiclist-subscriptions", application_server, wish),
            Written("POST", "/topiclist-subscriptions/{subscriptionId}", application_server, {"oriAddr": me, "destAddr": me},
                    values={"subscriptionId": location_of("/topiclist-subscriptions")})]


def anchor(ausf, key):
    kept = {name: key[name] for name in ("supi", "aKId", "kAkma")}
    return [Written("POST", "/register-anchorkey", ausf, kept), Written("POST", "/remove-context", ausf, {"supi": key["supi"]})]


def authentication(lab, amf):
    begin, confirmation = "/ue-authentications", "/ue-authentications/{authCtxId}/5g-aka-confirmation"
    network, subscriber = Network(lab.path("lab.json")), lab.lab["subscribers"][0]
    other = next(one for one in lab.lab["subscribers"] if one.get("authentication_method") == "EAP_AKA_PRIME")
    session = "/ue-authentications/{authCtxId}/eap-session"
    name, context = network.serving_network_name, {"authCtxId": location_of(begin)}

    def result(answers):
        rand = bytes.fromhex(answers("POST", begin).json()["5gAuthData"]["rand"])
        res, ck, ik, _, _ = milenage(bytes.fromhex(subscriber["k"]), bytes.fromhex(subscriber["opc"]), rand)
        return {"resStar": kdf(ck + ik, 0x6B, name.encode(), rand, res)[16:].hex()}

    def challenged(answers):
        """The peer proves itself, and so does the network that gives K_SEAF."""
        return {"eapPayload": eap.answered(other, name, answers("POST", begin).json()["5gAuthData"])[0]}
    return [
        Written("POST", begin, amf, {"supiOrSuci": subscriber["supi"], "servingNetworkName": name}),
        Written("PUT", confirmation, amf, result, values=context),
        Written("DELETE", confirmation, amf, values=context),
        Written("POST", begin, amf, {"supiOrSuci": other["supi"], "servingNetworkName": name}),
        # An EAP-Response/AKA'-Client-Error, whatever the identifier.
        Written("POST", session, amf, {"eapPayload": "AgEADDIOAAAWAQAA"}, values=context),
        Written("POST", begin, amf, {"supiOrSuci": other["supi"], "servingNetworkName": name}),
        Written("POST", session, amf, challenged, values=context),
        Written("DELETE", session, amf, values=context),
    ]


def data_management(ausf, name, supi):
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"nfInstanceId": ausf.nf_instance_id, "success": True, "timeStamp": now, "authType": "5G_AKA", "servingNetworkName": name}
    events = "/{supi}/auth-events"
    return [Written("POST", events, ausf, event, values={"supi": supi}),
            Written("PUT", f"{events}/{{authEventId}}", ausf, {**event, "authRemovalInd": True},
                    values={"supi": supi, "authEventId": location_of(events)})]


def profiles(server, supi):
    return [Written("GET", "/val-services", server, query={"val-service-id": "msgin5g", "val-tgt-ue": f'{{"valUeId":"{supi}"}}'})]


def groups(provisioner):
    group = {"valGroupId": "written@lab.example", "valServiceIds": ["msgin5g"]}
    return [Written("POST", "/group-documents", provisioner, group),
            Written("PATCH", "/group-documents/{groupDocId}", provisioner, {"grpDesc": "written"},
                    values={"groupDocId": group["valGroupId"]}, media_type=MERGE_PATCH)]


# --- CAPIF -------------------------------------------------------------------------------------------------


def provider_management(provider):
    one, domain = "/registrations/{registrationId}", {"registrationId": provider.domain}
    return [Written("PATCH", one, provider.amf, {"apiProvDomInfo": "the lab's NEF"}, values=domain, media_type=MERGE_PATCH),
            # What there is, so that nothing changes.
            Written("PUT", one, provider.amf, lambda answers: answers("PATCH", one).json(), values=domain)]


def publishing(provider, profile):
    every, one = "/{apfId}/service-apis", "/{apfId}/service-apis/{serviceApiId}"
    description, function = {"apiName": "written", "aefProfiles": [profile]}, {"apfId": provider.apf_id}
    api = {**function, "serviceApiId": location_of(every)}
    return [
        Written("POST", every, provider.apf, description, values=function),
        Written("PUT", one, provider.apf, description, values=api),
        Written("PATCH", one, provider.apf, {"description": "changed"}, values=api, media_type=MERGE_PATCH),
        Written("DELETE", one, provider.apf, values=api),
    ]


class Coming(Peer):
    """Nobody yet, with an onboarding credential."""

    def __init__(self, lab, credential):
        super().__init__(lab, None, None)
        self.own_token = lambda: credential


def onboarding(lab, folder, number):
    every, one = "/onboardedInvokers", "/onboardedInvokers/{onboardingId}"
    coming, invokers = Onboarding(lab, folder, number), []

    def invoker(answers):
        if not invokers:
            invokers.append(coming.invoker(answers("POST", every)))
        return invokers[0]
    itself = {"onboardingId": lambda answers: invoker(answers).id}
    return [
        Written("POST", every, Coming(lab, coming.credential), coming.details),
        Written("PUT", one, invoker, coming.details, values=itself),
        Written("PATCH", one, invoker, {"apiInvokerInformation": "written"}, values=itself, media_type=MERGE_PATCH),
        Written("DELETE", one, invoker, values=itself),
    ]


def security(provider, invoker, agreement):
    one = "/trustedInvokers/{apiInvokerId}"
    itself = {"apiInvokerId": invoker.id}
    revoked = {"apiInvokerId": invoker.id, "apiIds": [provider.apis[0][1]], "cause": "OVERLIMIT_USAGE"}
    return [
        Written("POST", f"{one}/update", invoker, agreement, values=itself),
        Written("POST", "/securities/{securityId}/token", invoker, {"grant_type": "client_credentials", "client_id": invoker.id},
                values={"securityId": invoker.id}, media_type=FORM),
        Written("POST", f"{one}/delete", provider.aef, revoked, values=itself),
        Written("DELETE", one, invoker, values=itself),
        Written("PUT", one, invoker, agreement, values=itself),
    ]


def exposing(provider, invoker):
    """At the exposing function: the invoker asks for itself, the core function revokes."""
    revoked = {"apiInvokerId": invoker.id, "apiIds": [provider.apis[0][1]], "cause": "UNEXPECTED_REASON"}
    return [Written("POST", "/check-authentication", invoker, {"apiInvokerId": invoker.id, "supportedFeatures": "0"}),
            Written("POST", "/revoke-authorization", provider.core, {"revokeInfo": revoked, "supportedFeatures": "0"})]


def events(invoker):
    every, one = "/{subscriberId}/subscriptions", "/{subscriberId}/subscriptions/{subscriptionId}"
    wish = {"events": ["SERVICE_API_AVAILABLE"], "notificationDestination": "https://localhost:9/capif"}
    itself = {"subscriberId": invoker.id}
    subscription = {**itself, "subscriptionId": location_of(every)}
    return [
        Written("POST", every, invoker, wish, values=itself),
        Written("PUT", one, invoker, wish, values=subscription),
        Written("PATCH", one, invoker, {"events": ["SERVICE_API_UPDATE"]}, values=subscription, media_type=MERGE_PATCH),
        Written("DELETE", one, invoker, values=subscription),
    ]
