"""Every operation that a running function describes in its /openapi.json, tried from outside.

    served.py LAB_JSON

Each is there, refuses what is not a body of it (and each body without a mandatory member, which it names), and answers
nothing but what it describes: status, media type, schema, and no member more. Each success is seen at least once, apart
from those in NEVER, which say why.
"""

import copy
import datetime
import json
import re
import sys
import time
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor

import jsonschema_rs
import eap
from inbox import Inbox
from parties import INVOKERS, Outside, Provider
from peer import Lab, Peer, refused
from served_network import exposure, framework, repository, withdrawal
from ue import Connection, Network, Ue, kdf, milenage, subscribers

# Successes that this lab cannot show, with the reason.
NEVER = {
    ("POST", "/msgs-msgdelivery/v1/deliver-ue-message", "200"): "no message gateway is configured in the lab",
    ("POST", "/nausf-auth/v1/ue-authentications/{authCtxId}/eap-session", "200 application/3gppHal+json"):
        "takes a USIM that is out of step",
    ("POST", "/api-provider-management/v1/registrations", "201"): "the lab's NEF has spent the one credential",
}


class Function:
    """A running function, its document, and what was seen of it."""

    def __init__(self, lab, root, reader):
        self.lab, self.root, self.reader = lab, root, reader
        response = reader.get(f"{root}/openapi.json")
        assert response.status_code == 200, (root, response.status_code)
        self.document = response.json()
        self.seen = set()
        self.operations = {(method.upper(), path): operation for path, item in self.document["paths"].items()
                           for method, operation in item.items()}

    def find(self, method, path):
        """The operation that a request belongs to; what is spelled out goes before variables."""
        parts = path.split("?")[0].split("/")
        for variables in range(len(parts)):
            for (its_method, template), operation in self.operations.items():
                names = template.split("/")
                if its_method == method and len(names) == len(parts) and variables == sum(n[:1] == "{" for n in names):
                    if all(name[:1] == "{" or name == part for name, part in zip(names, parts, strict=True)):
                        return template, operation
        raise AssertionError(f"{method} {path} is not described")

    def ask(self, peer, method, path, body=None, **further):
        """A request whose answer is held to the document."""
        template, operation = self.find(method, path)
        response = peer.request(method, self.root + path, body, **further)
        where, status = f"{method} {template}", str(response.status_code)
        assert status in operation["responses"], f"{where} answered {status} {response.text}"
        described = operation["responses"][status]
        media_type = response.headers.get("content-type", "").split(";")[0]
        contents = described.get("content", {})
        if contents:
            assert media_type in contents, f"{where} {status} is {media_type!r}"
            self.validate(contents[media_type]["schema"], response.json(), f"{where} {status}")
        else:
            assert not response.content, f"{where} {status} has a body"
        for name in described.get("headers", {}):
            assert response.headers.get(name), f"{where} {status} has no {name}"
        if status == "503" or status == "429":
            assert response.headers.get("retry-after"), f"{where} {status} has no Retry-After"
        self.seen.add((method, template, status + (f" {media_type}" if len(contents) > 1 else "")))
        return response

    def validate(self, schema, value, where):
        components = {"schemas": {name: strict(schema) for name, schema in self.document["components"]["schemas"].items()}}
        validator = jsonschema_rs.validator_for({**strict(schema), "components": components})
        errors = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not errors, f"{where}: {errors} in {value}"

    def unseen(self):
        for (method, template), operation in self.operations.items():
            for status, response in operation["responses"].items():
                contents = response.get("content", {})
                for media_type in contents if len(contents) > 1 else [""]:
                    key = (method, template, f"{status} {media_type}".strip())
                    if status.startswith("2") and key not in self.seen and key not in NEVER:
                        yield key


