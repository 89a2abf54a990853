"""Every message model of the service, from devices and an application server that share no code with it."""

import base64
import json
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from application_server import ApplicationServer
from ue import Connection, Network, Ue, subscribers

GROUP = {"addrType": "GROUP", "addr": "models@lab.example"}
TOPIC = {"addrType": "TOPIC", "addr": "lab/models"}


def main(lab_json):
    network = Network(lab_json)
    alice, bob, carol = (connect(network, subscriber) for subscriber in subscribers(network, 3))
    segments_between_ues(alice, bob)
    billing = ApplicationServer(network, 0)
    try:
        status, problem = billing.register()
        assert status == 201, (status, problem)
        a_long_message_to_an_application_server(alice, billing)
        a_long_message_from_an_application_server(bob, billing)
    finally:
        log = billing.received()
    assert log.count("/inbox/deliver-message") == 1, log
    a_group(network, alice, bob, carol)
    a_topic(alice, bob, carol)
    an_aggregate(alice, bob)
    a_stored_message_is_changed_and_discarded(network, alice, carol)
    print("all held")


def connect(network, subscriber):
    connection = Connection(Ue(network, subscriber).authenticate(), "openssl tls1.3")
    code, answer = connection.register()
    assert code == "2.01", (code, answer)
    return connection


def segment(sender, destination, message_id, set_id, number, payload, *, total=None, last=False, store=False):
    """MSG with the parameters of one segment: the total in the first, the flag in the last."""
    parameters = {"segId": set_id, "segNumb": number}
    if total:
        parameters["totalSegCount"] = total
    if last:
        parameters["lastSegFlag"] = True
    return {"msgType": "MSG", "oriAddr": sender.ue.address(), "destAddr": destination, "msgId": message_id,
            "stoAndFwInd": store, "segInd": True, "segParams": parameters,
            "payload": base64.b64encode(payload).decode()}


def whole(segments):
    """What the segments hold, in the order of their numbers."""
    ordered = sorted(segments, key=lambda each: each["segParams"]["segNumb"])
    return b"".join(base64.b64decode(each["payload"]) for each in ordered)


