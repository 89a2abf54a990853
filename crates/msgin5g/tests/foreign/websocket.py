"""CoAP over WebSocket (RFC 8323 clause 4) by wsproto, through a TLS client of the command line.

    websocket.py LAB_JSON                 what is served, and what is refused
    websocket.py LAB_JSON before FILE     a UE leaves messages behind that are not delivered; the server is then killed
    websocket.py LAB_JSON after FILE      they come to it when it returns

Frames that no library would send are made by hand.
"""

import base64
import json
import pathlib
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import wsproto
from service import deliver
from ue import Connection, ConnectionEnded, Network, Ue, frame, option, subscribers
from wsproto.connection import ConnectionType
from wsproto.events import (AcceptConnection, BytesMessage, CloseConnection, Message, Ping, Pong, RejectConnection,
                            RejectData, Request, TextMessage)
from wsproto.extensions import PerMessageDeflate

TLS_1_3, TLS_1_2, GNUTLS = "openssl tls1.3", "openssl tls1.2 ecdhe-psk", "gnutls tls1.3"
WELL_KNOWN = "/.well-known/coap"
CASES = []


class WebSocket(Connection):
    """MSGin5G-1 over WebSocket: each CoAP message is alone in a binary message, and its length is 0."""

    endpoint, tls = "coaps_ws", ("-alpn", "http/1.1")

    def _open(self, server):
        self.closed, self.pongs, self.fragments = None, 0, 1
        self.protocol = wsproto.WSConnection(ConnectionType.CLIENT)
        # The library checks the key, the subprotocol and that no extension is granted that it did not offer.
        self._send(Request(host=server["fqdn"], target=WELL_KNOWN, subprotocols=["coap"], extensions=[PerMessageDeflate()]))
        accepted = next(self._events())
        assert isinstance(accepted, AcceptConnection), accepted
        assert accepted.subprotocol == "coap" and not accepted.extensions, accepted

    def _send(self, event):
        super()._write(self.protocol.send(event))

    def _events(self):
        while True:
            for event in self.protocol.events():
                yield event
            data = self.process.stdout.read(4096)
            if not data:
                raise ConnectionEnded(self.log())
            self.protocol.receive_data(data)

    def _messages(self):
        message = b""
        for event in self._events():
            if isinstance(event, BytesMessage):
                message += event.data
                if event.message_finished:
                    assert message[0] >> 4 == 0, "a CoAP message over WebSocket has no length"
                    token_length = message[0] & 15
                    yield message[1], message[2:2 + token_length], message[2 + token_length:]
                    message = b""
            elif isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, Pong):
                self.pongs += 1
            elif isinstance(event, CloseConnection):
                self.closed = event.code
                if self.protocol.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                    self._send(event.response())
            else:
                raise AssertionError(f"the server sent {event}")

    def _write(self, data):
        """A message as over TCP, without its length, in as many frames as are wanted."""
        extra = {13: 1, 14: 2, 15: 4}.get(data[0] >> 4, 0)
        message = bytes([data[0] & 15]) + data[1 + extra:]
        size = -(-len(message) // self.fragments)
        parts = [message[at:at + size] for at in range(0, len(message), size)]
        for number, part in enumerate(parts, 1):
            self._send(Message(data=part, message_finished=number == len(parts)))

    def raw(self, first, payload, masked=True, length=None):
        """One frame by hand."""
        length = len(payload) if length is None else length
        head = bytes([first, (0x80 if masked else 0) | (127 if length > 65535 else 126 if length > 125 else length)])
        if length > 125:
            head += length.to_bytes(8 if length > 65535 else 2, "big")
        mask = b"\x37\xfa\x21\x3d" if masked else b""
        body = bytes(o ^ mask[i % 4] for i, o in enumerate(payload)) if masked else payload
        Connection._write(self, head + mask + body)

    def closes_with(self):
        """Waits until the server ends the connection. The code of its Close, and what its Abort says."""
        diagnostic = self.end()
        return self.closed, diagnostic


class Http(WebSocket):
    """The same port and TLS, and an HTTP request by hand. `answer` is all that the server says."""

    def __init__(self, ue, request, **how):
        self.text, self.answer = request, b""
        try:
            super().__init__(ue, TLS_1_3, **how)
        except ConnectionEnded:
            pass

    def _open(self, server):
        Connection._write(self, self.text.format(host=server["fqdn"]).encode("latin1"))
        while data := self.process.stdout.read(4096):
            self.answer += data
        self.close()
        raise ConnectionEnded

    @property
    def status(self):
        return int(self.answer.split(b" ", 2)[1]) if self.answer else None


REQUEST = ("GET /.well-known/coap HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: coap\r\n\r\n")


def case(function):
    CASES.append(function)
    return function


class Scene:
    def __init__(self, lab_json):
        self.network = Network(lab_json)
        self.alice, self.bob = (Ue(self.network, s).authenticate() for s in subscribers(self.network, 2))

    def registered(self, ue, client=TLS_1_3, kind=WebSocket):
        connection = kind(ue, client)
        code, answer = connection.register()
        assert code == "2.01", (code, answer)
        return connection

    def still_serves(self):
        self.registered(self.bob).close()


# --- what is served ---------------------------------------------------------------------------------------


@case
def ues_register_send_receive_and_report_over_it_and_between_it_and_tcp(scene):
    for client, other in ((TLS_1_3, WebSocket), (TLS_1_2, WebSocket), (GNUTLS, WebSocket), (TLS_1_3, Connection)):
        sender, receiver = scene.registered(scene.alice, client), scene.registered(scene.bob, TLS_1_3, other)
        message_id = str(uuid.uuid4())
        code, answer = deliver(sender, receiver, scene.bob, message_id, b"hello over websocket\0\xff")
        assert code == "2.04" and "status" not in answer and answer["msgId"] == message_id, (client, code, answer)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(receiver.request, msgType="IMDN", oriAddr=scene.bob.address(),
                                  destAddr=scene.alice.address(), msgId=message_id, delivSt="REPT_DELY_SUCCESS")
            report = sender.receive()
            assert pending.result()[0] == "2.04"
        assert report["msgType"] == "IMDN" and report["msgId"] == message_id, report
        for connection in (sender, receiver):
            assert connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)[0] == "2.02"
            connection.close()


