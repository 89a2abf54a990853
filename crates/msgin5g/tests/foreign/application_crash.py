"""`msgin5g client serve` is killed while an application has a message that it has not answered, and again after it has.

What was not answered comes again; what was answered does not, and the report on the application's own message still
finds it.
"""

import base64
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from application import Application, answered
from ue import Connection, Network, Ue, subscribers

LATER = "2035-01-01T00:00:00Z"


def serve(command):
    process = subprocess.Popen(json.loads(command), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    ready = json.loads(process.stdout.readline())
    assert ready["ready"] == "client", ready
    return process


def kill(process):
    process.kill()
    process.wait()


def main(lab_json, path, command):
    network = Network(lab_json)
    device, other = (Ue(network, subscriber) for subscriber in subscribers(network, 2))
    remote = Connection(other.authenticate(), "openssl tls1.3")
    assert remote.register()[0] == "2.01"

    def send(message_id):
        members = {"msgType": "MSG", "oriAddr": other.address(), "destAddr": device.address(), "msgId": message_id,
                   "appId": "alarm", "stoAndFwInd": True, "stoAndFwParams": {"exprTime": LATER},
                   "payload": base64.b64encode(message_id.encode()).decode()}
        return remote.request(**members)

    process = serve(command)
    alarm = Application(path)
    answered(alarm.register("alarm"), "2.01")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(alarm.send, other.address(), b"on", "mine-1", delivStReqInd=True)
        sent = remote.receive()
        answered(sending.result(), "2.04")

        # The application has it, and the client dies before the answer.
        sending = pool.submit(send, "1")
        _, message = alarm.take()
        assert message["msgId"] == "1", message
        kill(process)
        answer = answered(sending.result(), "2.04")
        assert answer["status"] == "DELY_STORED", answer
    print("the client died with an unanswered message")

    process = serve(command)
    alarm = Application(path)
    answered(alarm.register("alarm"), "2.01")
    message = alarm.receive()
    assert message["msgId"] == "1" and base64.b64decode(message["payload"]) == b"1", message
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, "2")
        assert alarm.receive()["msgId"] == "2"
        answered(sending.result(), "2.04")
    kill(process)
    print("it came again, and the client died with everything answered")

    answered(send("3"), "2.04")
    process = serve(command)
    alarm = Application(path)
    answered(alarm.register("alarm"), "2.01")
    message = alarm.receive()
    assert message["msgId"] == "3", f"{message} was answered before"
    # Whose report it is, the Message ID says.
    with ThreadPoolExecutor(1) as pool:
        reporting = pool.submit(remote.request, msgType="IMDN", oriAddr=other.address(), destAddr=device.address(),
                                msgId=sent["msgId"], delivSt="REPT_DELY_SUCCESS")
        report = alarm.receive()
        assert reporting.result()[0] == "2.04"
    assert (report["msgType"], report["msgId"]) == ("IMDN", "mine-1"), report
    process.terminate()
    assert process.wait() == 0
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
