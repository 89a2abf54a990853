"""An application server made of curl and nghttpd: registers, is reached by a UE, reaches a UE, reports, leaves."""

import base64
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from ue import Connection, Network, Ue, subscribers


class ApplicationServer:
    def __init__(self, network, number):
        self.network, self.identity = network, network.lab["application_servers"][number]
        self.service_id, self.api = self.identity["as_service_id"], network.lab["server"]["api"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # Takes whatever is posted to it, and answers 200 with the same body.
        self.process = subprocess.Popen(
            ["nghttpd", "--echo-upload", "--verbose", "--address=127.0.0.1", "--verify-client",
             str(self.port), network.directory / self.identity["key"],
             network.directory / self.identity["cert"]],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)

    def address(self):
        return {"addrType": "AS", "addr": self.service_id}

    def post(self, path, **body):
        return self.network.http("POST", f"{self.api}{path}", body, self.identity)

    def register(self, service_id=None):
        return self.post("/msgs-asregistration/v1/registrations", asSvcId=service_id or self.service_id,
                         targetUri=f"https://127.0.0.1:{self.port}/inbox")

    def send(self, destination, payload, *, originator=None, message_id=None, report=False):
        return self.post("/msgs-msgdelivery/v1/deliver-as-message", oriAddr=originator or self.address(),
                         destAddr=destination, msgId=message_id or str(uuid.uuid4()), stoAndFwInd=False,
                         delivStReqInd=report, payload=base64.b64encode(payload).decode())

    def received(self):
        self.process.kill()
        return self.process.communicate()[0]


def main(lab_json):
    network = Network(lab_json)
    ue = Ue(network, subscribers(network, 1)[0]).authenticate()
    device = Connection(ue, "openssl tls1.3")
    assert device.register()[0] == "2.01"
    billing, fleet = ApplicationServer(network, 0), ApplicationServer(network, 1)

    code, answer = device.send(billing.address(), b"nobody is there yet")
    assert code == "4.04" and answer["failureCause"] == "UNKNOWN_TARGET", (code, answer)
    status, problem = billing.register(fleet.service_id)
    assert status == 403 and problem["status"] == 403 and "cause" in problem, (status, problem)
    status, acknowledgement = billing.register()
    assert status == 201 and acknowledgement["asSvcId"] == billing.service_id, (status, acknowledgement)

    code, answer = device.send(billing.address(), b"21.5 kWh", report=True)
    assert code == "2.04" and "status" not in answer, (code, answer)

    message_id = str(uuid.uuid4())
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(billing.send, ue.address(), b"close the valve", message_id=message_id, report=True)
        message = device.receive()
        status, acknowledgement = pending.result()
    assert message["oriAddr"] == billing.address() and base64.b64decode(message["payload"]) == b"close the valve", message
    assert status == 200 and acknowledgement["msgId"] == message_id and "status" not in acknowledgement, acknowledgement
    code, answer = device.request(msgType="IMDN", oriAddr=ue.address(), destAddr=billing.address(), msgId=message_id,
                                  delivSt="REPT_DELY_SUCCESS")
    assert code == "2.04", (code, answer)

    status, problem = billing.send(ue.address(), b"in another's name", originator=fleet.address())
    assert status == 403 and problem["cause"] == "ORIGINATOR_NOT_ALLOWED", (status, problem)
    status, problem = fleet.send(ue.address(), b"never registered")
    assert status == 403, (status, problem)
    status, problem = billing.post("/msgs-msgdelivery/v1/deliver-as-message", oriAddr=billing.address())
    assert status == 400 and problem["cause"].startswith(("MANDATORY_IE", "INVALID_MSG_FORMAT")), (status, problem)
    stranger = {"cert": network.lab["nf_client"]["cert"], "key": network.lab["nf_client"]["key"]}
    status, problem = network.http("POST", f"{billing.api}/msgs-asregistration/v1/registrations",
                                   {"asSvcId": billing.service_id, "targetUri": "https://127.0.0.1:1/"}, stranger)
    assert status == 401 and problem["cause"] == "TOKEN_MISSING", (status, problem)

    device.close()
    fleet.process.kill()
    log = billing.received()
    assert log.count("/inbox/deliver-message") == 1 and log.count("/inbox/deliver-report") == 1, log
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
