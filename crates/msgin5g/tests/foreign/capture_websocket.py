"""Records MSGin5G-1 over WebSocket on its way through a relay, and has tshark decode it with the server's key log."""

import json
import pathlib
import subprocess
import sys
import uuid

from capture import Relay, walk, well_formed
from service import deliver
from ue import Network, Ue, subscribers
from websocket import TLS_1_2, TLS_1_3, WebSocket


def main(lab_json, key_log, directory):
    network = Network(lab_json)
    relay = Relay(network.lab["server"]["coaps_ws"])
    port = int(network.lab["server"]["coaps_ws"].rpartition(":")[2])
    network.lab["server"]["coaps_ws"] = relay.address
    alice, bob = (Ue(network, s).authenticate() for s in subscribers(network, 2))
    for client in (TLS_1_3, TLS_1_2):
        sender, receiver = WebSocket(alice, client), WebSocket(bob, client)
        for connection in (sender, receiver):
            assert connection.register()[0] == "2.01"
        code, answer = deliver(sender, receiver, bob, str(uuid.uuid4()), b"seen by tshark" * 30)
        assert code == "2.04", answer
        for connection in (sender, receiver):
            assert connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)[0] == "2.02"
            connection.close()
    pcap = pathlib.Path(directory) / "msgin5g-1-websocket.pcap"
    relay.write_pcap(pcap, port)
    decoded = subprocess.run(
        ["tshark", "-r", pcap, "-o", f"tls.keylog_file:{key_log}", "-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},http",
         "-T", "json", "-Y", "websocket || http"], capture_output=True, check=True, text=True)
    frames = json.loads(decoded.stdout, object_pairs_hook=lambda pairs: pairs)
    openings = [frame for frame in frames if not any(name == "websocket" for name, _ in walk(frame))]
    codes = well_formed([frame for frame in frames if frame not in openings])
    members = [member for frame in openings for member in walk(frame)]
    assert not any(name == "_ws.malformed" for name, _ in members)
    for name, value in (("http.request.uri", "/.well-known/coap"), ("http.response.code", "101"),
                        ("http.sec_websocket_protocol", "coap")):
        seen = {each for other, each in members if other == name}
        assert seen == {value}, (name, seen)
    print(f"tshark decoded {len(frames)} frames, codes {[f'{c >> 5}.{c & 31:02}' for c in sorted(codes)]}")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
