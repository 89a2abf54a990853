"""A UE that has only an HTTP stack: curl's Digest where it can, RFC 7616 by hand where curl cannot (auth-int of a body)."""

import base64
import hashlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import urllib.parse
import uuid

from ue import TIMEOUT_SECONDS

HTTP_DIGEST = bytes.fromhex("0100000002")


def sha256(text):
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()


class HttpsUe:
    """An authenticated Ue at the server's HTTPS interface, or at that of another server of the same name."""

    def __init__(self, ue, root=None):
        server = ue.network.lab["server"]
        self.ue, self.fqdn = ue, server["fqdn"]
        self.root, self.path = root or server["https"], "/" + server["path"]
        self.ca = ue.network.directory / ue.network.lab["ca"]
        self.realm = f"3GPP-bootstrapping-akma@{self.fqdn}"
        self.password = base64.b64encode(ue.k_af(HTTP_DIGEST)).decode()

    # --- curl ----------------------------------------------------------------------------------------------

    def curl_command(self, target, *arguments, user=None):
        parts = urllib.parse.urlsplit(self.root)
        return ["curl", "--silent", "--show-error", "--digest", "--user", user or f"{self.ue.a_kid}:{self.password}",
                "--user-agent", "device/1 3gpp-akma", "--cacert", self.ca,
                "--resolve", f"{self.fqdn}:{parts.port}:{parts.hostname}",
                *arguments, f"https://{self.fqdn}:{parts.port}{target}"]

    def curl(self, target, *arguments, body=None, user=None):
        """Status and JSON."""
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            arguments = (*arguments, "--header", "content-type: application/json", "--data-binary", text)
        done = subprocess.run(
            self.curl_command(target, "--max-time", str(TIMEOUT_SECONDS), "--write-out", "\n%{http_code}", *arguments,
                              user=user), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        text, _, status = done.stdout.decode().rpartition("\n")
        return int(status), json.loads(text) if text else None

    def curl_post(self, *arguments, **members):
        return self.curl(self.path, *arguments, body=members)

    # --- by hand -------------------------------------------------------------------------------------------

    def connect(self):
        parts = urllib.parse.urlsplit(self.root)
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        raw = socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS)
        connection.sock = context.wrap_socket(raw, server_hostname=self.fqdn)
        return connection

    def exchange(self, method, target, body=b"", headers=None):
        """Status, headers, JSON."""
        connection = self.connect()
        headers = {"content-type": "application/json", "user-agent": "3gpp-akma", **(headers or {})}
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, response.headers, json.loads(text) if text else None

    def challenge(self):
        status, headers, _ = self.exchange("GET", f"{self.path}/events")
        assert status == 401, status
        challenge = parameters(headers["www-authenticate"])
        assert challenge["realm"] == self.realm and challenge["algorithm"] == "SHA-256", challenge
        assert challenge["qop"].replace(" ", "") == "auth-int,auth" and "stale" not in challenge, challenge
        return challenge

    def authorization(self, method, target, body, nonce, *, qop="auth-int", count=1, password=None, a_kid=None,
                      realm=None, algorithm="SHA-256"):
        a_kid, realm, cnonce, nc = a_kid or self.ue.a_kid, realm or self.realm, uuid.uuid4().hex, f"{count:08x}"
        digest = hashlib.md5 if algorithm == "MD5" else hashlib.sha256
        h = lambda text: digest(text if isinstance(text, bytes) else text.encode()).hexdigest()
        covered = f"{method}:{target}" + (f":{h(body)}" if qop == "auth-int" else "")
        response = h(f"{h(f'{a_kid}:{realm}:{password or self.password}')}:{nonce}:{nc}:{cnonce}:{qop}:{h(covered)}")
        return (f'Digest username="{a_kid}", realm="{realm}", uri="{target}", algorithm={algorithm}, nonce="{nonce}", '
                f'nc={nc}, cnonce="{cnonce}", qop={qop}, response="{response}"')

    def ask(self, method, target, body=b"", *, sent=None, nonce=None, headers=None, **how):
        """One request with credentials made for it, under a new nonce unless one is given."""
        nonce = nonce or self.challenge()["nonce"]
        authorization = self.authorization(method, target, body, nonce, **how)
        return self.exchange(method, target, body if sent is None else sent, {"authorization": authorization,
                                                                              **(headers or {})})

    def post(self, **members):
        status, _, answer = self.ask("POST", self.path, json.dumps(members).encode())
        return status, answer

    # --- what both do --------------------------------------------------------------------------------------

    def register(self):
        return {"msgType": "REG", "ueSvcId": self.ue.service_id}

    def message(self, destination, payload, message_id, *, store=None):
        members = {"msgType": "MSG", "oriAddr": self.ue.address(), "destAddr": destination, "msgId": message_id,
                   "payload": base64.b64encode(payload).decode()}
        if store:
            members |= {"stoAndFwInd": True, "stoAndFwParams": {"exprTime": store}}
        return members

    def poll(self, wait=TIMEOUT_SECONDS - 2):
        """Identifiers and messages, by long poll; the server may have had another device's end first."""
        status, answer = self.curl(f"{self.path}/events?wait={wait}")
        assert status in (200, 204), (status, answer)
        return [(event["id"], event["message"]) for event in answer["events"]] if answer else []

    def acknowledge(self, event, message, **further):
        answer = {"msgType": "MSGRESP", "oriAddr": message["oriAddr"], "msgId": message["msgId"], **further}
        return self.curl(f"{self.path}/events/{event}", body=answer)

    def events(self):
        return Events(self)


class Events:
    """curl reading server-sent events."""

    def __init__(self, device):
        self.process = subprocess.Popen(
            device.curl_command(f"{device.path}/events", "--no-buffer", "--header", "accept: text/event-stream"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def next(self):
        """The next event's identifier and message; None at the end of the stream."""
        fields = {}
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                return fields["id"], json.loads(fields["data"])
        return None

    def close(self):
        self.process.kill()
        self.process.wait()


def parameters(header):
    scheme, _, rest = header.partition(" ")
    assert scheme == "Digest", header
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', rest)}
