"""Requests that schemathesis makes of the OpenAPI files of 3GPP, asked of the running lab over HTTP/2.

    generated.py LAB_JSON CONTRACTS [EXAMPLES [SEED [FILE...]]]

For each operation that a function serves: bodies that the file allows, the same with some members of ours that exist in
the lab, and bodies that the file does not allow. Every answer is held to the file: no 5xx, no status that the file does
not list, no media type, header or body that it does not describe. Requests are the same in each run with the same SEED.

And the other way round: every operation in the documents that the functions serve has to be asked for by this, and each
succeed at least once, by a request that was generated or one of written.py, apart from those in UNREACHED, which say why.
"""

import collections
import json
import pathlib
import re
import sys
import tempfile
import time
import urllib.parse

import httpx
import requests
import schemathesis
import written
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from parties import Onboarding, Outside, Provider
from peer import Lab, Peer
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (content_type_conformance, response_headers_conformance,
                                               response_schema_conformance, status_code_conformance)

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance)


class Api:
    """An API of `file` at `root`: who asks, what there is in the lab (by the name of the member or parameter), and at which
    operations that is not used, because nothing could be asked after a success."""

    def __init__(self, file, root, peers, known=None, *, reader=None, ends=(), first=()):
        self.file, self.root, self.peers, self.known = file, root, peers, known or {}
        self.reader, self.ends, self.first = reader, set(ends), first


# What is found and is right nevertheless: (3GPP file, method, path of the file, words of the finding, cause or None): why.
KNOWN = {
    ("TS29509_Nausf_UEAuthentication", "POST", "/ue-authentications", "501 ServerError", "UNSUPPORTED_PROTECTION_SCHEME"):
        "a protection scheme that the home network does not have is this, which the file lists",
    ("TS29503_Nudm_UEAU", "POST", "/{supiOrSuci}/security-information/generate-auth-data", "501 ServerError",
     "UNSUPPORTED_PROTECTION_SCHEME"): "the same",
    ("TS29510_Nnrf_NFManagement", "PUT", "/nf-instances/{nfInstanceID}", "400 JsonSchemaError", None):
        "the file's body of a refusal must name shared data that a profile lacks; there is none at this NRF, nor in most refusals",
}


# Operations that no request made here brings to a success: (3GPP file, method, path of the file): why.
UNREACHED = {
    ("TS29538_MSGS_MSGDelivery", "POST", "/deliver-ue-message"): "no message gateway is configured in the lab",
    ("TS29222_CAPIF_API_Provider_Management_API", "POST", "/registrations"): "the lab's NEF has spent the one credential",
    ("TS29222_CAPIF_API_Provider_Management_API", "DELETE", "/registrations/{registrationId}"):
        "nobody could do anything after; served.py, at its end",
}


