"""What goes over the wire, recorded by a relay, and read by tshark."""

import json
import pathlib
import select
import socket
import struct
import subprocess
import threading

TCP, UDP = 6, 17


class Recorder:
    """Stands between a UE and the server, passes on what comes, and keeps it in that order."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.target, self.port, self.streams, self.lock = (host, int(port)), int(port), [], threading.Lock()

    def write_pcap(self, path):
        with self.lock, open(path, "wb") as out:
            out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))  # LINKTYPE_RAW
            self.clock = 0
            for client_port, record in self.streams:
                self._write_stream(out, client_port, record)

    def _ports(self, client_port, outward):
        return (client_port, self.port) if outward else (self.port, client_port)

    def _packet(self, out, protocol, segment):
        self.clock += 100
        size = 20 + len(segment)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, protocol, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
        out.write(struct.pack("<IIII", self.clock // 1_000_000, self.clock % 1_000_000, size, size) + ip + segment)


class Relay(Recorder):
    """The same for TCP: each octet."""

    def __init__(self, target):
        super().__init__(target)
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

    def _write_stream(self, out, client_port, record):
        sequence = {True: 1000, False: 9000}

        def packet(outward, data, flags):
            tcp = struct.pack(">HHIIBBHHH", *self._ports(client_port, outward), sequence[outward], sequence[not outward],
                              5 << 4, flags, 65535, 0, 0)
            self._packet(out, TCP, tcp + data)
            sequence[outward] += len(data) + bool(flags & 2)

        packet(True, b"", 0x02)
        packet(False, b"", 0x12)
        for outward, data in record:
            packet(outward, data, 0x18)


class DatagramRelay(Recorder):
    """The same for UDP: each datagram, of each device that sends through it."""

    def __init__(self, target):
        super().__init__(target)
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.front.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        devices = {}
        while True:
            ready, _, _ = select.select([self.front, *(back for back, _ in devices.values())], [], [])
            for device, (back, record) in list(devices.items()):
                if back in ready:
                    data = back.recv(65535)
                    with self.lock:
                        record.append((False, data))
                    self.front.sendto(data, device)
            if self.front in ready:
                data, device = self.front.recvfrom(65535)
                if device not in devices:
                    back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    back.connect(self.target)
                    devices[device] = (back, [])
                    self.streams.append((device[1], devices[device][1]))
                with self.lock:
                    devices[device][1].append((True, data))
                devices[device][0].send(data)

    def _write_stream(self, out, client_port, record):
        for outward, data in record:
            udp = struct.pack(">HHHH", *self._ports(client_port, outward), 8 + len(data), 0)
            self._packet(out, UDP, udp + data)


def decoded(recorder, path, shown, *options):
    """What tshark makes of the recording: the frames that are `shown`, each as pairs, since names repeat.

    None may be malformed, shown or not: a broken record of TLS or DTLS never gets as far as what it carries.
    """
    recorder.write_pcap(path)
    every = _read(path, *options)
    shown = _read(path, *options, "-Y", shown)
    assert len(every) >= len(shown) > 0, (len(every), len(shown))
    for frame in every:
        members = list(walk(frame))
        codes, complaints, malformed = found_malformed(members, MALFORMED)
        layers = sorted({name for name, _ in members if "." not in name})
        assert not malformed and not complaints, (str(path), codes, complaints, layers)
    return shown


def _read(path, *options):
    done = subprocess.run(["tshark", "-r", path, *options, "-T", "json"], capture_output=True, check=True, text=True)
    return json.loads(done.stdout, object_pairs_hook=lambda pairs: pairs)


def walk(value):
    """Each member of tshark's JSON, which repeats names."""
    for each in value if isinstance(value, list) else []:
        if isinstance(each, tuple):
            yield each
            yield from walk(each[1])
        else:
            yield from walk(each)


def values(frames, name):
    return [value for frame in frames for other, value in walk(frame) if other == name]


# Wireshark's PI_MALFORMED. TCP has remarks of other groups on the best of connections.
MALFORMED = 0x07000000


def found_malformed(members, group=None, field="coap.code"):
    """The codes of CoAP in a frame, tshark's complaints about it, of one group or all, and whether it is malformed."""
    codes = {int(value) for name, value in members if name == field}
    complaints, message = set(), None
    for name, value in members:
        if name == "_ws.expert.message":
            message = value
        elif name == "_ws.expert.group" and group in (None, int(value)):
            complaints.add(message)
    malformed = any(name == "_ws.malformed" for name, _ in members)
    # tshark 4.0 does not know CSM's Max-Message-Size (RFC 8323 5.3.1) and calls it malformed; nothing else may be.
    if codes == {0xE1}:
        complaints.discard("Invalid Option Number 2")
        malformed = False
    # Nor Echo and Request-Tag (RFC 9175).
    if unknown := complaints & {"Invalid Option Number 252", "Invalid Option Number 292"}:
        complaints -= unknown
        malformed = False
    return codes, complaints, malformed


def well_formed(frames, wanted=(0xE1, 0x02, 0x41, 0x44, 0x42), field="coap.code"):
    """The codes of CoAP in frames, of which none may be malformed."""
    codes = set()
    for frame in frames:
        here, complaints, malformed = found_malformed(list(walk(frame)), field=field)
        assert not malformed and not complaints, (here, complaints)
        codes |= here
    assert set(wanted) <= codes, f"codes seen: {sorted(codes)}"
    return codes


def told(what, frames, codes):
    print(f"decoded: {what}: {len(frames)} frames, codes {[f'{c >> 5}.{c & 31:02}' for c in sorted(codes)]}", flush=True)


def file(directory, name):
    return pathlib.Path(directory) / f"{name}.pcap"