def together(sender, members, receiver):
    """Sends in one thread and takes what comes out at the other end in this one."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lambda: sender.request(**members))
        message = receiver.receive()
        return pending.result(), message


def segments_between_ues(alice, bob):
    message_id, set_id, parts = str(uuid.uuid4()), "set-1", [b"a" * 2000, b"b" * 2000, b"c" * 17]
    arrived = []
    for number in (2, 1, 3):  # any order
        members = segment(alice, bob.ue.address(), message_id, set_id, number, parts[number - 1],
                          total=3 if number == 1 else None, last=number == 3)
        (code, answer), message = together(alice, members, bob)
        assert code == "2.04" and "status" not in answer, (code, answer)
        assert message["msgId"] == message_id and message["segParams"]["segNumb"] == number, message
        arrived.append(message)
    assert whole(arrived) == b"".join(parts)
    members = {"oriAddr": bob.ue.address(), "destAddr": alice.ue.address(), "msgId": message_id, "segId": set_id}
    (code, answer), recovery = together(bob, members | {"msgType": "SEGREC", "missSegs": [2]}, alice)
    assert code == "2.04" and recovery["msgType"] == "SEGREC" and recovery["missSegs"] == [2], (code, answer, recovery)
    (code, answer), confirmation = together(bob, members | {"msgType": "SEGCONFIR"}, alice)
    assert code == "2.04" and confirmation["msgType"] == "SEGCONFIR", (code, answer, confirmation)
    print("segments pass between UEs as they are, with SEGREC and SEGCONFIR")


def a_long_message_to_an_application_server(alice, billing):
    message_id, set_id, parts = str(uuid.uuid4()), "set-2", [b"1" * 2048, b"2" * 2048, b"3" * 100]
    answers, confirmed = [], None
    for number in (3, 1, 2):
        code, answer = alice.request(**segment(alice, billing.address(), message_id, set_id, number, parts[number - 1],
                                               total=3 if number == 1 else None, last=number == 3))
        assert code == "2.04", (code, answer)
        answers.append(answer.get("status"))
    assert answers == ["SEGMENT_HELD", "SEGMENT_HELD", None], answers
    confirmed = alice.receive()
    assert confirmed["msgType"] == "SEGCONFIR" and confirmed["segId"] == set_id, confirmed
    print("an application server gets a long message of a UE in one piece")


def a_long_message_from_an_application_server(bob, billing):
    payload, message_id = bytes(range(256)) * 20, str(uuid.uuid4())
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(billing.send, bob.ue.address(), payload, message_id=message_id)
        segments = [bob.receive() for _ in range(3)]
        status, acknowledgement = pending.result()
    assert status == 200 and "status" not in acknowledgement, (status, acknowledgement)
    assert whole(segments) == payload and {each["msgId"] for each in segments} == {message_id}, segments
    numbers = [each["segParams"]["segNumb"] for each in segments]
    totals = [each["segParams"].get("totalSegCount") for each in segments]
    lasts = [each["segParams"].get("lastSegFlag", False) for each in segments]
    assert (numbers, totals, lasts) == ([1, 2, 3], [3, None, None], [False, False, True]), segments
    print("a UE gets a long message of an application server in segments of its size")


def a_group(network, alice, bob, carol):
    provisioner = {"cert": "pki/provisioner.pem", "key": "pki/provisioner.key"}
    documents = f"{network.lab['core']['configuration']}/ss-gm/v1/group-documents"
    members = [{"valUserId": each.ue.service_id} for each in (alice, bob)]
    status, problem = network.http("POST", documents, {"valGroupId": GROUP["addr"], "members": members,
                                                       "valServiceIds": ["msgin5g"]}, provisioner)
    assert status == 201, (status, problem)
    (code, answer), message = together(alice, json.loads(alice.message(GROUP, b"to all of us")), bob)
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    assert message["destAddr"] == GROUP and message["recAddr"] == bob.ue.address(), message
    assert base64.b64decode(message["payload"]) == b"to all of us", message
    code, answer = carol.send(GROUP, b"from nobody of us")
    assert code == "4.03", (code, answer)
    code, answer = alice.send({"addrType": "GROUP", "addr": "nobody@lab.example"}, b"x")
    assert code == "4.04" and answer["failureCause"] == "UNKNOWN_TARGET", (code, answer)
    print("a group's members get a copy each, and only they may send")


def a_topic(alice, bob, carol):
    for connection in (bob, carol):
        code, answer = connection.request(msgType="TOPSUB", oriAddr=connection.ue.address(), msgTopics=[TOPIC["addr"]])
        assert code == "2.04" and answer["subStat"] == "SUBSCRIBED", (code, answer)
    code, answer = alice.send(TOPIC, b"news")
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    for connection in (bob, carol):
        message = connection.receive()
        assert message["destAddr"] == TOPIC and base64.b64decode(message["payload"]) == b"news", message
    code, answer = bob.request(msgType="TOPUNSUB", oriAddr=bob.ue.address(), msgTopics=[TOPIC["addr"]])
    assert code == "2.04" and answer["subStat"] == "UNSUBSCRIBED", (code, answer)
    code, answer = alice.send(TOPIC, b"more news")
    assert code == "2.04", (code, answer)
    assert base64.b64decode(carol.receive()["payload"]) == b"more news"
    code, answer = bob.request(msgType="TOPSUB", oriAddr=carol.ue.address(), msgTopics=[TOPIC["addr"]])
    assert code == "4.03", (code, answer)
    code, answer = bob.request(msgType="TOPSUB", oriAddr=bob.ue.address(), msgTopics=["forbidden/topic"])
    assert code == "4.03" and answer["failureCause"] == "TOPIC_NOT_ALLOWED", (code, answer)
    print("a topic's subscribers get what is published, and nobody subscribes another")


def an_aggregate(alice, bob):
    ids = [str(uuid.uuid4()) for _ in range(2)]
    individual = [{"msgId": each, "stoAndFwInd": False, "payload": base64.b64encode(each.encode()).decode()}
                  for each in ids]
    members = {"msgType": "MSG", "oriAddr": alice.ue.address(), "destAddr": bob.ue.address(),
               "msgId": str(uuid.uuid4()), "indMsgCount": 2, "indMsgs": individual}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lambda: alice.request(**members))
        arrived = [bob.receive() for _ in range(2)]
        code, answer = pending.result()
    assert code == "2.04" and "status" not in answer, (code, answer)
    assert [each["msgId"] for each in arrived] == ids, arrived
    print("a UE that does not support aggregates gets the messages of one")


def a_stored_message_is_changed_and_discarded(network, alice, carol):
    carol.close()
    message_id = str(uuid.uuid4())
    code, answer = alice.send(carol.ue.address(), b"too late", message_id=message_id, store="2099-01-01T00:00:00Z")
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    update = {"msgType": "STOUPD", "oriAddr": alice.ue.address(), "msgId": message_id}
    code, answer = alice.request(**update, stoAndFwParams={"exprTime": "2098-01-01T00:00:00Z"})
    assert code == "2.04" and answer["status"] == "DELY_STORED", (code, answer)
    code, answer = alice.request(**update)
    assert code == "2.02", (code, answer)
    code, answer = alice.request(**update)
    assert code == "4.04" and answer["failureCause"] == "MESSAGE_NOT_STORED", (code, answer)
    print("a stored message is changed and discarded by its sender")


if __name__ == "__main__":
    main(sys.argv[1])