@case
def messages_may_come_in_fragments_and_pings_between_them(scene):
    sender, receiver = scene.registered(scene.alice), scene.registered(scene.bob)
    sender.fragments = 7
    code, _ = deliver(sender, receiver, scene.bob, str(uuid.uuid4()), b"f" * 2000)
    assert code == "2.04", code
    sender.fragments = 1
    message = b"\x01\x02t" + option(11, b"msgin5g", 11) + option(12, bytes([50]), 1) + b"\xff{{}}"
    sender.raw(0x02, message[:5])
    sender.raw(0x89, b"still there?")
    sender.raw(0x00, b"")
    sender.raw(0x80, message[5:])
    code, token, _ = sender._next(sender.responses)
    assert (code, token) == (0x80, b"t"), "4.00 to what is no JSON"
    assert sender.pongs == 1
    for connection in (sender, receiver):
        connection.close()


@case
def a_close_of_the_client_is_answered(scene):
    connection = scene.registered(scene.alice)
    connection._send(CloseConnection(code=1000))
    assert connection.closes_with() == (1000, None)
    connection.close()


# --- what is refused before there is a WebSocket ----------------------------------------------------------


@case
def a_request_that_asks_for_anything_else_is_told_what_to_ask_for(scene):
    for change, status, says in (
            (("/.well-known/coap", "/"), 404, "/.well-known/coap"),
            (("/.well-known/coap", "/msgin5g"), 404, "/.well-known/coap"),
            (("GET", "POST"), 405, "GET"),
            (("Sec-WebSocket-Protocol: coap\r\n", ""), 400, "Sec-WebSocket-Protocol: coap"),
            (("Protocol: coap", "Protocol: mqtt"), 400, "Sec-WebSocket-Protocol: coap"),
            (("Upgrade: websocket\r\n", ""), 426, "Upgrade: websocket"),
            (("Version: 13", "Version: 8"), 426, "13"),
            (("dGhlIHNhbXBsZSBub25jZQ==", "bm8="), 400, "Sec-WebSocket-Key"),
            (("Host: {host}\r\n", ""), 400, "Host"),
            (("HTTP/1.1", "HTTP/1.0"), 505, "1.1"),
            (("Upgrade: websocket", f"X: {'x' * 8000}\r\nUpgrade: websocket"), 431, "too long"),
            (("GET", "PRI * HTTP/2.0\r\n\r\nSM"), 400, "HTTP/1.1")):
        refused = Http(scene.alice, REQUEST.replace(*change))
        head, _, text = refused.answer.partition(b"\r\n\r\n")
        assert refused.status == status and says in text.decode(), (change, refused.answer)
        assert b"close" in head.lower() and (status != 426 or b"sec-websocket-version: 13" in head.lower()), head
        assert b"101" not in head.split(b"\r\n")[0]
    scene.still_serves()


