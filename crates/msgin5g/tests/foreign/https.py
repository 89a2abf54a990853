"""curl as a UE over HTTPS: registers, sends, receives by long poll and by events, acknowledges; and who is refused."""

import base64
import json
import socket
import sys
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor

from https_ue import HttpsUe, parameters
from ue import Connection, Network, Ue, subscribers

PAYLOAD = b"hello over https\0\xff"


def main(lab_json):
    network = Network(lab_json)
    alice, bob = (Ue(network, s).authenticate() for s in subscribers(network, 2))
    device, mallory = HttpsUe(alice), HttpsUe(bob)
    for ue in (alice, bob):
        print(f"secret: {ue.k_af(bytes.fromhex('0100000002')).hex()}")
    print(f"secret: {device.password}\nsecret: {mallory.password}\nsecret: {base64.b64encode(PAYLOAD).decode()}")
    strangers(device, mallory)
    served(device, bob)
    forged(device, mallory)
    print("all held")


def served(device, bob):
    other = Connection(bob, "openssl tls1.3")
    assert other.register()[0] == "2.01"
    for http in ("--http1.1", "--http2"):
        status, answer = device.curl(device.path, http, body=device.register())
        assert status == 201 and answer == {"ueSvcId": device.ue.service_id}, (http, status, answer)
        sends(device, other, bob, http)
    status, answer = device.post(**device.register())
    assert status == 201, ("auth-int by hand", status, answer)
    receives(device, other, device.poll)
    events = device.events()
    receives(device, other, lambda: [events.next()])
    refuses(device, other, events)
    status, answer = device.curl_post(msgType="DEREG", ueSvcId=device.ue.service_id)
    assert status == 200, (status, answer)
    assert events.next() is None, "the stream ends with the registration"
    status, answer = device.curl(device.path, body=device.message(bob.address(), b"x", str(uuid.uuid4())))
    assert status == 403 and answer["failureCause"] == "NOT_REGISTERED", (status, answer)
    events.close()
    other.close()
    print("served over HTTP/1.1 and HTTP/2, by long poll and by events")


def sends(device, other, bob, http):
    message_id = str(uuid.uuid4())
    with ThreadPoolExecutor(1) as pool:
        body = device.message(bob.address(), PAYLOAD, message_id)
        pending = pool.submit(device.curl, device.path, http, body=body)
        message = other.receive()
        status, answer = pending.result()
    assert message["msgId"] == message_id and base64.b64decode(message["payload"]) == PAYLOAD, message
    assert message["oriAddr"] == device.ue.address(), message
    assert status == 200 and answer["msgType"] == "MSGRESP" and "status" not in answer, (status, answer)


def receives(device, other, next_events):
    message_id = str(uuid.uuid4())
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(other.send, device.ue.address(), PAYLOAD, message_id=message_id)
        [(event, message)] = next_events()
        assert message["msgId"] == message_id and base64.b64decode(message["payload"]) == PAYLOAD, message
        assert not pending.done(), "nothing was acknowledged"
        status, answer = device.acknowledge(event, message)
        assert status == 204, (status, answer)
        code, answer = pending.result()
    assert code == "2.04" and "status" not in answer, (code, answer)
    status, answer = device.acknowledge(event, message)
    assert status == 404 and answer["cause"] == "EVENT_NOT_WAITED_FOR", (status, answer)


def refuses(device, other, events):
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(other.send, device.ue.address(), PAYLOAD)
        event, message = events.next()
        status, answer = device.acknowledge(event, message, status="DELY_FAILED", failureCause="PAYLOAD_TOO_LARGE")
        assert status == 204, (status, answer)
        code, answer = pending.result()
    assert code == "2.04" and answer["failureCause"] == "TARGET_REFUSED", (code, answer)


def strangers(device, mallory):
    reg = json.dumps(device.register()).encode()

    def challenged(outcome, cause, stale=False):
        status, headers, problem = outcome
        assert status == 401 and problem["cause"] == cause, (status, problem)
        assert headers["content-type"] == "application/problem+json", headers["content-type"]
        assert ("stale" in parameters(headers["www-authenticate"])) == stale, headers["www-authenticate"]

    post = lambda **how: device.ask("POST", device.path, reg, **how)
    challenged(device.exchange("POST", device.path, reg), "NOT_AUTHENTICATED")
    basic = base64.b64encode(f"{device.ue.a_kid}:{device.password}".encode()).decode()
    challenged(device.exchange("POST", device.path, reg, {"authorization": f"Basic {basic}"}), "NOT_AUTHENTICATED")
    challenged(post(algorithm="MD5"), "NOT_AUTHENTICATED")
    challenged(post(password=mallory.password), "NOT_AUTHENTICATED")
    challenged(post(password=base64.b64encode(device.ue.k_af(bytes.fromhex("0100000007"))).decode()), "NOT_AUTHENTICATED")
    challenged(post(realm=device.fqdn), "NOT_AUTHENTICATED")
    challenged(post(sent=reg.replace(b"REG", b"MSG")), "NOT_AUTHENTICATED")
    challenged(post(nonce="AAAA"), "NONCE_NOT_GOOD", stale=True)
    status, _, problem = post(headers={"content-type": "text/plain"})
    assert status == 415 and problem["cause"] == "CONTENT_FORMAT_NOT_SUPPORTED", (status, problem)

    nonce = device.challenge()["nonce"]
    assert post(nonce=nonce, count=7)[0] == 201
    challenged(post(nonce=nonce, count=7), "NONCE_NOT_GOOD", stale=True)
    challenged(post(nonce=nonce, count=6), "NONCE_NOT_GOOD", stale=True)
    assert post(nonce=nonce, count=8)[0] == 201

    unknown = device.ue.a_kid.replace(device.ue.a_kid.split(".")[1].split("@")[0], "00" * 32)
    status, headers, problem = post(a_kid=unknown)
    assert status == 403 and problem["cause"] == "A_KID_NOT_KNOWN", (status, problem)
    assert headers["www-authenticate"] is None, "without the realm, as B.1.2 has it"
    status, _, _ = device.exchange("GET", f"{device.path}/events",
                                   headers={"authorization": "Digest username=\"a\", username=\"b\""})
    assert status == 400, status
    status, _ = device.curl(device.path, user=f"{device.ue.a_kid}:wrong", body=device.register())
    assert status == 401, status

    parts = urllib.parse.urlsplit(device.root)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
        plain.sendall(b"GET /msgin5g/events HTTP/1.1\r\nhost: server\r\n\r\n")
        answer = b""
        try:
            while more := plain.recv(4096):
                answer += more
        except ConnectionResetError:
            pass
    assert b"HTTP/" not in answer, answer
    print("strangers were refused")


def forged(device, mallory):
    status, answer = mallory.curl_post(**device.register())
    assert status == 403 and answer["failureCause"] == "NOT_ASSOCIATED", (status, answer)
    assert mallory.curl_post(**mallory.register())[0] == 201
    body = device.message(mallory.ue.address(), b"forged", str(uuid.uuid4()))
    status, answer = mallory.curl(mallory.path, body=body)
    assert status == 403 and answer["failureCause"] == "ORIGINATOR_NOT_ALLOWED", (status, answer)
    print("nobody was somebody else")


if __name__ == "__main__":
    main(sys.argv[1])
