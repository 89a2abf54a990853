"""Registers, sends, receives and reports over every TLS client that speaks the profile."""

import base64
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from ue import CLIENTS, Connection, Network, Ue, subscribers


def main(lab_json):
    network = Network(lab_json)
    alice, bob = (Ue(network, s).authenticate() for s in subscribers(network, 2))
    print(f"authenticated: {alice.a_kid} and {bob.a_kid}")
    for client in CLIENTS:
        sender, receiver = Connection(alice, client), Connection(bob, "openssl tls1.3")
        for connection in (sender, receiver):
            code, answer = connection.register()
            assert code == "2.01", (client, code, answer)
        message_id, payload = str(uuid.uuid4()), f"hello over {client}\0\xff".encode()
        code, answer = deliver(sender, receiver, bob, message_id, payload)
        assert code == "2.04" and "status" not in answer and answer["msgId"] == message_id, (client, code, answer)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(receiver.request, msgType="IMDN", oriAddr=bob.address(), destAddr=alice.address(),
                                  msgId=message_id, delivSt="REPT_DELY_SUCCESS")
            report = sender.receive()
            code, answer = pending.result()
        assert code == "2.04", (client, code, answer)
        assert report["msgType"] == "IMDN" and report["msgId"] == message_id, report
        assert report["delivSt"] == "REPT_DELY_SUCCESS", report
        for connection in (sender, receiver):
            code, answer = connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)
            assert code == "2.02", (client, code, answer)
            connection.close()
        print(f"served: {client}")
    print("all held")


def deliver(sender, receiver, bob, message_id, payload):
    """Sends in one thread while the other end takes and checks the message in this one."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(sender.send, bob.address(), payload, message_id=message_id, report=True)
        message = receiver.receive()
        assert message["msgType"] == "MSG" and message["msgId"] == message_id, message
        assert message["oriAddr"] == sender.ue.address() and message["delivStReqInd"] is True, message
        assert base64.b64decode(message["payload"]) == payload, message
        return answer.result()


if __name__ == "__main__":
    main(sys.argv[1])