@case
def frames_before_the_answer_are_refused(scene):
    early = Http(scene.alice, REQUEST + "\x82\x80\x00\x00\x00\x00")
    assert early.status == 400 and b"between its request and the answer" in early.answer, early.answer


@case
def the_library_hears_of_a_missing_subprotocol_as_it_should(scene):
    class Without(WebSocket):
        def _open(self, server):
            self.protocol = wsproto.WSConnection(ConnectionType.CLIENT)
            self._send(Request(host=server["fqdn"], target=WELL_KNOWN))
            events = self._events()
            rejected, data = next(events), next(events)
            assert isinstance(rejected, RejectConnection) and rejected.status_code == 400, rejected
            assert isinstance(data, RejectData) and b"coap" in data.data, data
            self.close()
            raise ConnectionEnded

    try:
        Without(scene.alice, TLS_1_3)
    except ConnectionEnded:
        return
    raise AssertionError("it was served")


@case
def a_request_that_does_not_end_is_answered_408(scene):
    slow = Http(scene.alice, REQUEST[:-2])
    assert slow.status == 408, slow.answer


@case
def another_protocol_by_alpn_is_refused_in_tls_and_none_is_taken(scene):
    class Alpn(WebSocket):
        tls = ("-alpn", "h2")

    try:
        Alpn(scene.alice, TLS_1_3)
        raise AssertionError("h2 was taken")
    except ConnectionEnded as ended:
        assert "alert number 120" in str(ended), ended
    Alpn.tls = ()
    Alpn(scene.alice, TLS_1_3).close()


@case
def a_ue_is_proven_by_k_af_as_over_tcp(scene):
    for how, alert in (({"k_af": bytes(32)}, 51), ({"a_kid": f"0.{'ab' * 32}@5gc.{scene.network.domain}"}, 40),
                       ({"server_name": "elsewhere.example"}, 112)):
        try:
            WebSocket(scene.alice, TLS_1_3, **how)
        except ConnectionEnded as ended:
            assert f"alert number {alert}" in str(ended), (how, ended)
            continue
        raise AssertionError(f"{how} was accepted")
    connection = WebSocket(scene.alice, TLS_1_3)
    code, answer = connection.register(scene.bob.service_id)
    assert (code, answer["failureCause"]) == ("4.03", "NOT_ASSOCIATED"), (code, answer)
    connection.close()


@case
def coap_over_tcp_is_not_spoken_here_nor_websocket_there(scene):
    class Stream(Connection):
        endpoint = "coaps_ws"

    try:
        Stream(scene.alice, TLS_1_3)
        raise AssertionError("CoAP over TCP was served on the port of WebSocket")
    except (ConnectionEnded, AssertionError) as ended:
        assert "served" not in str(ended), ended

    class Elsewhere(Http):
        endpoint, tls = "coaps_tcp", ()

    assert b"101" not in Elsewhere(scene.alice, REQUEST).answer
    scene.still_serves()