def plan(lab, folder):
    core, subscriber = lab.core, lab.lab["subscribers"][0]
    billing = lab.application_server(0)
    network = lab.lab["home_network"]
    name = f"5G:mnc{network['mnc'].zfill(3)}.mcc{network['mcc']}.3gppnetwork.org"
    me = {"addrType": "AS", "addr": billing.service_id}
    ue = {"addrType": "UE", "addr": subscriber["ue_service_id"]}
    message = {"oriAddr": me, "destAddr": ue, "msgId": "generated", "stoAndFwInd": False, "notificationURI": "https://127.0.0.1:9/",
               "asSvcId": billing.service_id, "targetUri": "https://127.0.0.1:9/", "delivSt": "REPT_DELY_SUCCESS",
               "msgTopics": ["lab/generated"], "payload": "aGVsbG8="}
    key = {"supi": subscriber["supi"], "aKId": "0.generated@5gc.mnc001.mcc001.3gppnetwork.org", "kAkma": "11" * 32,
           "afId": f"{lab.lab['server']['fqdn']}:0100000007"}
    authentication = {"supiOrSuci": subscriber["supi"], "servingNetworkName": name, "supi": subscriber["supi"],
                      "resStar": "00" * 16, "eapPayload": "AgEADDIOAAAWAQAA"}
    ausf = lab.peer("ausf")
    vector = {"servingNetworkName": name, "ausfInstanceId": ausf.nf_instance_id, "nfInstanceId": ausf.nf_instance_id,
              "timeStamp": "2026-12-01T00:00:00Z", "authType": "5G_AKA", "supiOrSuci": subscriber["supi"], "supi": subscriber["supi"]}
    group = {"valGroupId": "generated@lab.example", "groupDocId": "generated@lab.example", "valServiceIds": ["msgin5g"]}
    both, supi, root = [lab.peer("server"), ausf], subscriber["supi"], lab.api
    amf, provisioner, server = lab.peer("lab-nf"), lab.peer("provisioner"), lab.peer("server")
    return [*repository(lab), *northbound(lab, message), *framework(lab, folder),
        Api("TS29535_Naanf_AKMA", core["aanf"], both, key, first=written.anchor(ausf, key)),
        Api("TS29509_Nausf_UEAuthentication", core["ausf"], [amf], authentication, first=written.authentication(lab, amf)),
        Api("TS29503_Nudm_UEAU", core["udm"], [ausf], vector, first=written.data_management(ausf, name, supi)),
        Api("TS29549_SS_UserProfileRetrieval", core["configuration"], [server],
            {"val-tgt-ue": json.dumps({"valUeId": supi}), "val-service-id": "msgin5g"}, first=written.profiles(server, supi)),
        Api("TS29549_SS_GroupManagement", core["configuration"], [provisioner], group, first=written.groups(provisioner)),
        Api("TS29538_MSGS_ASRegistration", root, [billing], message, first=written.registrations(billing)),
        Api("TS29538_MSGS_MSGDelivery", root, [billing], message, first=lambda: written.messages(lab, billing, 0, root)),
        Api("TS29538_MSGS_TopiclistEvent", root, [billing], message, first=written.topics(billing)),
    ]


def repository(lab):
    amf, root = lab.peer("lab-nf"), lab.core["nrf"]
    known = {"nfInstanceID": amf.nf_instance_id, "nfInstanceId": amf.nf_instance_id, "nfType": "AMF", "nfStatus": "REGISTERED",
             "ipv4Addresses": ["127.0.0.1"], "nfStatusNotificationUri": "https://127.0.0.1:9/", "reqNfInstanceId": amf.nf_instance_id,
             "reqNfType": "AMF", "target-nf-type": "AUSF", "requester-nf-type": "AMF", "grant_type": "client_credentials",
             "targetNfType": "AUSF", "scope": "nausf-auth"}
    profile = {name: known[name] for name in ("nfInstanceId", "nfType", "nfStatus", "ipv4Addresses")}
    return [Api("TS29510_Nnrf_NFManagement", root, [amf], known, first=written.repository(amf, profile)),
            *(Api(f"TS29510_Nnrf_{name}", root, [amf], known) for name in ("NFDiscovery", "AccessToken"))]


def northbound(lab, message):
    """The NEF: an application server outside, and for AEF_Security the parties to CAPIF; see `framework`."""
    weather, root = Outside(lab), lab.core["nef"]
    me = {"addrType": "AS", "addr": weather.service_id}
    message = {**message, "oriAddr": me, "asSvcId": weather.service_id}
    key = {"aKId": "0.generated@5gc.mnc001.mcc001.3gppnetwork.org", "afId": f"{weather.description['fqdn']}:0100000007"}
    first = {"ASRegistration": written.registrations(weather), "MSGDelivery": lambda: written.messages(lab, weather, 1, root),
             "TopiclistEvent": written.topics(weather)}
    return [Api("TS29522_AKMA", root, [weather], key)] + [
        Api(f"TS29538_MSGS_{name}", root, [weather], message, first=some) for name, some in first.items()]


