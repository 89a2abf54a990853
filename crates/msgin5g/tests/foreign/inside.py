"""An application server inside the operator's domain, made of httpx and hypercorn: with its certificate; with an access
token of the NRF; and as a function that registers itself at the NRF and finds the MSGin5G Server there. It is reached by a
UE, reaches a UE, hears and sends reports, and leaves.

    inside.py LAB_JSON
"""

import base64
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from inbox import Inbox
from peer import Lab, refused
from ue import Connection, Network, Ue, subscribers

DELIVERY, REGISTRATION = "/msgs-msgdelivery/v1", "/msgs-asregistration/v1/registrations"


def exchange(lab, billing, root, device, ue, inbox, tokens):
    """Registers at `root`, and sends and receives with the reports that belong to it; returns the registration's path."""
    me = {"addrType": "AS", "addr": billing.service_id}
    made = billing.post(f"{root}{REGISTRATION}", {"asSvcId": billing.service_id, "targetUri": f"{inbox.url}/inbox"},
                        token=tokens("msgs-asregistration"))
    assert made.status_code == 201, (made.status_code, made.text)

    code, answer = device.send(me, b"21.5 kWh", report=True)
    assert code == "2.04" and "status" not in answer, (code, answer)
    message = inbox.next("/inbox/deliver-message")
    assert message["oriAddr"] == ue.address() and base64.b64decode(message["payload"]) == b"21.5 kWh", message
    report = {"oriAddr": me, "destAddr": ue.address(), "msgId": message["msgId"], "delivSt": "REPT_DELY_SUCCESS"}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(billing.post, f"{root}{DELIVERY}/deliver-report", report, token=tokens("msgs-msgdelivery"))
        told = device.receive()
        answer = pending.result()
    assert answer.status_code == 200 and told["msgType"] == "IMDN" and told["msgId"] == message["msgId"], (answer.text, told)

    sent = {"oriAddr": me, "destAddr": ue.address(), "msgId": str(uuid.uuid4()), "stoAndFwInd": False, "delivStReqInd": True,
            "payload": base64.b64encode(b"close the valve").decode()}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(billing.post, f"{root}{DELIVERY}/deliver-as-message", sent, token=tokens("msgs-msgdelivery"))
        message = device.receive()
        answer = pending.result()
    assert base64.b64decode(message["payload"]) == b"close the valve" and message["oriAddr"] == me, message
    assert answer.status_code == 200 and answer.json()["msgId"] == sent["msgId"] and "status" not in answer.json(), answer.text
    code, told = device.request(msgType="IMDN", oriAddr=ue.address(), destAddr=me, msgId=sent["msgId"], delivSt="REPT_DELY_SUCCESS")
    assert code == "2.04", (code, told)
    assert inbox.next("/inbox/deliver-report")["msgId"] == sent["msgId"]
    return made.headers["location"]


def registered_at_the_nrf(lab, billing):
    """Registers, gives a sign of life, and finds the server's API root."""
    mine = f"{lab.core['nrf']}/nnrf-nfm/v1/nf-instances/{billing.nf_instance_id}"
    profile = {"nfInstanceId": billing.nf_instance_id, "nfType": "AF", "nfStatus": "REGISTERED", "ipv4Addresses": ["127.0.0.1"]}
    made = billing.request("PUT", mine, profile)
    assert made.status_code == 201 and made.json()["heartBeatTimer"] > 0, (made.status_code, made.text)
    alive = billing.request("PATCH", mine, [{"op": "replace", "path": "/nfStatus", "value": "REGISTERED"}],
                            headers={"content-type": "application/json-patch+json"})
    assert alive.status_code == 204, (alive.status_code, alive.text)
    found = billing.get(f"{lab.core['nrf']}/nnrf-disc/v1/nf-instances", params={
        "target-nf-type": "AF", "requester-nf-type": "AF", "service-names": "msgs-msgdelivery"}).json()["nfInstances"]
    (service,) = [service for one in found for service in one["nfServices"] if service["serviceName"] == "msgs-msgdelivery"]
    assert service["oauth2Required"] is True, service
    at = service["ipEndPoints"][0]
    return mine, f"{service['scheme']}://{at['ipv4Address']}:{at['port']}"


def main(lab_json):
    lab, network = Lab(lab_json), Network(lab_json)
    ue = Ue(network, subscribers(network, 1)[0]).authenticate()
    device = Connection(ue, "openssl tls1.3")
    assert device.register()[0] == "2.01"
    billing = lab.application_server(0)
    inbox = Inbox(lab, billing)
    profile, found = registered_at_the_nrf(lab, billing)
    assert found == lab.api, found
    with_tokens = lambda scope: billing.token("AF", scope)
    for name, root, tokens in (("the certificate alone", lab.api, lambda scope: None),
                               ("a token of the NRF, and the server that it knows", found, with_tokens)):
        location = exchange(lab, billing, root, device, ue, inbox, tokens)
        left = billing.request("DELETE", f"{root}{location}", token=tokens("msgs-asregistration"))
        assert left.status_code == 204, left.text
        code, answer = device.send({"addrType": "AS", "addr": billing.service_id}, b"is anybody there")
        assert code == "4.04", (code, answer)
        print(f"held: {name}")
    assert billing.request("DELETE", profile).status_code == 204
    device.close()
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
