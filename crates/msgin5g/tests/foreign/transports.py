"""What is refused, and what is promised, over each transport, by UEs that share no code with ours.

    transports.py LAB_JSON refusals      the same refusals over each, with their code and cause
    transports.py LAB_JSON store FILE    acceptance over each; messages that are promised and wait, when the server is killed
    transports.py LAB_JSON collect FILE  they come to their recipients over each

TLS and DTLS 1.2 by OpenSSL, WebSocket by wsproto, OSCORE by aiocoap, HTTPS by curl. DTLS 1.3 has no client of a command
line: it is tried in tests/transports.rs.
"""

import asyncio
import base64
import copy
import json
import os
import pathlib
import queue
import sys
import threading
import uuid

import aiocoap
from datagrams import Datagrams
from https_ue import HttpsUe
from oscore_ue import Device
from ue import Connection, ConnectionEnded, Network, Ue, subscribers
from websocket import WebSocket

PATIENCE_SECONDS = 60
FOREVER = "2099-01-01T00:00:00Z"
LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


class Refused(Exception):
    """The peer was not let in: what it was told."""


class Tls:
    """TLS, DTLS 1.2 and WebSocket: OpenSSL's client, and CoAP by hand above it."""

    not_registered, forbidden, too_large, malformed = "4.01", "4.03", "4.13", "4.00"
    registered, accepted, gone = "2.01", "2.04", "2.02"

    def __init__(self, name, kind, client, unknown, wrong):
        self.name, self.kind, self.client = name, kind, client
        self.told = {"unknown A-KID": f"alert number {unknown}\n", "wrong K_AF": f"alert number {wrong}\n"}

    def open(self, ue, a_kid=None, k_af=None):
        try:
            if self.kind is Datagrams:
                connection = Datagrams(ue, self.client, k_af=k_af, identity=a_kid and f"3GPP-AKMA;{a_kid}")
                if a_kid or k_af:
                    # Its handshake goes on behind it.
                    connection.post(b"{}")
                    assert connection.finished.wait(PATIENCE_SECONDS), "neither let in nor refused"
                    raise ConnectionEnded(connection.log())
            else:
                connection = self.kind(ue, self.client, a_kid=a_kid, k_af=k_af)
        except ConnectionEnded as ended:
            raise Refused(str(ended)) from None
        return TlsSession(connection)


class TlsSession:
    def __init__(self, connection):
        self.connection = connection

    def request(self, payload):
        return self.connection.request_raw(payload)

    def begin(self, payload):
        self.asked = self.connection.post(payload)

    def is_answered(self):
        return not self.connection.responses.empty()

    def answer(self):
        token, code, answer = self.connection.answer()
        assert token == self.asked
        return code, answer

    def take(self):
        return self.connection.take()

    def acknowledge(self, taken):
        self.connection.acknowledge(taken)

    def close(self):
        self.connection.close()


class Impostor(Ue):
    """Somebody with another's A-KID and a key of its own."""

    def __init__(self, ue, key):
        super().__init__(ue.network, ue.subscriber)
        self.a_kid, self.key = ue.a_kid, key

    def k_af(self, ua_protocol, fqdn=None):
        return self.key


class Oscore:
    not_registered, forbidden, too_large, malformed = "4.01", "4.03", "4.13", "4.00"
    registered, accepted, gone = "2.01", "2.04", "2.02"
    told = {"unknown A-KID": "/akma: 4.01", "wrong K_AF": "4.00 Bad Request"}

    def __init__(self, name, scheme):
        self.name, self.scheme = name, scheme

    def open(self, ue, a_kid=None, k_af=None):
        session = OscoreSession(ue, self.scheme)
        if k_af is not None:
            session.device.ue = Impostor(ue, k_af)
        code = session.run(session.device.agree(a_kid))
        if code != aiocoap.CREATED:
            session.close()
            raise Refused(f"/akma: {code.dotted}")
        if k_af is not None:
            # Anybody may ask for a context; what is said under it is refused, and the refusal is not protected.
            try:
                raise AssertionError(session.request(b"{}"))
            except aiocoap.oscore.NotAProtectedMessage as refusal:
                raise Refused(str(refusal.plain_message.code)) from None
            finally:
                session.close()
        return session