def framework(lab, folder):
    root, provider, invoker = lab.core["capif"], Provider(lab), Onboarding(lab, folder, 2).onboard()
    nobody, coming = Peer(lab, None, None), Onboarding(lab, folder, 3)
    api_name, api_id = provider.apis[0]
    agreement = {"securityInfo": [{"aefId": provider.aef_id, "apiId": api_id, "prefSecurityMethods": ["OAUTH"]}],
                 "notificationDestination": "https://localhost:9/capif"}
    agreed = invoker.request("PUT", f"{root}/capif-security/v1/trustedInvokers/{invoker.id}", agreement)
    assert agreed.status_code == 201, agreed.text
    profile = {"aefId": provider.aef_id, "versions": [{"apiVersion": "v1"}], "domainName": "nef.lab.example"}
    known = {**agreement, **coming.details, "aefProfiles": [profile], "apiIds": [api_id], "events": ["SERVICE_API_AVAILABLE"],
             "apiName": api_name, "api-name": api_name, "apiId": api_id, "serviceApiId": api_id,
             "registrationId": provider.domain, "apfId": provider.apf_id, "aefId": provider.aef_id, "aef-id": provider.aef_id,
             "onboardingId": invoker.id, "apiInvokerId": invoker.id, "api-invoker-id": invoker.id, "securityId": invoker.id,
             "subscriberId": invoker.id, "grant_type": "client_credentials", "client_id": invoker.id,
             "authenticationInfo": True, "authorizationInfo": True}
    apis = {
        "API_Provider_Management_API": ([provider.amf, nobody], ["PUT", "DELETE"]),
        "Publish_Service_API": ([provider.apf], ["PUT", "PATCH", "DELETE"]),
        "Discover_Service_API": ([invoker], []),
        # Its certificate is not to be replaced: with it the others are asked.
        "API_Invoker_Management_API": ([invoker, nobody], ["PUT", "PATCH", "DELETE"]),
        "Security_API": ([invoker, provider.aef], []),
        "Access_Control_Policy_API": ([provider.aef], []),
        "Logging_API_Invocation_API": ([provider.aef], []),
        "Auditing_API": ([provider.amf], []),
        "Events_API": ([invoker, provider.amf], []),
    }
    first = {
        "API_Provider_Management_API": written.provider_management(provider),
        "Publish_Service_API": written.publishing(provider, profile),
        "API_Invoker_Management_API": written.onboarding(lab, folder, 4),
        "Security_API": written.security(provider, invoker, agreement),
        "Events_API": written.events(invoker),
    }
    reader = {"reader": nobody}
    return [Api("TS29222_AEF_Security_API", lab.core["nef"], [invoker, provider.core], known, reader=invoker,
                first=written.exposing(provider, invoker))] + [
        Api(f"TS29222_CAPIF_{name}", root, peers, known, ends=ends, first=first.get(name, ()), **reader)
        for name, (peers, ends) in apis.items()]


