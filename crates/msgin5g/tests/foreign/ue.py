"""A UE that shares no code with this project.

It reads lab.json, authenticates at the AUSF as a serving network's AMF would (curl), runs MILENAGE and the
AKMA derivations (HMAC and AES from the standard library and the openssl command), opens MSGin5G-1 with
`openssl s_client` or `gnutls-cli`, and speaks CoAP over TCP by hand. Whoever changes an encoding on the
wire breaks this file, which is its purpose.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import queue
import subprocess
import tempfile
import threading
import uuid

TIMEOUT_SECONDS = 20


# --- 5G-AKA and AKMA on the UE's side: TS 35.206, TS 33.501 Annex A, TS 33.535 Annex A ---------------------


def aes128(key, block):
    done = subprocess.run(
        ["openssl", "enc", "-aes-128-ecb", "-nopad", "-K", key.hex()],
        input=block, capture_output=True, check=True)
    return done.stdout


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def rotate(block, bits):
    octets = bits // 8
    return block[octets:] + block[:octets]


def milenage(k, opc, rand, sqn_of_ak=None, amf=None):
    """RES, CK, IK, AK; and MAC-A once SQN is known."""
    temp = aes128(k, xor(rand, opc))

    def out(rotation, constant):
        block = rotate(xor(temp, opc), rotation)
        return xor(aes128(k, block[:-1] + bytes([block[-1] ^ constant])), opc)

    second = out(0, 1)
    res, ak = second[8:], second[:6]
    ck, ik = out(32, 2), out(64, 4)

    def mac_a(sqn, amf):
        in1 = (sqn + amf) * 2
        return xor(aes128(k, xor(temp, rotate(xor(in1, opc), 64))), opc)[:8]

    return res, ck, ik, ak, mac_a


def kdf(key, fc, *parameters):
    s = bytes([fc])
    for parameter in parameters:
        s += parameter + len(parameter).to_bytes(2, "big")
    return hmac.new(key, s, hashlib.sha256).digest()


class Network:
    """What a UE of this home network reads from lab.json."""

    def __init__(self, lab_json):
        self.directory = pathlib.Path(lab_json).resolve().parent
        self.lab = json.loads(pathlib.Path(lab_json).read_text())
        mcc, mnc = self.lab["home_network"]["mcc"], self.lab["home_network"]["mnc"].zfill(3)
        self.domain = f"mnc{mnc}.mcc{mcc}.3gppnetwork.org"
        self.serving_network_name = f"5G:{self.domain}"

    def http(self, method, url, body, identity=None):
        """One HTTP/2 request under mutual TLS. Returns status and JSON."""
        identity = identity or self.lab["nf_client"]
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--http2", "--max-time", str(TIMEOUT_SECONDS),
             "--cacert", self.directory / self.lab["ca"],
             "--cert", self.directory / identity["cert"], "--key", self.directory / identity["key"],
             "--request", method, "--header", "content-type: application/json",
             "--data-binary", "@-", "--write-out", "\n%{http_code}", url],
            input=json.dumps(body).encode(), capture_output=True, check=True)
        text, _, status = done.stdout.decode().rpartition("\n")
        return int(status), json.loads(text) if text else None


class Ue:
    def __init__(self, network, subscriber):
        self.network, self.subscriber = network, subscriber
        self.service_id = subscriber["ue_service_id"]
        self.a_kid = self.k_akma = None

    def authenticate(self):
        """Primary authentication, 5G-AKA. Both ends hold K_AKMA and the A-KID after it."""
        net, sub = self.network, self.subscriber
        root = net.lab["core"]["ausf"]
        status, context = net.http("POST", f"{root}/nausf-auth/v1/ue-authentications",
                                   {"supiOrSuci": sub["supi"], "servingNetworkName": net.serving_network_name})
        assert status == 201, (status, context)
        assert context["authType"] == "5G_AKA", context
        rand, autn = (bytes.fromhex(context["5gAuthData"][name]) for name in ("rand", "autn"))
        res, ck, ik, ak, mac_a = milenage(bytes.fromhex(sub["k"]), bytes.fromhex(sub["opc"]), rand)
        sqn, amf = xor(autn[:6], ak), autn[6:8]
        assert mac_a(sqn, amf) == autn[8:], "the network did not prove that it knows K"
        assert amf[0] & 0x80, "AMF separation bit"
        snn = net.serving_network_name.encode()
        res_star = kdf(ck + ik, 0x6B, snn, rand, res)[16:]
        assert hashlib.sha256(rand + res_star).hexdigest()[32:] == context["5gAuthData"]["hxresStar"]
        status, confirmation = net.http("PUT", context["_links"]["5g-aka"]["href"], {"resStar": res_star.hex()})
        assert status == 200 and confirmation["authResult"] == "AUTHENTICATION_SUCCESS", (status, confirmation)
        k_ausf = kdf(ck + ik, 0x6A, snn, autn[:6])
        assert kdf(k_ausf, 0x6C, snn).hex() == confirmation["kseaf"].lower(), "K_SEAF differs"
        supi = sub["supi"].removeprefix("imsi-").encode()
        self.k_akma = kdf(k_ausf, 0x80, b"AKMA", supi)
        a_tid = kdf(k_ausf, 0x81, b"A-TID", supi)
        self.a_kid = f"{sub['routing_indicator']}.{a_tid.hex()}@5gc.{net.domain}"
        return self

    def k_af(self, ua_protocol, fqdn=None):
        fqdn = fqdn or self.network.lab["server"]["fqdn"]
        return kdf(self.k_akma, 0x82, fqdn.encode() + ua_protocol)

    def address(self):
        return {"addrType": "UE", "addr": self.service_id}


# --- MSGin5G-1: somebody else's TLS, CoAP over TCP (RFC 8323) by hand --------------------------------------

TLS_1_3 = bytes.fromhex("0100000007")
CLIENTS = {
    "openssl tls1.3": (TLS_1_3, ["-tls1_3"]),
    "openssl tls1.2 ecdhe-psk": (bytes.fromhex("010001ccac"), ["-tls1_2", "-cipher", "ECDHE-PSK-CHACHA20-POLY1305"]),
    "openssl tls1.2 psk": (bytes.fromhex("01000100a8"), ["-tls1_2", "-cipher", "PSK-AES128-GCM-SHA256"]),
    "gnutls tls1.3": (TLS_1_3, ["NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:-CIPHER-ALL:+AES-128-GCM"]),
    # Debian 12's gnutls-cli crashes in its own summary of an ECDHE_PSK handshake of TLS 1.2; plain PSK it can.
    "gnutls tls1.2 psk": (bytes.fromhex("01000100a8"),
                          ["NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-GCM"]),
}


class ConnectionEnded(Exception):
    pass


class Connection:
    """One MSGin5G-1 connection, or one to another server. A reader thread cuts the stream into CoAP messages."""

    endpoint, tls = "coaps_tcp", ()  # where lab.json has it, and what its TLS client is told besides

    def __init__(self, ue, client, *, k_af=None, a_kid=None, server_name=None, separator=";", server=None):
        server = server or ue.network.lab["server"]
        self.ue, self.path = ue, server["path"]
        ua_protocol, arguments = CLIENTS[client]
        key = (k_af if k_af is not None else ue.k_af(ua_protocol, server["fqdn"])).hex()
        identity = f"3GPP-AKMA{separator}{a_kid or ue.a_kid}"
        name = server_name or server["fqdn"]
        self.diagnostics = tempfile.NamedTemporaryFile(prefix="foreign-ue-", suffix=".log")
        if client.startswith("openssl"):
            command = ["openssl", "s_client", "-quiet", "-connect", server[self.endpoint], "-servername", name,
                       "-psk_identity", identity, "-psk", key, *arguments, *self.tls]
        else:
            host, _, port = server[self.endpoint].rpartition(":")
            command = ["gnutls-cli", "--logfile", self.diagnostics.name, "--port", port, "--sni-hostname", name,
                       "--pskusername", identity, "--pskkey", key, "--priority", *arguments, host]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.diagnostics, bufsize=0)
        self.incoming, self.responses, self.requests, self.token = queue.Queue(), queue.Queue(), queue.Queue(), 0
        self.options = {}  # of each response, by its token
        self.finished = threading.Event()
        self._open(server)
        threading.Thread(target=self._read, daemon=True).start()
        self._write(frame(0xE1, b"", b"\x23\x01\x00\x00", b""))  # 7.01 CSM, Max-Message-Size 65536
        code, _, _ = self._next(self.incoming)
        assert code == 0xE1, f"the server's first message is {code:#x}, not CSM"

    def _open(self, server):
        """What comes between TLS and CoAP: over TCP nothing."""

    def _octets(self, count):
        data = b""
        while len(data) < count:
            more = self.process.stdout.read(count - len(data))
            if not more:
                raise ConnectionEnded
            data += more
        return data

    def _messages(self):
        """Code, token, and options with payload of each message of the server."""
        while True:
            first = self._octets(1)[0]
            length, token_length = first >> 4, first & 15
            extra = {13: (1, 13), 14: (2, 269), 15: (4, 65805)}.get(length)
            if extra:
                length = int.from_bytes(self._octets(extra[0]), "big") + extra[1]
            code = self._octets(1)[0]
            yield code, self._octets(token_length), self._octets(length)

    def _read(self):
        try:
            for code, token, rest in self._messages():
                options, payload = parts_of(rest)
                where = self.incoming if code >= 0xE0 else self.requests if code < 0x20 else self.responses
                if where is self.responses:
                    self.options[token] = options
                where.put((code, token, payload))
        except (ConnectionEnded, ValueError):
            pass
        finally:
            self.finished.set()
            for where in (self.incoming, self.requests, self.responses):
                where.put(None)

    def _next(self, where):
        try:
            item = where.get(timeout=TIMEOUT_SECONDS)
        except queue.Empty:
            raise ConnectionEnded(f"nothing came in {TIMEOUT_SECONDS} s: {self.log()}") from None
        if item is None:
            where.put(None)
            raise ConnectionEnded(self.log())
        return item

    def _write(self, data):
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            raise ConnectionEnded(self.log()) from None

    def log(self):
        return pathlib.Path(self.diagnostics.name).read_text(errors="replace")[-2000:]

    def post(self, payload):
        """Sends a request and does not wait for its answer. Returns its token."""
        self.token += 1
        token = self.token.to_bytes(2, "big")
        options = b"".join(option(11, part.encode(), 0 if i else 11) for i, part in enumerate(self.path.split("/")))
        options += option(12, bytes([50]), 1)
        self._write(frame(0x02, token, options, payload))
        return token

    def answer(self):
        """The next response: its token, its code, its JSON."""
        code, token, answer = self._next(self.responses)
        return token, f"{code >> 5}.{code & 31:02}", json.loads(answer) if answer else None

    def request_raw(self, payload):
        asked = self.post(payload)
        token, code, answer = self.answer()
        assert token == asked, "the answer carries another request's token"
        return code, answer

    def request(self, **members):
        return self.request_raw(json.dumps(members).encode())

    def register(self, service_id=None):
        return self.request(msgType="REG", ueSvcId=service_id or self.ue.service_id, clientProfile={"segmentSize": 2048})

    def message(self, destination, payload, *, message_id=None, report=False, originator=None, store=None):
        """MSG as JSON."""
        members = {"msgType": "MSG", "oriAddr": originator or self.ue.address(), "destAddr": destination,
                   "msgId": message_id or str(uuid.uuid4()), "delivStReqInd": report,
                   "payload": base64.b64encode(payload).decode()}
        if store:
            members |= {"stoAndFwInd": True, "stoAndFwParams": {"exprTime": store}}
        return json.dumps(members).encode()

    def send(self, destination, payload, **members):
        return self.request_raw(self.message(destination, payload, **members))

    def take(self):
        """The server's next request, which is left unacknowledged: its token, its JSON."""
        _, token, payload = self._next(self.requests)
        return token, json.loads(payload)

    def acknowledge(self, token):
        """Answers a request of the server with 2.04."""
        self._write(frame(0x44, token, b"", b""))

    def receive(self):
        """Takes the server's next request and acknowledges it."""
        token, message = self.take()
        self.acknowledge(token)
        return message

    def end(self):
        """Waits until the server ends the connection. Returns the diagnostic of its Abort, or None if there was none."""
        diagnostic = None
        while True:
            try:
                code, _, payload = self._next(self.incoming)
            except ConnectionEnded:
                assert self.finished.is_set(), "the connection did not end"
                return diagnostic
            if code == 0xE5:
                diagnostic = payload.decode()

    def close(self):
        self.process.kill()
        self.process.wait()


