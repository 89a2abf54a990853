"""An API invoker that shares no code with this project (TS 29.222, TS 33.122), after docs/reference/capif.md: httpx over HTTP/2,
keys by the openssl command, AEF_PSK by the standard library, and HTTP/2 over TLS-PSK by h2 on `openssl s_client`."""

import json
import pathlib
import ssl
import subprocess
import tempfile

import h2.config
import h2.connection
import h2.events
import httpx

from peer import Peer
from ue import kdf

INVOKERS = "/api-invoker-management/v1/onboardedInvokers"
SUITE = "ECDHE-PSK-CHACHA20-POLY1305"


def credentials(lab, as_service_id):
    """The onboarding credentials that are for this application server, each good once."""
    return [one["token"] for one in lab.lab["capif_onboarding"] if one["as_service_id"] == as_service_id]


class Invoker:
    """Whoever has been given `credential`; nobody yet before `onboard`."""

    def __init__(self, lab, folder, name, credential, notified_at="https://localhost:9/capif"):
        self.lab, self.credential, self.notified_at = lab, credential, notified_at
        self.root, self.id = lab.core["capif"], None
        self.key, self.cert = (pathlib.Path(folder) / f"{name}.{end}" for end in ("key", "pem"))

    # --- CAPIF-1e -----------------------------------------------------------------------------------------

    def onboard(self):
        """An own key, and a certificate for it: TLS without a client certificate, and the credential as a bearer token."""
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key)
        public = openssl("pkey", "-in", self.key, "-pubout")
        stranger = Peer(self.lab, None, None)
        answer = stranger.post(f"{self.root}{INVOKERS}", {
            "onboardingInformation": {"apiInvokerPublicKey": public}, "notificationDestination": self.notified_at,
        }, token=self.credential)
        if answer.status_code != 201:
            return answer
        details = answer.json()
        self.id = details["apiInvokerId"]
        assert answer.headers["location"] == f"{self.root}{INVOKERS}/{self.id}", answer.headers
        self.cert.write_text(details["onboardingInformation"]["apiInvokerCertificate"])
        assert openssl("x509", "-in", self.cert, "-noout", "-pubkey") == public, "a certificate for another key"
        self.peer = Peer(self.lab, self.cert, self.key)
        return answer

    def discover(self, **query):
        answer = self.peer.get(f"{self.root}/service-apis/v1/allServiceAPIs", params={"api-invoker-id": self.id} | query)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json().get("serviceAPIDescriptions", [])

    def negotiate(self, aef_id, methods, *, update=False, **further):
        """Asks for a security context at this AEF over the certificate's own TLS 1.3; the answer, whatever it is."""
        return context_request(self.peer, self, aef_id, methods, update, further)

    def negotiate_tls12(self, aef_id, methods):
        """The same over TLS 1.2: the answer, and the master secret and session ID of that session."""
        with tempfile.NamedTemporaryFile(prefix="keys-") as log:
            peer = Peer(self.lab, self.cert, self.key)
            peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
            peer.context.keylog_filename = log.name
            answer = context_request(peer, self, aef_id, methods, False, {})
            stream = answer.extensions["network_stream"].get_extra_info("ssl_object")
            assert stream.version() == "TLSv1.2" and stream.session.id, stream.version()
            lines = [line.split() for line in pathlib.Path(log.name).read_text().splitlines() if line.startswith("CLIENT_RANDOM")]
            assert len(lines) == 1, "one connection, one session"
            return answer, bytes.fromhex(lines[0][2]), stream.session.id

    def token(self, scope=None, **form):
        """The answer of the token endpoint (RFC 6749 clause 4.4)."""
        form = {"grant_type": "client_credentials", "client_id": self.id} | ({"scope": scope} if scope else {}) | form
        return self.peer.http.post(f"{self.root}/capif-security/v1/securities/{self.id}/token", data=form)

    def offboard(self):
        return self.peer.request("DELETE", f"{self.root}{INVOKERS}/{self.id}")

    # --- CAPIF-2e -----------------------------------------------------------------------------------------

    def by_pki(self, profile):
        """A way to call what the AEF exposes: `ask(method, path, body)`."""
        agreed(self.negotiate(profile["aefId"], ["PKI"]), "PKI")
        root = root_of(interface_for(profile, "PKI"))
        return lambda method, path, body=None: self.peer.request(method, f"{root}{path}", body)

    def by_oauth(self, profile):
        agreed(self.negotiate(profile["aefId"], ["OAUTH"]), "OAUTH")
        root = root_of(interface_for(profile, "OAUTH"))
        answer = self.token()
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store", answer.text
        granted = answer.json()
        assert granted["token_type"] == "Bearer" and granted["expires_in"] > 0, granted
        assert granted["scope"].startswith(f"3gpp#{profile['aefId']}:"), granted
        return lambda method, path, body=None: self.peer.request(method, f"{root}{path}", body, token=granted["access_token"])

    def by_psk(self, profile):
        key = self.aef_psk(profile)
        return PskConnection(interface_for(profile, "PSK"), self.id, key).request

    def aef_psk(self, profile):
        """AEF_PSK (TS 33.122 clause A.1), of the session of TLS 1.2 in which it was agreed upon."""
        answer, master_secret, session_id = self.negotiate_tls12(profile["aefId"], ["PSK"])
        agreed(answer, "PSK")
        return kdf(master_secret, 0x7A, address_of(interface_for(profile, "PSK")).encode(), session_id)


