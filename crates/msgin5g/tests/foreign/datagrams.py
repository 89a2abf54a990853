"""MSGin5G-1 over UDP and DTLS: `openssl s_client` with CoAP (RFC 7252) by hand, and libcoap's own clients.

Not aiocoap over tinydtls: that takes PSK identities of 32 octets at most and keys of 16, and ends the handshake itself, with
internal_error, where its ClientKeyExchange should carry an A-KID. With a short identity and key it is tried in crates/dtls, as
`gnutls-cli --udp` is.
"""

import json
import subprocess
import sys
import tempfile
import queue
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from service import deliver
from ue import Connection, ConnectionEnded, Network, Ue, option, subscribers

SUITES = {
    "ECDHE-PSK-CHACHA20-POLY1305": "ccac",
    "PSK-AES128-GCM-SHA256": "00a8",
    "PSK-AES128-CCM": "c0a4",
    "PSK-AES128-CCM8": "c0a8",
}
CON, ACK, RST = 0, 2, 3
# A wrong key shows in DTLS 1.2 when the server gives the handshake up.
WRONG_KEY_SECONDS = 60


class Datagrams(Connection):
    """One MSGin5G-1 session. What s_client prints are CoAP messages one after the other; each ends with its JSON."""

    def __init__(self, ue, suite, *, k_af=None, identity=None, server_name=None):
        server = ue.network.lab["server"]
        self.ue, self.path = ue, server["path"]
        key = k_af if k_af is not None else ue.k_af(bytes.fromhex("010001" + SUITES[suite]))
        self.diagnostics = tempfile.NamedTemporaryFile(prefix="foreign-ue-", suffix=".log")
        command = ["openssl", "s_client", "-quiet", "-dtls1_2", "-connect", server["coaps"], "-psk", key.hex(),
                   "-psk_identity", identity or f"3GPP-AKMA;{ue.a_kid}", "-cipher", suite,
                   *(["-servername", server_name] if server_name else ["-noservername"])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.diagnostics, bufsize=0)
        self.incoming, self.responses, self.requests, self.token = queue.Queue(), queue.Queue(), queue.Queue(), 0
        self.options, self.finished, self.message_ids = {}, threading.Event(), {}
        self.seen, self.buffer = {}, b""
        threading.Thread(target=self._read, daemon=True).start()

    def _more(self):
        data = self.process.stdout.read(65536)
        if not data:
            raise ConnectionEnded
        self.buffer += data

    def _take(self):
        """The next message: kind, code, Message ID, token, payload."""
        while len(self.buffer) < 4:
            self._more()
        first, code = self.buffer[0], self.buffer[1]
        assert first >> 6 == 1, f"version {first >> 6}"
        kind, token_length = first >> 4 & 3, first & 15
        message_id, at = int.from_bytes(self.buffer[2:4], "big"), 4 + token_length
        if code == 0:
            self.buffer = self.buffer[4:]
            return kind, code, message_id, b"", b""
        while b"\xff" not in self.buffer[at:]:
            self._more()
        start = self.buffer.index(b"\xff", at) + 1
        token = self.buffer[4:at]
        while True:
            try:
                text = self.buffer[start:].decode("utf-8", errors="surrogateescape")
                _, end = json.JSONDecoder().raw_decode(text)
                break
            except ValueError:
                self._more()
        octets = text[:end].encode("utf-8", errors="surrogateescape")
        self.buffer = self.buffer[start + len(octets):]
        return kind, code, message_id, token, octets

    def _read(self):
        try:
            while True:
                kind, code, message_id, token, payload = self._take()
                if code == 0:
                    if kind == CON:
                        self._send(RST, 0, message_id)
                elif code < 0x20:
                    if message_id in self.seen:
                        # It has not heard us yet.
                        if self.seen[message_id]:
                            self._write(self.seen[message_id])
                        continue
                    self.seen[message_id], self.message_ids[token] = None, message_id
                    self.requests.put((code, token, payload))
                else:
                    if kind == CON:
                        self._send(ACK, 0, message_id)
                    self.responses.put((code, token, payload))
        except (ConnectionEnded, ValueError):
            self.finished.set()
            for where in (self.incoming, self.requests, self.responses):
                where.put(None)

    def _send(self, kind, code, message_id, token=b"", options=b"", payload=b""):
        head = bytes([0x40 | kind << 4 | len(token), code]) + message_id.to_bytes(2, "big")
        message = head + token + options + (b"\xff" + payload if payload else b"")
        self._write(message)
        return message

    def post(self, payload):
        self.token += 1
        token = self.token.to_bytes(2, "big")
        options = b"".join(option(11, part.encode(), 0 if i else 11) for i, part in enumerate(self.path.split("/")))
        options += option(12, bytes([50]), 1)
        self._send(CON, 0x02, self.token, token, options, payload)
        return token

    def acknowledge(self, token):
        message_id = self.message_ids.pop(token)
        self.seen[message_id] = self._send(ACK, 0x44, message_id, token)

    def is_refused(self, alert, seconds):
        deadline = time.monotonic() + seconds
        while f"alert number {alert}" not in self.log():
            assert time.monotonic() < deadline, f"wanted alert {alert}: {self.log()}"
            time.sleep(0.05)
        assert self.responses.qsize() == 0 or self.responses.get() is None, "it was answered"
        self.close()