def strict(node):
    """A schema of OpenAPI 3.0 as JSON Schema, with no room for members that it does not describe."""
    if isinstance(node, list):
        return [strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {name: strict(part) for name, part in node.items() if name not in ("example", "nullable")} | (
        {"nullable": True} if node.get("nullable") else {})
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
    if node.pop("nullable", False):
        return {"anyOf": [node, {"type": "null"}]}
    return node


FORM = "application/x-www-form-urlencoded"


# --- refusals that every operation has in common -----------------------------------------------------------


def refusals(function, callers, bodies):
    for (method, template), operation in function.operations.items():
        caller = callers(method, template)
        peer, named = caller if isinstance(caller, tuple) else (caller, None)
        path = concrete(function, operation, template, named)
        if "requestBody" in operation:
            body_refusals(function, peer, method, path, operation, bodies.get((method, template)))
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query" and parameter["required"]:
                bare = path.split("?")[0]
                refused(function.ask(peer, method, bare), 400, "MANDATORY_QUERY_PARAM_MISSING")
        # A method that no resource of ours has.
        response = peer.request("PROPFIND", function.root + path)
        refused(response, 405)
    refused(function.reader.get(f"{function.root}/nothing/of/this/name"), 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND")


def concrete(function, operation, template, named=None):
    """The path with an example for each variable, the first of them `named`, and every mandatory query parameter."""
    path, query = template, {}
    if named is not None:
        path = re.sub(r"\{[^}]*\}", urllib.parse.quote(named, safe=""), path, count=1)
    for parameter in operation.get("parameters", []):
        schema = parameter.get("schema") or next(iter(parameter["content"].values()))["schema"]
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", urllib.parse.quote(str(schema["example"]), safe=""))
        elif parameter["required"]:
            query[parameter["name"]] = '{"valUeId":"imsi-001010000000001"}'
    return path + (f"?{urllib.parse.urlencode(query)}" if query else "")


def body_refusals(function, peer, method, path, operation, body):
    (media_type, content), = operation["requestBody"]["content"].items()
    example = body or content["example"]
    headers = {"content-type": media_type}
    where = f"{method} {path}"
    # Nothing is malformed as a form; a wrong one is refused by the operation's own rules.
    opening = b"[" if content["schema"].get("type") == "array" else b"{"
    for text in () if media_type == FORM else (b"", opening, b"nul", b"\xff\xfe"):
        response = function.ask(peer, method, path, headers=headers, content=text)
        refused(response, 400, "INVALID_MSG_FORMAT")
    response = function.ask(peer, method, path, headers={"content-type": "text/plain"}, content=json.dumps(example))
    # A token is for whoever asks, which may be looked at before how.
    refused(response, 403 if media_type == FORM and response.status_code == 403 else 415)
    # By no more than fits into one window: httpx waits for ever for room to send what is not read any more.
    longest = {function.lab.api: 98_304, function.lab.core["nef"]: 98_304, function.lab.core["configuration"]: 262_144}.get(function.root, 65_536)
    response = function.ask(peer, method, path, headers=headers, content=b" " * longest + b"{}")
    refused(response, 413)
    if media_type != "application/json":
        return
    refused(function.ask(peer, method, path, [example]), 400)
    for member in missing_one(function, content["schema"], example):
        name, broken = member
        problem = refused(function.ask(peer, method, path, broken), 400, "MANDATORY_IE_MISSING")
        pointers = [parameter["param"] for parameter in problem["invalidParams"]]
        assert any(pointer.endswith(f"/{name.rsplit('/', 1)[-1]}") for pointer in pointers), (where, name, problem)


def missing_one(function, schema, example):
    """The example without each member that its schema makes mandatory, at every depth."""
    while "$ref" in schema:
        schema = function.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    if not isinstance(example, dict):
        return
    for name in schema.get("required", []):
        broken = copy.deepcopy(example)
        broken.pop(name, None)
        yield name, broken
    for name, part in schema.get("properties", {}).items():
        if name in example:
            for inner, broken in missing_one(function, part, example[name]):
                yield f"{name}/{inner}", {**example, name: broken}


# --- what each function is for, so that every success is seen ----------------------------------------------


def akma(lab, function):
    ausf, server = lab.peer("ausf"), lab.peer("server")
    a_kid = f"0.{uuid.uuid4().hex}@5gc.mnc001.mcc001.3gppnetwork.org"
    info = {"supi": "imsi-001010000000005", "aKId": a_kid, "kAkma": "11" * 32}
    assert function.ask(ausf, "POST", "/naanf-akma/v1/register-anchorkey", info).status_code == 200
    af_id = f"{lab.lab['server']['fqdn']}:0100000007"
    get = "/naanf-akma/v1/retrieve-applicationkey"
    key = function.ask(server, "POST", get, {"afId": af_id, "aKId": a_kid}).json()
    assert key["kaf"] == kdf(bytes.fromhex("11" * 32), 0x82, af_id.split(":")[0].encode() + bytes.fromhex("0100000007")).hex()
    assert function.ask(server, "POST", get, {"afId": af_id, "aKId": "0.unknown@x"}).status_code == 204
    refused(function.ask(server, "POST", get, {"afId": "other.example:0100000007", "aKId": a_kid}), 403)
    assert function.ask(ausf, "POST", "/naanf-akma/v1/remove-context", {"supi": info["supi"]}).status_code == 204
    assert function.ask(server, "POST", get, {"afId": af_id, "aKId": a_kid}).status_code == 204


def authentication(lab, function):
    amf, network = lab.peer("lab-nf"), Network(lab.path("lab.json"))
    begin = "/nausf-auth/v1/ue-authentications"
    name = network.serving_network_name
    subscriber = lab.lab["subscribers"][0]
    started = {"supiOrSuci": subscriber["supi"], "servingNetworkName": name}
    context = function.ask(amf, "POST", begin, started).json()
    link = context["_links"]["5g-aka"]["href"].removeprefix(function.root)
    rand, autn = (bytes.fromhex(context["5gAuthData"][member]) for member in ("rand", "autn"))
    res, ck, ik, _, _ = milenage(bytes.fromhex(subscriber["k"]), bytes.fromhex(subscriber["opc"]), rand)
    res_star = kdf(ck + ik, 0x6B, name.encode(), rand, res)[16:]
    answer = function.ask(amf, "PUT", link, {"resStar": res_star.hex()}).json()
    assert answer["authResult"] == "AUTHENTICATION_SUCCESS", answer
    assert function.ask(amf, "DELETE", link).status_code == 204
    link = function.ask(amf, "POST", begin, started).json()["_links"]["5g-aka"]["href"].removeprefix(function.root)
    answer = function.ask(amf, "PUT", link, {"resStar": None}).json()
    assert answer["authResult"] == "AUTHENTICATION_FAILURE" and "kseaf" not in answer, answer
    other = next(s for s in lab.lab["subscribers"] if s.get("authentication_method") == "EAP_AKA_PRIME")
    context = function.ask(amf, "POST", begin, {**started, "supiOrSuci": other["supi"]}).json()
    link = context["_links"]["eap-session"]["href"].removeprefix(function.root)
    # An EAP-Response/AKA'-Client-Error, whatever the identifier.
    answer = function.ask(amf, "POST", link, {"eapPayload": "AgEADDIOAAAWAQAA"}).json()
    assert answer["authResult"] == "AUTHENTICATION_FAILURE", answer
    context = function.ask(amf, "POST", begin, {**started, "supiOrSuci": other["supi"]}).json()
    link = context["_links"]["eap-session"]["href"].removeprefix(function.root)
    payload, k_seaf = eap.answered(other, name, context["5gAuthData"])
    answer = function.ask(amf, "POST", link, {"eapPayload": payload}).json()
    assert answer["authResult"] == "AUTHENTICATION_SUCCESS" and answer["kSeaf"].lower() == k_seaf, answer["authResult"]
    assert function.ask(amf, "DELETE", link).status_code == 204
    gone = function.ask(amf, "POST", f"{begin}/deregister", {"supi": subscriber["supi"]})
    assert gone.status_code == 204
    refused(function.ask(amf, "POST", begin, {**started, "supiOrSuci": "imsi-001019999999999"}), 404, "USER_NOT_FOUND")


def data_management(lab, function):
    ausf, subscriber = lab.peer("ausf"), lab.lab["subscribers"][1]
    name = Network(lab.path("lab.json")).serving_network_name
    root = f"/nudm-ueau/v1/{subscriber['supi']}"
    request = {"servingNetworkName": name, "ausfInstanceId": ausf.nf_instance_id}
    vector = function.ask(ausf, "POST", f"{root}/security-information/generate-auth-data", request).json()
    assert vector["authenticationVector"]["avType"] == "5G_HE_AKA" and vector["akmaInd"], vector
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"nfInstanceId": ausf.nf_instance_id, "success": True, "timeStamp": now, "authType": "5G_AKA",
             "servingNetworkName": name}
    made = function.ask(ausf, "POST", f"{root}/auth-events", event)
    assert made.status_code == 201, made.text
    path = made.headers["location"].removeprefix(function.root)
    gone = function.ask(ausf, "PUT", path, {**event, "authRemovalInd": True})
    assert gone.status_code == 204, gone.text


def configuration(lab, function):
    provisioner, server = lab.peer("provisioner"), lab.peer("server")
    target = urllib.parse.quote(json.dumps({"valUeId": lab.lab["subscribers"][0]["supi"]}))
    profiles = function.ask(server, "GET", f"/ss-upr/v1/val-services?val-service-id=msgin5g&val-tgt-ue={target}").json()
    assert lab.lab["subscribers"][0]["ue_service_id"] in profiles[0]["profileInformation"], profiles
    root, group = "/ss-gm/v1/group-documents", {"valGroupId": "served@lab.example", "valServiceIds": ["msgin5g"]}
    made = function.ask(provisioner, "POST", root, group)
    assert made.status_code == 201, made.text
    path = made.headers["location"].removeprefix(function.root)
    refused(function.ask(provisioner, "POST", root, group), 403, "GROUP_EXISTS")
    assert function.ask(server, "GET", f"{root}?val-group-id=served%40lab.example").json()[0]["valGroupId"] == "served@lab.example"
    assert "members" not in function.ask(server, "GET", f"{path}?group-members=true").json()
    replaced = function.ask(provisioner, "PUT", path, {**group, "members": [{"valUserId": "a@lab.example"}]})
    assert replaced.json()["members"], replaced.text
    changed = function.ask(provisioner, "PATCH", path, headers={"content-type": "application/merge-patch+json"},
                           content=json.dumps({"grpDesc": "served", "members": None}))
    assert changed.json()["grpDesc"] == "served" and "members" not in changed.json(), changed.text
    assert function.ask(provisioner, "DELETE", path).status_code == 204
    refused(function.ask(provisioner, "DELETE", path), 404, "GROUP_NOT_FOUND")


def messages(lab, function, billing=None, ue=0):
    billing = billing or lab.application_server(0)
    me, inbox = {"addrType": "AS", "addr": billing.service_id}, Inbox(lab, billing)
    made = function.ask(billing, "POST", "/msgs-asregistration/v1/registrations",
                        {"asSvcId": billing.service_id, "targetUri": f"{inbox.url}/inbox"})
    assert made.status_code == 201 and made.json()["result"]["status"] == 201, made.text
    registration = urllib.parse.urlparse(made.headers["location"]).path
    network = Network(lab.path("lab.json"))
    device = Connection(Ue(network, subscribers(network, ue + 1)[ue]).authenticate(), "openssl tls1.3")
    assert device.register()[0] == "2.01"
    ue = device.ue.address()  # another than in other plays: what is stored for it is there first
    message = {"oriAddr": me, "destAddr": ue, "msgId": str(uuid.uuid4()), "stoAndFwInd": True, "payload": "aGVsbG8="}
    topics = "/msgs-topiclistevent/v1"
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(function.ask, billing, "POST", "/msgs-msgdelivery/v1/deliver-as-message", message)
        assert device.receive()["msgId"] == message["msgId"]
        assert pending.result().json() == {"oriAddr": me, "msgId": message["msgId"]}
        assert device.send(me, b"reported on", report=True)[0] == "2.04"
        report = {"oriAddr": me, "destAddr": ue, "msgId": inbox.next("/inbox/deliver-message")["msgId"],
                  "delivSt": "REPT_DELY_SUCCESS"}
        pending = pool.submit(function.ask, billing, "POST", "/msgs-msgdelivery/v1/deliver-report", report)
        assert device.receive()["msgType"] == "IMDN" and pending.result().status_code == 200
        refused(function.ask(billing, "POST", "/msgs-msgdelivery/v1/deliver-report", {**report, "msgId": "no-such"}), 403)
    device.close()
    for number in range(50):
        stored = {**message, "msgId": str(uuid.uuid4())}
        answer = function.ask(billing, "POST", "/msgs-msgdelivery/v1/deliver-as-message", stored).json()
        if answer.get("status") == "DELY_STORED":
            break
        time.sleep(0.1)
    assert answer["status"] == "DELY_STORED", answer
    if ("POST", "/msgs-msgdelivery/v1/deliver-ue-message") in function.operations:
        refused(function.ask(billing, "POST", "/msgs-msgdelivery/v1/deliver-ue-message", {**message, "oriAddr": ue}), 403)
    subscribed = function.ask(billing, "POST", f"{topics}/request-topic-subscription",
                              {"oriAddr": me, "msgTopics": ["lab/served"]})
    assert subscribed.status_code == 200, subscribed.text
    listed = function.ask(billing, "POST", f"{topics}/topiclist-subscriptions",
                          {"oriAddr": me, "destAddr": {"addrType": "AS", "addr": "msgin5g@lab.example"},
                           "notificationURI": "https://127.0.0.1:9/topics"})
    assert listed.status_code == 201, listed.text
    path = urllib.parse.urlparse(listed.headers["location"]).path
    ended = function.ask(billing, "POST", path, {"oriAddr": me, "destAddr": me})
    assert ended.status_code == 204, ended.text
    left = function.ask(billing, "POST", f"{topics}/request-topic-unsubscription", {"oriAddr": me, "msgTopics": ["lab/served"]})
    assert left.status_code == 204, left.text
    assert function.ask(billing, "DELETE", registration).status_code == 204


def northbound(lab, function):
    messages(lab, function, Outside(lab), 2)
    exposure(lab, function)


def exposing(lab, outside):
    """Who gets as far as the body at the NEF, which looks at who asks before it: `exposure` has left an invoker."""
    parties = {"check-authentication": lambda: lab.invoker, "revoke-authorization": lambda: Provider(lab).core}
    return lambda _method, path: parties.get(path.rsplit("/", 1)[-1], lambda: outside)()


class Applicant:
    """Whoever has an onboarding credential, be it spent: it is known before the body is looked at."""

    def __init__(self, lab):
        self.nobody, self.credential = Peer(lab, None, None), lab.lab["capif_onboarding"][0]["token"]

    def request(self, method, url, body=None, **further):
        return self.nobody.request(method, url, body, token=self.credential, **further)


def party(lab):
    """Who gets as far as the body at the CAPIF core function: whose the path is. `exposure` has left an invoker."""
    provider, invoker = Provider(lab), lambda: (lab.invoker, lab.invoker.id)
    parties = {
        "api-provider-management": lambda: (provider.amf, provider.domain),
        "published-apis": lambda: (provider.apf, provider.apf_id),
        "api-invoker-management": invoker,
        "capif-security": invoker,
        "api-invocation-logs": lambda: (provider.aef, provider.aef_id),
        "capif-events": invoker,
    }

    def of(method, template):
        if (method, template) == ("POST", INVOKERS):
            return Applicant(lab)
        if template.endswith("/delete"):
            return provider.aef, lab.invoker.id
        return parties.get(template.split("/")[1], lambda: provider.amf)()

    return of


def main(lab_json):
    lab = Lab(lab_json)
    core = lab.core
    inside, nobody, outside = lab.peer("lab-nf"), Peer(lab, None, None), Outside(lab)
    as_server = lab.application_server(0)
    provisioning = lambda method, path: lab.peer("server" if path.startswith("/ss-upr") else "provisioner")
    anchor = lambda method, path: lab.peer("server" if path.endswith("retrieve-applicationkey") else "ausf")
    plan = [
        (core["aanf"], inside, akma, anchor, None),
        (core["ausf"], inside, authentication, lambda *_: lab.peer("lab-nf"), None),
        (core["udm"], inside, data_management, lambda *_: lab.peer("ausf"), None),
        (core["configuration"], inside, configuration, provisioning, None),
        (lab.api, inside, messages, lambda *_: as_server, None),
        (core["nrf"], inside, repository, lambda *_: lab.peer("lab-nf"), None),
        (core["nef"], outside, northbound, exposing(lab, outside), None),
        (core["capif"], nobody, framework, lambda *which: party(lab)(*which), withdrawal),
    ]
    failures, operations = [], 0
    for root, reader, play, callers, end in plan:
        function = Function(lab, root, reader)
        operations += len(function.operations)
        for part in (play, lambda lab, function: refusals(function, callers, {}), end):
            try:
                if part:
                    part(lab, function)
            except Exception as failure:
                failures.append(f"{play.__name__}: {type(failure).__name__}: {failure}")
        failures += [f"{play.__name__}: never seen: {key}" for key in function.unseen()]
        print(f"{play.__name__}: {len(function.operations)} operations, "
              f"{len({(m, t, s) for m, t, s in function.seen})} different answers")
    if failures:
        sys.exit("\n".join(failures))
    print(f"{operations} operations\nall held")


if __name__ == "__main__":
    main(*sys.argv[1:])