class Run:
    def __init__(self, examples, number):
        self.number = number
        self.examples, self.answers, self.findings, self.known = examples, collections.Counter(), {}, collections.Counter()
        # The statuses that came, by root, file and operation.
        self.tried = collections.defaultdict(collections.Counter)

    def written(self, api, operations, base):
        """The requests of written.py for this API."""
        answers = {}
        for one in api.first() if callable(api.first) else api.first:
            operation, what = operations[one.method, one.path], one.made(lambda method, path: answers[method, path])
            further = {} if what["body"] is None else {"body": what["body"], "media_type": one.media_type}
            case = operation.Case(path_parameters=what["values"], query=what["query"], **further)
            answers[one.method, one.path] = answer = self.ask(api, operation, case, what["peer"], (), base)
            if not answer.is_success:
                print(f"  {one.method} {one.path} as it is written: {answer.status_code} {answer.text[:300]}")

    def operation(self, api, operation, base):
        for mode, substituted in ((GenerationMode.POSITIVE, False), (GenerationMode.POSITIVE, True), (GenerationMode.NEGATIVE, False)):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception as impossible:  # an operation without anything that could be wrong
                print(f"  {operation.method.upper()} {operation.path}: no {mode.value} requests: {impossible}")
                continue
            # Which peer asks, and which members are ours, is drawn like everything else.
            kept = st.sets(st.sampled_from(sorted(api.known)), max_size=2)
            substituted = substituted and operation.method.upper() not in api.ends
            drawn = st.tuples(strategy, st.sampled_from(api.peers), kept)

            @seed(self.number)
            @settings(max_examples=self.examples, database=None, deadline=None, phases=[Phase.generate],
                      suppress_health_check=list(HealthCheck))
            @given(drawn)
            def ask(what):
                case, peer, kept = what
                self.ask(api, operation, case, peer, api.known.keys() - kept if substituted else (), base)

            try:
                ask()
            except Exception as failure:
                if type(failure).__name__ != "Unsatisfiable":
                    raise

    def ask(self, api, operation, case, peer, names, base):
        for name in names:
            for part in (case.body, case.path_parameters, case.query):
                if isinstance(part, dict) and (name in part or part is case.body):
                    part[name] = api.known[name]
        what = case.as_transport_kwargs(base_url=base)
        headers = {name: value for name, value in what["headers"].items()
                   if name.lower() not in ("connection", "accept-encoding", "user-agent")}
        if hasattr(peer, "own_token"):
            headers["authorization"] = f"Bearer {peer.own_token()}"
        try:
            request = peer.http.build_request(
                what["method"], what["url"], params=what.get("params") or None, headers=headers, json=what.get("json"),
                **body_of(what.get("data")))
        except (UnicodeEncodeError, ValueError, httpx.InvalidURL):
            return None  # a text that JSON or HTTP cannot carry, or a query that httpx will not
        answer = peer.http.send(request)
        prepared = requests.Request(what["method"], str(request.url), headers=dict(request.headers)).prepare()
        response = Response(status_code=answer.status_code, headers={k: [v] for k, v in answer.headers.items()},
                            content=answer.content, request=prepared, elapsed=answer.elapsed.total_seconds(), verify=True,
                            http_version="2")
        self.answers[api.file, answer.status_code] += 1
        self.tried[api.root, api.file, operation.method.upper(), operation.path][answer.status_code] += 1
        try:
            case.validate_response(response, checks=list(CHECKS))
        except FailureGroup as group:
            for failure in group.exceptions:
                self.found(api, operation, failure, answer, request)
        except Failure as failure:
            self.found(api, operation, failure, answer, request)
        return answer

    def found(self, api, operation, failure, answer, request):
        words = f"{answer.status_code} {type(failure).__name__}: {str(failure).splitlines()[0]}"
        for (file, method, path, part, cause), reason in KNOWN.items():
            here = (file, method, path) == (api.file, operation.method.upper(), operation.path)
            if here and part in words and cause in (None, cause_of(answer)):
                self.known[file, f"{method} {path} {part}", reason] += 1
                return
        key = (api.file, operation.method.upper(), operation.path, words)
        detail = f"{str(failure)[:600]}\n    {request.method} {request.url} {request.content[:300]!r}\n    {answer.text[:300]}"
        if key not in self.findings:
            # At once: a long run may be ended before its end.
            print(f"FOUND: {' '.join(key)}\n    {detail}", flush=True)
            self.findings[key] = detail


def cause_of(answer):
    try:
        return answer.json().get("cause")
    except (ValueError, AttributeError):
        return None


def body_of(data):
    if isinstance(data, dict):
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in data.items()}
        return {"data": form}
    return {"content": data} if isinstance(data, (bytes, str)) else {}