class OscoreSession:
    def __init__(self, ue, scheme):
        self.device = Device(ue, scheme)
        self.run(self.device.open())
        self.device.inbox.render_post = self._take
        self.requests = queue.Queue()

    async def _take(self, request):
        done = asyncio.Event()
        self.requests.put((done, json.loads(request.payload)))
        await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, LOOP).result(PATIENCE_SECONDS)

    async def _ask(self, payload):
        device = self.device
        message = aiocoap.Message(code=aiocoap.POST, uri=f"{device.base}/{device.path}", payload=payload, content_format=50)
        response = await device.ask(message)
        return response.code.dotted, json.loads(response.payload) if response.payload else None

    def request(self, payload):
        return self.run(self._ask(payload))

    def begin(self, payload):
        self.pending = asyncio.run_coroutine_threadsafe(self._ask(payload), LOOP)

    def is_answered(self):
        return self.pending.done()

    def answer(self):
        return self.pending.result(PATIENCE_SECONDS)

    def take(self):
        return self.requests.get(timeout=PATIENCE_SECONDS)

    def acknowledge(self, done):
        LOOP.call_soon_threadsafe(done.set)

    def close(self):
        self.run(self.device.close())


class Https:
    name = "HTTPS with Digest"
    not_registered, forbidden, too_large, malformed = "403", "403", "413", "400"
    registered, accepted, gone = "201", "200", "200"
    told = {"unknown A-KID": "A_KID_NOT_KNOWN", "wrong K_AF": "401"}

    def open(self, ue, a_kid=None, k_af=None):
        session = HttpsSession(ue)
        if a_kid or k_af is not None:
            key = base64.b64encode(k_af).decode() if k_af is not None else session.device.password
            status, problem = session.device.curl(session.device.path, body={"msgType": "DEREG", "ueSvcId": ue.service_id},
                                                  user=f"{a_kid or ue.a_kid}:{key}")
            assert status in (401, 403), (status, problem)
            raise Refused(f"{status} {problem}")
        return session


class HttpsSession:
    def __init__(self, ue):
        self.device = HttpsUe(ue)

    def request(self, payload):
        status, _, answer = self.device.ask("POST", self.device.path, payload)
        return str(status), answer

    def begin(self, payload):
        self.answers = queue.Queue()
        threading.Thread(target=lambda: self.answers.put(self.request(payload)), daemon=True).start()

    def is_answered(self):
        return not self.answers.empty()

    def answer(self):
        return self.answers.get(timeout=PATIENCE_SECONDS)

    def take(self):
        while not (polled := self.device.poll()):
            pass
        event, message = polled[0]
        return (event, message), message

    def acknowledge(self, taken):
        status, answer = self.device.acknowledge(*taken)
        assert status in (200, 204), (status, answer)

    def close(self):
        pass


WAYS = [
    Tls("TLS 1.3", Connection, "openssl tls1.3", 40, 51),
    Tls("TLS 1.2", Connection, "openssl tls1.2 ecdhe-psk", 115, 20),
    Tls("DTLS 1.2", Datagrams, "PSK-AES128-GCM-SHA256", 115, 51),
    Tls("WebSocket", WebSocket, "openssl tls1.3", 40, 51),
    Oscore("OSCORE over UDP", "coap"),
    Oscore("OSCORE over TCP", "coap+tcp"),
    Https(),
]


def message(ue, destination, payload, message_id, store=None):
    members = {"msgType": "MSG", "oriAddr": ue.address(), "destAddr": destination, "msgId": message_id,
               "payload": base64.b64encode(payload).decode()}
    if store:
        members |= {"stoAndFwInd": True, "stoAndFwParams": {"exprTime": store}}
    return json.dumps(members).encode()


def registration(name):
    return json.dumps({"msgType": "REG", "ueSvcId": name}).encode()


def expect(got, code, cause=None):
    found, answer = got
    assert found == code, f"wanted {code} {cause}: {found} {answer}"
    if cause:
        assert cause in (answer or {}).values(), f"wanted {cause}: {answer}"


