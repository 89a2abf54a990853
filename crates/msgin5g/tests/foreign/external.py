"""An application server outside the operator's domain: httpx and hypercorn, and what it says to a UE and hears from it."""

import base64
import uuid
from concurrent.futures import ThreadPoolExecutor

from inbox import Inbox
from peer import Peer

REGISTRATIONS = "/msgs-asregistration/v1/registrations"
MESSAGE, REPORT = "/msgs-msgdelivery/v1/deliver-as-message", "/msgs-msgdelivery/v1/deliver-report"


class External(Peer):
    """One of `external_application_servers` of lab.json, with its certificate, and tokens of the NEF."""

    def __init__(self, lab, number=0):
        self.description = lab.lab["external_application_servers"][number]
        super().__init__(lab, lab.path(self.description["cert"]), lab.path(self.description["key"]))
        self.root, self.service_id = lab.core["nef"], self.description["as_service_id"]
        self.bearer = None

    def ask_token(self, scope=None, **form):
        """The answer of the token endpoint (RFC 6749 clause 4.4, RFC 8705 clause 2.1)."""
        form = {"grant_type": "client_credentials", "client_id": self.description["client_id"]} | form
        return self.http.post(f"{self.root}/oauth2/token", data=form | ({"scope": scope} if scope else {}))

    def granted(self, scope=None):
        answer = self.ask_token(scope)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store", (answer.status_code, answer.text)
        granted = answer.json()
        assert granted["token_type"] == "Bearer" and granted["expires_in"] > 0, granted
        return granted["access_token"]

    def ask(self, method, path, body=None):
        """A request of an API with a token for it."""
        self.bearer = self.bearer or self.granted()
        return self.request(method, f"{self.root}{path}", body, token=self.bearer)

    def address(self):
        return {"addrType": "AS", "addr": self.service_id}


def converse(external, ask, host, device, ue):
    """Registers by `ask`, reached at `host`; sends and receives with the reports that belong to it; and leaves."""
    inbox, me = Inbox(external.lab, external), external.address()
    target = inbox.url.replace("127.0.0.1", host) + "/inbox"
    made = ask("POST", REGISTRATIONS, {"asSvcId": external.service_id, "targetUri": target})
    assert made.status_code == 201, (made.status_code, made.text)

    # From the device, and a report to it.
    code, answer = device.send(me, b"19 C, rain", report=True)
    assert code == "2.04" and "status" not in answer, (code, answer)
    message = inbox.next("/inbox/deliver-message")
    assert message["oriAddr"] == ue.address() and base64.b64decode(message["payload"]) == b"19 C, rain", message
    report = {"oriAddr": me, "destAddr": ue.address(), "msgId": message["msgId"], "delivSt": "REPT_DELY_SUCCESS"}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(ask, "POST", REPORT, report)
        told = device.receive()
        answer = pending.result()
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert told["msgType"] == "IMDN" and told["msgId"] == message["msgId"], told

    # To the device, and a report from it.
    sent = message_to(ue, me, b"storm: close the valve") | {"delivStReqInd": True}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(ask, "POST", MESSAGE, sent)
        message = device.receive()
        answer = pending.result()
    assert base64.b64decode(message["payload"]) == b"storm: close the valve" and message["oriAddr"] == me, message
    assert answer.status_code == 200 and answer.json()["msgId"] == sent["msgId"] and "status" not in answer.json(), answer.text
    code, told = device.request(msgType="IMDN", oriAddr=ue.address(), destAddr=me, msgId=sent["msgId"], delivSt="REPT_DELY_SUCCESS")
    assert code == "2.04", (code, told)
    told = inbox.next("/inbox/deliver-report")
    assert told["msgId"] == sent["msgId"] and told["delivSt"] == "REPT_DELY_SUCCESS", told

    left = ask("DELETE", made.headers["location"])
    assert left.status_code == 204, (left.status_code, left.text)
    code, answer = device.send(me, b"is anybody there")
    assert code == "4.04", (code, answer)


def message_to(ue, originator, payload):
    return {"oriAddr": originator, "destAddr": ue.address(), "msgId": str(uuid.uuid4()), "stoAndFwInd": False,
            "payload": base64.b64encode(payload).decode()}