def serves(alice, bob, suite):
    """Messages and reports both ways between a UE on DTLS and one on TLS."""
    over_dtls, over_tls = Datagrams(alice, suite), Connection(bob, "openssl tls1.3")
    for connection in (over_dtls, over_tls):
        code, answer = connection.register()
        assert code == "2.01", (suite, code, answer)
    for sender, receiver in ((over_dtls, over_tls), (over_tls, over_dtls)):
        message_id, payload = str(uuid.uuid4()), f"hello over {suite}\0\xff".encode()
        code, answer = deliver(sender, receiver, receiver.ue, message_id, payload)
        assert code == "2.04" and "status" not in answer and answer["msgId"] == message_id, (suite, code, answer)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(receiver.request, msgType="IMDN", oriAddr=receiver.ue.address(),
                                  destAddr=sender.ue.address(), msgId=message_id, delivSt="REPT_DELY_SUCCESS")
            report = sender.receive()
            code, answer = pending.result()
        assert code == "2.04", (suite, code, answer)
        assert (report["msgType"], report["msgId"]) == ("IMDN", message_id), report
    for connection in (over_dtls, over_tls):
        code, answer = connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)
        assert code == "2.02", (suite, code, answer)
        connection.close()
    print(f"served: {suite}")


# Both of libcoap's clients offer it, and it is the server's first choice.
LIBCOAP = bytes.fromhex("010001ccac")
# What each prints of alert 115, unknown_psk_identity, that comes from the server.
LIBCOAP_TOLD = {"coap-client-openssl": "SSL3 alert read:fatal:unknown PSK identity", "coap-client-gnutls": "Alert '115': "}


def libcoap_registers(ue, program, identity=None):
    """One POST of REG by libcoap's client. Returns what it prints."""
    server = ue.network.lab["server"]
    key = ue.k_af(LIBCOAP)
    body = json.dumps({"msgType": "REG", "ueSvcId": ue.service_id})
    done = subprocess.run(
        [program, "-v", "6", "-B", "15", "-m", "post", "-t", "50", "-e", body.replace("%", "%25"),
         "-u", identity or f"3GPP-AKMA;{ue.a_kid}", "-k", key,
         f"coaps://{server['coaps']}/{server['path']}"],
        capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode(errors="replace")


def main(lab_json):
    network = Network(lab_json)
    alice, bob, carol = (Ue(network, s).authenticate() for s in subscribers(network, 3))
    # It takes as long as the server's patience: meanwhile the others are served.
    impostor = Datagrams(carol, "PSK-AES128-GCM-SHA256", k_af=bytes(32))
    impostor.post(b"{}")
    for suite in SUITES:
        serves(alice, bob, suite)
    for program in ("coap-client-openssl", "coap-client-gnutls"):
        # It takes the key as a C string.
        while 0 in alice.k_af(LIBCOAP):
            alice.authenticate()
        printed = libcoap_registers(alice, program)
        assert " c:2.01 " in printed, (program, printed)
        refused = libcoap_registers(alice, program, identity=f"3GPP-AKMA;0.{'cd' * 32}@5gc.{network.domain}")
        assert LIBCOAP_TOLD[program] in refused, (program, refused)
        print(f"served: {program}")
    stranger = Ue(network, alice.subscriber)
    stranger.k_akma, stranger.a_kid = alice.k_akma, f"0.{'ab' * 32}@5gc.{network.domain}"
    for identity in (None, "meter-7", "3GPP-AKMA"):
        Datagrams(stranger, "PSK-AES128-CCM8", identity=identity).is_refused(115, 30)
    Datagrams(alice, "PSK-AES128-CCM8", server_name="other.example").is_refused(112, 30)
    impostor.is_refused(51, WRONG_KEY_SECONDS)
    # Whatever was refused, the others are served.
    serves(alice, bob, "PSK-AES128-CCM8")
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
