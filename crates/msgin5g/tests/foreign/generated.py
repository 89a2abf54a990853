"""Requests that schemathesis makes of the OpenAPI files of 3GPP, asked of the running lab over HTTP/2.

    generated.py LAB_JSON CONTRACTS [EXAMPLES]

For each operation that a function serves: bodies that the file allows, the same with some members of ours that exist in
the lab, and bodies that the file does not allow. Every answer is held to the file: no 5xx, no status that the file does
not list, no media type, header or body that it does not describe. Requests are the same in each run.
"""

import collections
import json
import pathlib
import re
import sys
import tempfile
import urllib.parse

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from peer import Lab
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (content_type_conformance, response_headers_conformance,
                                               response_schema_conformance, status_code_conformance)

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance)


class Api:
    def __init__(self, file, root, peers, known=None):
        self.file, self.root, self.peers, self.known = file, root, peers, known or {}


# What is found and is right nevertheless: (3GPP file, method, path of the file, words of the finding): why.
KNOWN = {
    ("TS29509_Nausf_UEAuthentication", None, None, "501"):
        "a protection scheme that the home network does not have is 501 UNSUPPORTED_PROTECTION_SCHEME, which the file lists",
    ("TS29503_Nudm_UEAU", None, None, "501"): "the same",
}


def plan(lab):
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
    both = [lab.peer("server"), lab.peer("ausf")]
    return [
        Api("TS29535_Naanf_AKMA", core["aanf"], both, key),
        Api("TS29509_Nausf_UEAuthentication", core["ausf"], [lab.peer("lab-nf")], authentication),
        Api("TS29503_Nudm_UEAU", core["udm"], [ausf], vector),
        Api("TS29549_SS_UserProfileRetrieval", core["configuration"], [lab.peer("server")], {"valUeId": subscriber["supi"]}),
        Api("TS29549_SS_GroupManagement", core["configuration"], [lab.peer("provisioner")], group),
        Api("TS29538_MSGS_ASRegistration", lab.api, [billing], message),
        Api("TS29538_MSGS_MSGDelivery", lab.api, [billing], message),
        Api("TS29538_MSGS_TopiclistEvent", lab.api, [billing], message),
    ]


class Run:
    def __init__(self, examples):
        self.examples, self.answers, self.findings, self.known = examples, collections.Counter(), {}, collections.Counter()

    def operation(self, api, operation, base):
        for mode, substituted in ((GenerationMode.POSITIVE, False), (GenerationMode.POSITIVE, True), (GenerationMode.NEGATIVE, False)):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception as impossible:  # an operation without anything that could be wrong
                print(f"  {operation.method.upper()} {operation.path}: no {mode.value} requests: {impossible}")
                continue
            # Which peer asks, and which members are ours, is drawn like everything else.
            kept = st.sets(st.sampled_from(sorted(api.known)), max_size=2)
            drawn = st.tuples(strategy, st.sampled_from(api.peers), kept)

            @seed(538)
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
        try:
            request = peer.http.build_request(
                what["method"], what["url"], params=what.get("params") or None, headers=headers, json=what.get("json"),
                **({"content": what["data"]} if isinstance(what.get("data"), (bytes, str)) else {}))
        except (UnicodeEncodeError, ValueError):
            return  # a text that JSON or HTTP cannot carry
        answer = peer.http.send(request)
        prepared = requests.Request(what["method"], str(request.url), headers=dict(request.headers)).prepare()
        response = Response(status_code=answer.status_code, headers={k: [v] for k, v in answer.headers.items()},
                            content=answer.content, request=prepared, elapsed=answer.elapsed.total_seconds(), verify=True,
                            http_version="2")
        self.answers[api.file, answer.status_code] += 1
        try:
            case.validate_response(response, checks=list(CHECKS))
        except FailureGroup as group:
            for failure in group.exceptions:
                self.found(api, operation, failure, answer, request)
        except Failure as failure:
            self.found(api, operation, failure, answer, request)

    def found(self, api, operation, failure, answer, request):
        words = f"{answer.status_code} {type(failure).__name__}: {str(failure).splitlines()[0]}"
        for (file, method, path, part), reason in KNOWN.items():
            if file == api.file and method in (None, operation.method.upper()) and path in (None, operation.path) and part in words:
                self.known[file, part, reason] += 1
                return
        key = (api.file, operation.method.upper(), operation.path, words)
        self.findings.setdefault(key, f"{str(failure)[:600]}\n    {request.url} {request.content[:300]!r}\n    {answer.text[:300]}")


def completed(contracts, folder):
    """The files, with an empty schema for each that they refer to in a file that is not there."""
    absent = collections.defaultdict(set)
    for path in pathlib.Path(contracts).glob("*.yaml"):
        text = path.read_text()
        (folder / path.name).write_text(text)
        for name, schema in re.findall(r"['\" ](TS\w+\.yaml)#/components/schemas/(\w+)", text):
            if not (path.parent / name).exists():
                absent[name].add(schema)
    for name, schemas in absent.items():
        stub = {"openapi": "3.0.0", "info": {"title": name, "version": "0"}, "paths": {},
                "components": {"schemas": {schema: {} for schema in sorted(schemas)}}}
        (folder / name).write_text(json.dumps(stub))
    return folder


def main(lab_json, contracts, examples="50"):
    with tempfile.TemporaryDirectory() as folder:
        held(Lab(lab_json), completed(contracts, pathlib.Path(folder)), max(1, int(examples) // 3))


def held(lab, contracts, examples):
    run, operations, served = Run(examples), 0, {}
    for api in plan(lab):
        document = served.setdefault(api.root, lab.peer("lab-nf").get(f"{api.root}/openapi.json").json())
        paths = {shape(path): item for path, item in document["paths"].items()}
        schema = schemathesis.openapi.from_path(contracts / f"{api.file}.yaml")
        prefix = urllib.parse.urlparse(schema.raw_schema["servers"][0]["url"].replace("{apiRoot}", "https://root")).path
        for result in schema.get_all_operations():
            if not hasattr(result, "ok"):
                error = result.err()
                print(f"  {error.method} {error.path} cannot be read: {str(error)[:120]}")
                continue
            operation = result.ok()
            if operation.method not in paths.get(shape(prefix + operation.path), {}):
                continue
            operations += 1
            run.operation(api, operation, api.root + prefix)
        print(f"{api.file}: {sorted((s, n) for (f, s), n in run.answers.items() if f == api.file)}", flush=True)
    for (file, part, reason), count in sorted(run.known.items()):
        print(f"known: {file} {part} ({count} times): {reason}")
    for key, detail in run.findings.items():
        print(f"FOUND: {' '.join(key)}\n    {detail}")
    if run.findings:
        sys.exit(f"{len(run.findings)} findings")
    print(f"{operations} operations, {sum(run.answers.values())} requests\nall held")


def shape(path):
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


if __name__ == "__main__":
    main(*sys.argv[1:])
