"""Records MSGin5G-1 on its way through a relay, and has tshark decode it with the server's key log."""

import json
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import uuid

from service import deliver
from ue import CLIENTS, Connection, Network, Ue, subscribers


class Relay:
    """Passes TCP through and keeps each octet, in the order in which it was relayed."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.target, self.streams, self.lock = (host, int(port)), [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, peer = self.listener.accept()
            far = socket.create_connection(self.target)
            record = []
            self.streams.append((peer[1], record))
            for source, sink, outward in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, outward, record), daemon=True).start()

    def _pump(self, source, sink, outward, record):
        try:
            while data := source.recv(4096):
                with self.lock:
                    record.append((outward, data))
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def write_pcap(self, path, server_port):
        with self.lock, open(path, "wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))  # LINKTYPE_RAW
            clock = 0
            for client_port, record in self.streams:
                sequence = {True: 1000, False: 9000}

                def packet(outward, data, flags):
                    ports = (client_port, server_port) if outward else (server_port, client_port)
                    tcp = struct.pack(">HHIIBBHHH", *ports, sequence[outward], sequence[not outward], 5 << 4, flags, 65535, 0, 0)
                    size = 20 + len(tcp) + len(data)
                    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
                    out.write(struct.pack("<IIII", clock // 1_000_000, clock % 1_000_000, size, size) + ip + tcp + data)
                    sequence[outward] += len(data) + bool(flags & 2)

                packet(True, b"", 0x02)
                packet(False, b"", 0x12)
                for outward, data in record:
                    clock += 100
                    packet(outward, data, 0x18)


def walk(value):
    """Each member of tshark's JSON, which repeats names."""
    for each in value if isinstance(value, list) else []:
        if isinstance(each, tuple):
            yield each
            yield from walk(each[1])
        else:
            yield from walk(each)


def well_formed(frames):
    """The codes of CoAP in frames, of which none may be malformed."""
    codes = set()
    for frame in frames:
        members = list(walk(frame))
        here = {int(value) for name, value in members if name == "coap.code"}
        complaints = {value for name, value in members if name == "_ws.expert.message"}
        malformed = any(name == "_ws.malformed" for name, _ in members)
        # tshark 4.0 does not know CSM's Max-Message-Size (RFC 8323 5.3.1) and calls it malformed; nothing else may be.
        if here == {0xE1}:
            complaints.discard("Invalid Option Number 2")
            malformed = False
        assert not malformed and not complaints, (here, complaints)
        codes |= here
    assert {0xE1, 0x02, 0x41, 0x44, 0x42} <= codes, f"codes seen: {sorted(codes)}"
    return codes


def main(lab_json, key_log, directory):
    network = Network(lab_json)
    relay = Relay(network.lab["server"]["coaps_tcp"])
    port = int(network.lab["server"]["coaps_tcp"].rpartition(":")[2])
    network.lab["server"]["coaps_tcp"] = relay.address
    alice, bob = (Ue(network, s).authenticate() for s in subscribers(network, 2))
    for client in ("openssl tls1.3", "openssl tls1.2 ecdhe-psk"):
        assert client in CLIENTS
        sender, receiver = Connection(alice, client), Connection(bob, client)
        for connection in (sender, receiver):
            assert connection.register()[0] == "2.01"
        code, answer = deliver(sender, receiver, bob, str(uuid.uuid4()), b"seen by tshark" * 30)
        assert code == "2.04", answer
        for connection in (sender, receiver):
            assert connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)[0] == "2.02"
            connection.close()
    pcap = pathlib.Path(directory) / "msgin5g-1.pcap"
    relay.write_pcap(pcap, port)
    decoded = subprocess.run(
        ["tshark", "-r", pcap, "-o", f"tls.keylog_file:{key_log}", "-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},coap",
         "-T", "json", "-Y", "coap"], capture_output=True, check=True, text=True)
    frames = json.loads(decoded.stdout, object_pairs_hook=lambda pairs: pairs)
    codes = well_formed(frames)
    print(f"tshark decoded {len(frames)} frames, codes {[f'{c >> 5}.{c & 31:02}' for c in sorted(codes)]}")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