def refusals_over(way, alice, bob, before, without_akma):
    stranger = f"0.{'ab' * 32}@5gc.{alice.network.domain}"
    # The AAnF has no key of the latter two either: each has the right one of its own authentication.
    for attempt, told, ue, how in (
            ("unknown A-KID", "unknown A-KID", alice, {"a_kid": stranger}),
            ("wrong K_AF", "wrong K_AF", alice, {"k_af": bytes(32)}),
            ("older A-KID", "unknown A-KID", before, {"a_kid": before.a_kid}),
            ("subscription without AKMA", "unknown A-KID", without_akma, {"a_kid": without_akma.a_kid})):
        try:
            way.open(ue, **how).close()
            raise AssertionError(f"{attempt}: let in")
        except Refused as refused:
            assert way.told[told] in str(refused), f"{attempt}: wanted {way.told[told]!r}: {refused}"
    session = way.open(alice)
    to = bob.address()
    expect(session.request(message(alice, to, b"too early", str(uuid.uuid4()))), way.not_registered, "NOT_REGISTERED")
    expect(session.request(registration(bob.service_id)), way.forbidden, "NOT_ASSOCIATED")
    expect(session.request(registration(alice.service_id)), way.registered)
    expect(session.request(message(bob, to, b"not mine", str(uuid.uuid4()))), way.forbidden, "ORIGINATOR_NOT_ALLOWED")
    expect(session.request(message(alice, to, bytes(2049), str(uuid.uuid4()))), way.too_large, "PAYLOAD_TOO_LARGE")
    for broken in (b"{", b"[]", b'{"msgType":"MSG"}', b'{"msgType":7}'):
        expect(session.request(broken), way.malformed, "MALFORMED")
    # It goes on.
    expect(session.request(json.dumps({"msgType": "DEREG", "ueSvcId": alice.service_id}).encode()), way.gone)
    session.close()
    print(f"refused: {way.name}", flush=True)


def acceptance_over(way, alice, bob):
    """Success is said once the recipient has acknowledged, and not before."""
    sender, recipient = way.open(alice), way.open(bob)
    for session, ue in ((sender, alice), (recipient, bob)):
        expect(session.request(registration(ue.service_id)), way.registered)
    message_id = str(uuid.uuid4())
    sender.begin(message(alice, bob.address(), b"are you there?", message_id))
    taken, came = recipient.take()
    assert came["msgId"] == message_id and base64.b64decode(came["payload"]) == b"are you there?", came
    assert not sender.is_answered(), "promised before the recipient had it"
    recipient.acknowledge(taken)
    code, answer = sender.answer()
    assert code == way.accepted and "status" not in answer, (code, answer)
    for session, ue in ((recipient, bob), (sender, alice)):
        expect(session.request(json.dumps({"msgType": "DEREG", "ueSvcId": ue.service_id}).encode()), way.gone)
        session.close()
    print(f"promised: {way.name}", flush=True)


def stored_over(way, alice, bob):
    """The recipient is away, and what is for it waits on disk. Returns its Message ID."""
    sender, waiting = way.open(alice), str(uuid.uuid4())
    expect(sender.request(registration(alice.service_id)), way.registered)
    code, answer = sender.request(message(alice, bob.address(), b"keep me", waiting, FOREVER))
    assert code == way.accepted and answer["status"] == "DELY_STORED", (code, answer)
    sender.close()
    print(f"stored: {way.name}", flush=True)
    return waiting


def collected_over(way, bob, waiting, collected):
    """The oldest that waits comes first; what was acknowledged a moment before the end may come once more."""
    session = way.open(bob)
    expect(session.request(registration(bob.service_id)), way.registered)
    while True:
        taken, came = session.take()
        session.acknowledge(taken)
        if came["msgId"] not in collected:
            break
    assert came["msgId"] == waiting and base64.b64decode(came["payload"]) == b"keep me", (came, waiting)
    collected.add(waiting)
    session.close()
    print(f"kept: {way.name}", flush=True)


def main(lab_json, what, state=None):
    network = Network(lab_json)
    alice, bob = (Ue(network, s).authenticate() for s in subscribers(network, 2))
    if what == "refusals":
        before = copy.copy(alice)
        alice.authenticate()
        assert before.a_kid != alice.a_kid and before.k_akma != alice.k_akma
        [without_akma, *_] = [Ue(network, s).authenticate() for s in network.lab["subscribers"] if not s.get("akma_allowed", True)]
        for way in WAYS:
            refusals_over(way, alice, bob, before, without_akma)
    elif what == "store":
        for way in WAYS:
            acceptance_over(way, alice, bob)
        # Known, and away: over TCP the server sees that it has gone.
        known = Connection(bob, "openssl tls1.3")
        assert known.register()[0] == "2.01"
        known.close()
        pathlib.Path(state).write_text(json.dumps([stored_over(way, alice, bob) for way in WAYS]))
    else:
        collected = set()
        for way, waiting in zip(WAYS, json.loads(pathlib.Path(state).read_text()), strict=True):
            collected_over(way, bob, waiting, collected)
    print("all held", flush=True)
    # aiocoap writes its contexts once more when it is torn down, into folders that are gone.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
