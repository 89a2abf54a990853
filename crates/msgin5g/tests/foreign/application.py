"""Applications on a device, of the standard library alone: CoAP over a Unix domain socket by hand (RFC 8323), JSON.

`msgin5g client serve` holds the first subscriber's SIM; these programs share it. The other end is a foreign UE.
"""

import base64
import json
import queue
import socket
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

from ue import Connection, ConnectionEnded, Network, Ue, frame, subscribers


class Application(Connection):
    """One connection to the socket: the same framing as on MSGin5G-1, without TLS."""

    def __init__(self, path, resource="msgin5g"):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(path)
        stream = peer.makefile("rwb", buffering=0)
        self.process = types.SimpleNamespace(stdin=stream, stdout=stream)
        self.path, self.peer = resource, peer
        self.incoming, self.responses, self.requests, self.token = queue.Queue(), queue.Queue(), queue.Queue(), 0
        self.options, self.finished = {}, threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        self._write(frame(0xE1, b"", b"\x23\x01\x00\x00", b""))  # 7.01 CSM, Max-Message-Size 65536
        code, _, _ = self._next(self.incoming)
        assert code == 0xE1, f"the client's first message is {code:#x}, not CSM"

    def log(self):
        return "the client ended the connection"

    def register(self, application_id, credential=None):
        members = {"msgType": "REG", "appId": application_id}
        return self.request(**members, **({"credential": credential} if credential else {}))

    def send(self, destination, payload, message_id, **members):
        return self.request(msgType="MSG", destAddr=destination, msgId=message_id,
                            payload=base64.b64encode(payload).decode(), **members)

    def close(self):
        self.peer.shutdown(socket.SHUT_RDWR)
        self.peer.close()


def answered(answer, code, cause=None):
    assert answer[0] == code and (cause is None or answer[1]["failureCause"] == cause), (answer, code, cause)
    return answer[1]


def main(lab_json, path, token):
    network = Network(lab_json)
    device, other = (Ue(network, subscriber) for subscriber in subscribers(network, 2))
    remote = Connection(other.authenticate(), "openssl tls1.3")
    assert remote.register()[0] == "2.01"

    metering = Application(path)
    registered = answered(metering.register("metering", token), "2.01")
    assert registered == {"appId": "metering", "ueSvcId": device.service_id}, registered
    alarm = Application(path)
    answered(alarm.register("alarm"), "2.01")
    print("two applications share one UE")

    # To the other UE, under the device's name, with a report that comes back under the application's own Message ID.
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(metering.send, other.address(), b"21.5 kWh", "reading-1", delivStReqInd=True)
        message = remote.receive()
        answer = answered(sending.result(), "2.04")
    assert answer["msgType"] == "MSGRESP" and answer["msgId"] == "reading-1" and "status" not in answer, answer
    assert message["oriAddr"] == device.address() and message["appId"] == "metering", message
    assert base64.b64decode(message["payload"]) == b"21.5 kWh" and message["msgId"].endswith(".reading-1"), message
    with ThreadPoolExecutor(1) as pool:
        reporting = pool.submit(remote.request, msgType="IMDN", oriAddr=other.address(), destAddr=device.address(),
                                msgId=message["msgId"], delivSt="REPT_DELY_SUCCESS")
        report = metering.receive()
        assert reporting.result()[0] == "2.04"
    assert (report["msgType"], report["msgId"]) == ("IMDN", "reading-1"), report
    assert alarm.requests.empty(), "the other application saw the report"
    print("sent, delivered, reported")

    # From the other UE, to the application it names and to no other; the client reports for the application.
    with ThreadPoolExecutor(1) as pool:
        members = {"msgType": "MSG", "oriAddr": other.address(), "destAddr": device.address(), "msgId": "set-1",
                   "appId": "alarm", "delivStReqInd": True, "payload": base64.b64encode(b"on").decode()}
        sending = pool.submit(remote.request, **members)
        message = alarm.receive()
        assert (message["msgId"], message["appId"], message["oriAddr"]) == ("set-1", "alarm", other.address()), message
        answered(sending.result(), "2.04")
    report = remote.receive()
    assert (report["msgType"], report["msgId"], report["delivSt"]) == ("IMDN", "set-1", "REPT_DELY_SUCCESS"), report
    assert metering.requests.empty(), "the other application saw the message"
    print("received by the one it is for")

    # What an application may not do.
    answered(metering.send(other.address(), b"x", "2", oriAddr=other.address()), "4.03", "ORIGINATOR_NOT_ALLOWED")
    answered(metering.send(other.address(), b"x", "2", appId="alarm"), "4.03", "APPLICATION_NOT_ALLOWED")
    answered(metering.send(other.address(), b"x", "2", priority="HIGH"), "4.03", "PRIORITY_NOT_ALLOWED")
    answered(alarm.send(other.address(), b"x", "2"), "4.03", "DESTINATION_NOT_ALLOWED")
    impostor = Application(path)
    answered(impostor.register("metering", "not the token at all"), "4.03", "APPLICATION_NOT_ALLOWED")
    answered(impostor.send(other.address(), b"x", "2"), "4.01", "NOT_REGISTERED")
    impostor.process.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
    try:
        while True:
            impostor._next(impostor.incoming)
    except ConnectionEnded:
        pass
    print("refused what they may not do")

    # An application that is away: the server keeps the message until it is back.
    alarm.close()
    answered(remote.request(msgType="MSG", oriAddr=other.address(), destAddr=device.address(), msgId="set-2", appId="alarm",
                            stoAndFwInd=True, payload=base64.b64encode(b"off").decode()), "2.04")
    alarm = Application(path)
    answered(alarm.register("alarm"), "2.01")
    message = alarm.receive()
    assert message["msgId"] == "set-2" and base64.b64decode(message["payload"]) == b"off", message
    print("kept while away")

    answered(alarm.request(msgType="DEREG", appId="alarm"), "2.02")
    answered(alarm.send(other.address(), b"x", "3"), "4.01", "NOT_REGISTERED")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