# What is kept as it came and given again so, whatever it was (contract-deviations.md): nobody holds it to its schema.
KEPT = "$ref: 'TS29571_CommonData.yaml#/components/schemas/UserLocation'"


def completed(contracts, folder):
    """The files, with an empty schema for each that they refer to in a file that is not there, and for what is kept as it came."""
    absent = collections.defaultdict(set)
    for path in pathlib.Path(contracts).glob("*.yaml"):
        text = path.read_text().replace(KEPT, "description: kept as it came")
        (folder / path.name).write_text(text)
        for name, schema in re.findall(r"['\" ](TS\w+\.yaml)#/components/schemas/(\w+)", text):
            if not (path.parent / name).exists():
                absent[name].add(schema)
    for name, schemas in absent.items():
        stub = {"openapi": "3.0.0", "info": {"title": name, "version": "0"}, "paths": {},
                "components": {"schemas": {schema: {} for schema in sorted(schemas)}}}
        (folder / name).write_text(json.dumps(stub))
    return folder


def main(lab_json, contracts, examples="50", number="538", *files):
    with tempfile.TemporaryDirectory() as folder:
        run = Run(max(1, int(examples) // 3), int(number))
        held(Lab(lab_json), completed(contracts, pathlib.Path(folder)), run, files)


def held(lab, contracts, run, files):
    operations, served, left = [], {}, {}
    for api in plan(lab, contracts):
        if files and api.file not in files:
            continue
        if api.root not in served:
            served[api.root] = (api.reader or api.peers[0]).get(f"{api.root}/openapi.json").json()
            left[api.root] = {(method.upper(), path) for path, item in served[api.root]["paths"].items() for method in item}
        document, began = served[api.root], time.monotonic()
        paths = {shape(path): path for path in document["paths"]}
        schema = schemathesis.openapi.from_path(contracts / f"{api.file}.yaml")
        servers = schema.raw_schema.get("servers") or [{"url": "{apiRoot}"}]
        prefix = urllib.parse.urlparse(servers[0]["url"].replace("{apiRoot}", "https://root")).path
        described = {}
        for result in schema.get_all_operations():
            if not hasattr(result, "ok"):
                error = result.err()
                print(f"  {error.method} {error.path} cannot be read: {str(error)[:120]}")
                continue
            operation = result.ok()
            path, method = paths.get(shape(prefix + operation.path)), operation.method.upper()
            if (method, path) not in left[api.root]:
                continue
            left[api.root].remove((method, path))
            operations.append((api.root, api.file, method, operation.path))
            described[method, operation.path] = operation
        run.written(api, described, api.root + prefix)
        for operation in described.values():
            run.operation(api, operation, api.root + prefix)
        print(f"{api.file}, {time.monotonic() - began:.0f} s: {sorted((s, n) for (f, s), n in run.answers.items() if f == api.file)}", flush=True)
    for (file, part, reason), count in sorted(run.known.items()):
        print(f"known: {file} {part} ({count} times): {reason}")
    missed = [f"no request was made of {method} {root}{path}" for root, some in left.items() for method, path in sorted(some)]
    missed = [] if files else missed
    for key in operations:
        statuses = run.tried[key]
        if not statuses:
            missed.append(f"never tried: {' '.join(key)}")
        elif not any(200 <= status < 300 for status in statuses) and key[1:] not in UNREACHED:
            missed.append(f"no success: {' '.join(key)}: {dict(statuses)}")
    for key, reason in UNREACHED.items():
        print(f"not reached: {' '.join(key)}: {reason}")
    for what in missed:
        print(f"MISSED: {what}")
    if run.findings or missed:
        sys.exit(f"{len(run.findings)} findings, {len(missed)} missed")
    assert operations, "nothing was tried"
    print(f"{len(operations)} operations, {sum(run.answers.values())} requests\nall held")


def shape(path):
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


if __name__ == "__main__":
    main(*sys.argv[1:])
