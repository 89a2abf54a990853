"""A network function, application server or stranger that shares no code with this project: httpx over HTTP/2, mutual TLS.

Runs under the Python of target/tools, where `cargo xtask setup` puts httpx, h2 and what else the peers need.
"""

import base64
import json
import pathlib
import re
import ssl
import subprocess

import httpx

TIMEOUT_SECONDS = 30


class Lab:
    def __init__(self, lab_json):
        self.directory = pathlib.Path(lab_json).resolve().parent
        self.lab = json.loads(pathlib.Path(lab_json).read_text())
        self.core, self.api = self.lab["core"], self.lab["server"]["api"]

    def path(self, name):
        return self.directory / name

    def peer(self, name):
        """Whoever has the certificate `pki/NAME.pem`. One of the lab's functions shows tokens of the NRF without being told."""
        return Peer(self, self.path(f"pki/{name}.pem"), self.path(f"pki/{name}.key"), function=name)

    def application_server(self, number=0):
        identity = self.lab["application_servers"][number]
        peer = Peer(self, self.path(identity["cert"]), self.path(identity["key"]))
        peer.service_id = identity["as_service_id"]
        return peer

    def context(self, cert=None, key=None):
        context = ssl.create_default_context(cafile=self.path(self.lab["ca"]))
        # Loopback addresses: the certificate names them, so the name is checked as ever.
        if cert:
            context.load_cert_chain(cert, key)
        return context


class Peer:
    def __init__(self, lab, cert, key, function=None):
        self.lab, self.cert, self.key = lab, cert, key
        self.context = lab.context(cert, key)
        self.http = httpx.Client(http2=True, http1=False, verify=self.context, timeout=TIMEOUT_SECONDS, auth=Tokens(self, function))
        self.tokens = {}

    @property
    def nf_instance_id(self):
        text = subprocess.run(["openssl", "x509", "-in", self.cert, "-noout", "-ext", "subjectAltName"],
                              capture_output=True, text=True, check=True).stdout
        return re.search(r"urn:uuid:([0-9a-f-]{36})", text).group(1)

    def request(self, method, url, body=None, *, token=None, headers=None, **further):
        headers = dict(headers or {})
        if token:
            headers["authorization"] = f"Bearer {token}"
        if body is not None:
            further["json"] = body
        response = self.http.request(method, url, headers=headers, **further)
        assert response.http_version == "HTTP/2", response.http_version
        return response

    def token(self, nf_type, scope):
        """An access token of the lab's NRF for this peer (TS 29.510 clause 6.3)."""
        key = (nf_type, scope)
        if key not in self.tokens:
            response = self.http.post(f"{self.lab.core['nrf']}/oauth2/token", data={
                "grant_type": "client_credentials", "nfInstanceId": self.nf_instance_id, "targetNfType": nf_type, "scope": scope})
            assert response.status_code == 200, (key, response.status_code, response.text)
            answer = response.json()
            assert answer["token_type"] == "Bearer" and set(answer["scope"].split()) == set(scope.split()), answer
            self.tokens[key] = answer["access_token"]
        return self.tokens[key]

    def get(self, url, **further):
        return self.request("GET", url, **further)

    def post(self, url, body=None, **further):
        return self.request("POST", url, body, **further)


# What a function asks the NRF for, by itself and by the service that it uses: the producer's type, and the scope.
APPLICATION_KEY = ("AANF", "naanf-akma naanf-akma:applicationkeyget naanf-akma:applicationkeyget:supi-access")
SCOPES = {
    "ausf": {"naanf-akma": ("AANF", "naanf-akma naanf-akma:anchorkey"), "nudm-ueau": ("UDM", "nudm-ueau")},
    "aanf": {"nudm-sdm": ("UDM", "nudm-sdm")},
    "server": {"naanf-akma": APPLICATION_KEY, "ss-upr": ("AF", "ss-upr"), "ss-gm": ("AF", "ss-gm")},
    "configuration": {"naanf-akma": APPLICATION_KEY},
    "nef": {"naanf-akma": ("AANF", "naanf-akma naanf-akma:applicationkeyget"),
            **{name: ("AF", name) for name in ("msgs-asregistration", "msgs-msgdelivery", "msgs-topiclistevent")}},
}


class Tokens(httpx.Auth):
    """The token that belongs to a request of one of the lab's functions, unless it shows another."""

    def __init__(self, peer, function):
        self.peer, self.scopes = peer, SCOPES.get(function, {})

    def auth_flow(self, request):
        wanted = self.scopes.get(request.url.path.split("/")[1])
        if wanted and "authorization" not in request.headers:
            request.headers["authorization"] = f"Bearer {self.peer.token(*wanted)}"
        yield request


def b64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def cause(response):
    return response.json().get("cause") if response.content else None


def refused(response, status, wanted=None):
    """A refusal in problem details, with the stated status and cause."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/problem+json", response.headers
    problem = response.json()
    assert problem["status"] == status, problem
    if wanted:
        assert problem.get("cause") == wanted, problem
    return problem