def context_request(peer, invoker, aef_id, methods, update, further):
    context = {"securityInfo": [{"aefId": aef_id, "prefSecurityMethods": methods} | further],
               "notificationDestination": invoker.notified_at}
    uri = f"{invoker.root}/capif-security/v1/trustedInvokers/{invoker.id}"
    return peer.post(f"{uri}/update", context) if update else peer.request("PUT", uri, context)


def agreed(answer, method):
    assert answer.status_code in (200, 201), (answer.status_code, answer.text)
    assert [entry["selSecurityMethod"] for entry in answer.json()["securityInfo"]] == [method], answer.text


def interface_for(profile, method):
    return next(one for one in profile["interfaceDescriptions"] if method in one["securityMethods"])


def address_of(interface):
    return f"{interface['ipv4Addr']}:{interface['port']}"


def root_of(interface):
    return f"https://{address_of(interface)}"


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=True).stdout


class Refused(Exception):
    """The handshake failed: what openssl said."""


class Answer:
    """What the tests look at of a response, by the names that httpx has for it."""

    def __init__(self):
        self.status_code, self.headers, self.content = None, httpx.Headers(), b""

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class PskConnection:
    """HTTP/2 over TLS 1.2 with a pre-shared key, one request at a time."""

    def __init__(self, interface, identity, key):
        self.authority = address_of(interface)
        self.diagnostics = tempfile.TemporaryFile(prefix="psk-")
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-quiet", "-connect", self.authority, "-tls1_2", "-cipher", SUITE, "-alpn", "h2",
             "-psk_identity", identity, "-psk", key.hex()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.diagnostics, bufsize=0)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.flush()

    def flush(self):
        try:
            self.process.stdin.write(self.http.data_to_send())
        except BrokenPipeError:
            raise Refused(self.log()) from None

    def log(self):
        self.process.kill()
        self.process.wait()
        self.diagnostics.seek(0)
        return self.diagnostics.read().decode(errors="replace")

    def request(self, method, path, body=None):
        stream, payload = self.http.get_next_available_stream_id(), json.dumps(body).encode() if body is not None else b""
        headers = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        if payload:
            headers.append(("content-type", "application/json"))
        self.http.send_headers(stream, headers, end_stream=not payload)
        if payload:
            self.http.send_data(stream, payload, end_stream=True)
        answer = Answer()
        while True:
            self.flush()
            octets = self.process.stdout.read(65536)
            if not octets:
                raise Refused(self.log())
            for event in self.http.receive_data(octets):
                if isinstance(event, h2.events.ResponseReceived):
                    answer.headers = httpx.Headers(event.headers)
                    answer.status_code = int(answer.headers[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    answer.content += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.flush()
                    return answer
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    raise AssertionError(event)

    def close(self):
        self.process.kill()
        self.process.wait()
