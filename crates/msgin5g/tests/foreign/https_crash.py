"""A message that was pushed to a device and not acknowledged survives `kill -9` of the server.

Two runs: `push` leaves it unacknowledged and says so; after the kill, `again` takes and acknowledges it. The device keeps its
keys in between, in the file that is given.
"""

import json
import pathlib
import sys
import uuid

from https_ue import HttpsUe
from ue import Network, Ue, subscribers


def main(what, lab_json, root, state):
    network, state = Network(lab_json), pathlib.Path(state)
    sender, recipient = (Ue(network, s) for s in subscribers(network, 2))
    if what == "push":
        for ue in (sender, recipient):
            ue.authenticate()
        keys = {ue.service_id: (ue.a_kid, ue.k_akma.hex()) for ue in (sender, recipient)}
    else:
        keys = json.loads(state.read_text())["keys"]
        for ue in (sender, recipient):
            ue.a_kid, key = keys[ue.service_id]
            ue.k_akma = bytes.fromhex(key)
    device, other = HttpsUe(recipient, root), HttpsUe(sender, root)
    if what == "push":
        push(device, other, keys, state)
    else:
        again(device, json.loads(state.read_text()))
    print("all held")


def push(device, other, keys, state):
    # Bodies need auth-int here, which is made by hand.
    status, problem = device.curl_post(**device.register())
    assert status == 401 and problem["cause"] == "BODY_NOT_PROTECTED", (status, problem)
    for each in (device, other):
        assert each.post(**each.register())[0] == 201
    assert device.post(msgType="DEREG", ueSvcId="nobody@lab.example")[0] == 403
    message_id = str(uuid.uuid4())
    status, answer = 0, None
    # The device counts as listening for a while after it registered; then what it does not take is stored.
    body = other.message(device.ue.address(), b"keep me", message_id, store="2099-01-01T00:00:00Z")
    status, answer = other.post(**body)
    assert status == 200 and answer["status"] == "DELY_STORED", (status, answer)
    [(event, message)] = device.poll()
    assert message["msgId"] == message_id, message
    state.write_text(json.dumps({"keys": keys, "event": event, "message_id": message_id}))


def again(device, before):
    status, problem = device.curl(f"{device.path}/events?wait=0")
    assert status == 403 and problem["cause"] == "NOT_REGISTERED", (status, problem)
    assert device.post(**device.register())[0] == 201
    [(event, message)] = device.poll()
    assert message["msgId"] == before["message_id"] and event != before["event"], (event, message)
    status, _, _ = device.ask("POST", f"{device.path}/events/{before['event']}")
    assert status == 404, status
    status, _, _ = device.ask("POST", f"{device.path}/events/{event}")
    assert status == 204, status
    assert device.poll(wait=1) == [], "once"


if __name__ == "__main__":
    main(*sys.argv[1:])