# --- what ends a WebSocket --------------------------------------------------------------------------------


@case
def frames_that_may_not_be_end_the_connection_with_their_code(scene):
    for what, code, says in (
            (lambda c: c.raw(0x81, b"{}"), 1003, "text"),
            (lambda c: c._send(TextMessage(data="hello")), 1003, "text"),
            (lambda c: c.raw(0x82, b"\0\xe2", masked=False), 1002, "unmasked"),
            (lambda c: c.raw(0x82, b"", length=67_000), 1009, "larger"),
            (lambda c: c.raw(0x82, b"", length=2**63 - 1), 1009, "larger"),
            (lambda c: [c.raw(0x02, bytes(40_000)), c.raw(0x80, bytes(40_000))], 1009, "larger"),
            (lambda c: [c.raw(0x02, b"")] + [c.raw(0x00, b"") for _ in range(100)], 1008, "fragments"),
            (lambda c: c.raw(0xC2, b"\0\xe2"), 1002, "extension"),
            (lambda c: c.raw(0x83, b""), 1002, "malformed"),
            (lambda c: c.raw(0x80, b"x"), 1002, "malformed"),
            (lambda c: c.raw(0x09, b""), 1002, "fragments"),
            (lambda c: c.raw(0x89, bytes(126)), 1002, "125"),
            # And what WebSocket allows, but not CoAP over it (RFC 8323 4.2).
            (lambda c: c.raw(0x82, b"\x10\xe2\0"), 1002, "length"),
            (lambda c: c.raw(0x82, b""), 1002, "header")):
        connection = scene.registered(scene.alice)
        what(connection)
        closed, diagnostic = connection.closes_with()
        assert closed == code and diagnostic and says in diagnostic, (closed, code, diagnostic, says)
        connection.close()
    scene.still_serves()


# --- over a kill ------------------------------------------------------------------------------------------


def before(lab_json, file):
    scene = Scene(lab_json)
    receiver = scene.registered(scene.bob)
    sender = scene.registered(scene.alice)
    pending = str(uuid.uuid4())
    sender.post(sender.message(scene.bob.address(), b"taken, not acknowledged", message_id=pending,
                               store="2030-01-01T00:00:00Z"))
    _, message = receiver.take()
    assert message["msgId"] == pending, message
    receiver.close()
    _, code, answer = sender.answer()
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    stored = str(uuid.uuid4())
    code, answer = sender.send(scene.bob.address(), b"for later", message_id=stored, store="2030-01-01T00:00:00Z")
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    pathlib.Path(file).write_text(json.dumps([pending, stored]))
    # The connection stands when the server is killed.
    sender.process.stdin.flush()


def after(lab_json, file):
    scene = Scene(lab_json)
    receiver = scene.registered(scene.bob)
    got = [receiver.receive() for _ in range(2)]
    assert [message["msgId"] for message in got] == json.loads(pathlib.Path(file).read_text()), got
    assert base64.b64decode(got[1]["payload"]) == b"for later"
    # What is answered behind the acknowledgements says that they have arrived.
    assert receiver.register()[0] == "2.01"
    receiver.close()
    again = scene.registered(scene.bob)
    code, _ = deliver(again, again, scene.bob, str(uuid.uuid4()), b"nothing came twice")
    assert code == "2.04" and again.requests.empty()
    again.close()


def main(lab_json, *arguments):
    if arguments and arguments[0] in ("before", "after"):
        {"before": before, "after": after}[arguments[0]](lab_json, arguments[1])
        print("all held")
        return
    scene, failures = Scene(lab_json), 0
    for function in CASES:
        if arguments and function.__name__ not in arguments:
            continue
        started = time.monotonic()
        try:
            function(scene)
            print(f"held: {function.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # every case is tried, all failures are told
            failures += 1
            print(f"FAILED: {function.__name__}: {type(error).__name__}: {error}", flush=True)
    if failures:
        sys.exit(f"{failures} cases failed")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