def frame(code, token, options, payload):
    body = options + (b"\xff" + payload if payload else b"")
    if len(body) < 13:
        head = bytes([len(body) << 4 | len(token)])
    elif len(body) < 269:
        head = bytes([13 << 4 | len(token), len(body) - 13])
    else:
        head = bytes([14 << 4 | len(token)]) + (len(body) - 269).to_bytes(2, "big")
    return head + bytes([code]) + token + body


def option(_number, value, delta):
    assert delta < 13
    if len(value) < 13:
        return bytes([delta << 4 | len(value)]) + value
    return bytes([delta << 4 | 13, len(value) - 13]) + value


def parts_of(rest):
    """Options by number, the last of each, and the payload."""
    at, number, options = 0, 0, {}
    while at < len(rest) and rest[at] != 0xFF:
        values, at = [rest[at] >> 4, rest[at] & 15], at + 1
        for index, value in enumerate(values):
            if value == 13:
                values[index], at = rest[at] + 13, at + 1
            elif value == 14:
                values[index], at = int.from_bytes(rest[at:at + 2], "big") + 269, at + 2
        number += values[0]
        options[number], at = rest[at:at + values[1]], at + values[1]
    return options, rest[at + 1:]


def subscribers(network, count):
    """Subscribers whose card runs MILENAGE and that authenticate with 5G-AKA."""
    usable = [s for s in network.lab["subscribers"]
              if s.get("algorithm") == "milenage" and s.get("authentication_method", "5G_AKA") == "5G_AKA"
              and s.get("akma_allowed", True) and s.get("ue_service_id")]
    assert len(usable) >= count, f"lab.json has {len(usable)} usable subscribers, {count} are needed"
    return usable[:count]


def environment(name):
    value = os.environ.get(name)
    assert value, f"set {name}"
    return value
