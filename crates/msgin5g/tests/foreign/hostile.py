"""Peers with a good certificate and bad manners in HTTP/2. Memory stays within a bound and others are served meanwhile.

    hostile.py LAB_JSON PROCESS_ID [CASE...]

Frames are made by hand (hyperframe), because no client library would send them.
"""

import contextlib
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cases import Cases
from hpack import Encoder
from hyperframe.frame import (ContinuationFrame, DataFrame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame,
                              RstStreamFrame, SettingsFrame, WindowUpdateFrame)
from peer import Lab

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What the process may grow by through one attack, in KiB: several times what all connections of an attack may hold by
# the limits of `sbi` together with what the allocator keeps.
GROWTH_MAX = 128 * 1024
# And through all of them, one after the other: what one leaves behind the next one uses.
GROWTH_IN_ALL_MAX = 192 * 1024
case = Cases()


class Rude:
    """One TLS connection with HTTP/2 frames on it, written as told."""

    def __init__(self, lab, url, name="lab-nf", settings=None):
        self.host, _, port = url.removeprefix("https://").partition(":")
        context = lab.peer(name).context
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection((self.host, int(port)), timeout=20)
        self.socket = context.wrap_socket(raw, server_hostname=self.host)
        self.encoder = Encoder()
        self.authority = f"{self.host}:{port}"
        self.write(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())

    def write(self, octets):
        self.socket.sendall(octets)

    def headers(self, path="/openapi.json", method="GET", further=()):
        return self.encoder.encode([(":method", method), (":scheme", "https"), (":authority", self.authority),
                                    (":path", path), *further])

    def request(self, stream, *, ends=True, **what):
        frame = HeadersFrame(stream, data=self.headers(**what), flags=["END_HEADERS"] + (["END_STREAM"] if ends else []))
        return frame.serialize()

    def frames(self, until=None):
        """What comes back until the connection ends, or `until` says so."""
        from hyperframe.frame import Frame
        buffer, seen = b"", []
        try:
            while True:
                while len(buffer) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                    if len(buffer) < 9 + length:
                        break
                    frame.parse_body(memoryview(buffer[9:9 + length]))
                    buffer = buffer[9 + length:]
                    seen.append(frame)
                    if until and until(frame):
                        return seen
                octets = self.socket.recv(65536)
                if not octets:
                    return seen
                buffer += octets
        except (TimeoutError, socket.timeout):
            raise
        except OSError:
            return seen

    def answer_pings_until_hung_up(self):
        def answered(frame):
            if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
        self.frames(until=answered)

    def close(self):
        self.socket.close()


class Relay(threading.Thread):
    """h2load has no certificate of its own: it speaks plain HTTP/2 to here, and goes on from here with mutual TLS."""

    def __init__(self, lab, url, name="lab-nf"):
        super().__init__(daemon=True)
        self.host, _, port = url.removeprefix("https://").partition(":")
        self.port, self.context = int(port), lab.peer(name).context
        self.context.set_alpn_protocols(["h2"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            plain, _ = self.listener.accept()
            threading.Thread(target=self.carry, args=(plain,), daemon=True).start()

    def carry(self, plain):
        with plain, socket.create_connection((self.host, self.port)) as raw:
            secure = self.context.wrap_socket(raw, server_hostname=self.host)
            # One thread looks at both, because a TLS socket of Python is for one thread at a time.
            secure.setblocking(False)
            plain.setblocking(False)
            ends = {plain: (secure, bytearray()), secure: (plain, bytearray())}
            with contextlib.suppress(OSError):
                while self.move(plain, secure, ends):
                    pass

    @staticmethod
    def move(plain, secure, ends):
        wanted = [end for end, (other, waiting) in ends.items() if len(waiting) < 1 << 20]
        full = [other for other, waiting in ends.values() if waiting]
        if not secure.pending():
            select.select(wanted, full, [])
        for end, (other, waiting) in ends.items():
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if end in wanted:
                    octets = end.recv(65536)
                    if not octets:
                        return False
                    waiting += octets
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if waiting:
                    del waiting[:other.send(waiting)]
        return True


def h2load(url, requests, *further):
    """All of that many requests are answered with success."""
    done = subprocess.run(["h2load", "-n", str(requests), "-c", "8", "-m", "32", *further, f"{url}/openapi.json"],
                          capture_output=True, text=True, timeout=600)
    assert f" {requests} succeeded, 0 failed, 0 errored" in done.stdout, (url, done.stdout, done.stderr)


def flood(rude, frames, count, batch=256):
    """Writes as much as the server takes; whether it hung up before all was written."""
    octets = frames * batch
    try:
        for _ in range(count // batch):
            rude.write(octets)
    except TimeoutError:
        return "no longer read"
    except OSError:
        return "hung up"
    return "taken"


def resident(process):
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Scene:
    def __init__(self, lab_json, process):
        self.lab, self.process = Lab(lab_json), process
        self.good = self.lab.peer("lab-nf")
        self.url, self.aanf = self.lab.api, self.lab.core["aanf"]
        self.relay = Relay(self.lab, self.url)

    def served(self):
        response = self.good.get(f"{self.url}/openapi.json")
        assert response.status_code == 200, response.status_code

    def connect(self, url=None, **further):
        return Rude(self.lab, url or self.url, **further)


class Client(threading.Thread):
    """A well-behaved client that asks again and again, on connections of its own, while an attack goes on."""

    def __init__(self, scene):
        super().__init__(daemon=True)
        self.scene, self.peer, self.done = scene, scene.lab.peer("lab-nf"), threading.Event()
        self.served, self.failure = 0, None

    def run(self):
        try:
            while not self.done.is_set() or not self.served:
                response = self.peer.get(f"{self.scene.url}/openapi.json")
                assert response.status_code == 200, response.status_code
                self.served += 1
        except Exception as failure:
            self.failure = failure

    def end(self):
        self.done.set()
        self.join()
        if self.failure:
            raise AssertionError(f"not served during the attack: {self.failure!r}")
        return self.served


def hung_up(rude, code=None):
    """The server ends the connection, and says why if `code` is given."""
    frames = rude.frames(until=lambda frame: isinstance(frame, GoAwayFrame) and frame.error_code != 0)
    away = [frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)]
    if code is not None and away:
        assert away[-1] == code, away
    return away


ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR = 11, 1, 9


@case
def streams_opened_and_reset_at_once(scene):
    rude = scene.connect()
    try:
        for stream in range(1, 40_001, 2):
            rude.write(rude.request(stream) + RstStreamFrame(stream, error_code=8).serialize())
    except OSError:
        pass
    rude.close()


@case
def a_header_that_goes_on_and_on(scene):
    rude = scene.connect()
    block = rude.headers(further=[("x-first", "1")])
    rude.write(HeadersFrame(1, data=block, flags=["END_STREAM"]).serialize())
    more = b"".join(rude.encoder.encode([(f"x-{n}", "v" * 200)]) for n in range(32))
    outcome = flood(rude, ContinuationFrame(1, data=more).serialize(), 20_000, 16)
    assert outcome != "taken", "160 MB of one header were taken"
    rude.close()


@case
def empty_continuations_without_end(scene):
    rude = scene.connect()
    rude.write(HeadersFrame(1, data=rude.headers(), flags=["END_STREAM"]).serialize())
    outcome = flood(rude, ContinuationFrame(1, data=b"").serialize(), 1_000_000)
    assert outcome != "taken", "a million empty continuations were taken"
    rude.close()


@case
def settings_again_and_again(scene):
    rude = scene.connect()
    flood(rude, SettingsFrame(0, settings={4: 65535}).serialize(), 300_000)
    rude.close()


@case
def pings_whose_answers_are_not_read(scene):
    rude = scene.connect()
    flood(rude, PingFrame(0, opaque_data=b"12345678").serialize(), 500_000)
    rude.close()


@case
def a_header_list_over_the_limit(scene):
    rude = scene.connect()
    further = [(f"x-{number}", "v" * 1000) for number in range(40)]
    block = rude.headers(further=further)
    pieces = [block[at:at + 16_000] for at in range(0, len(block), 16_000)]
    frames = HeadersFrame(1, data=pieces[0], flags=["END_STREAM"]).serialize()
    for number, piece in enumerate(pieces[1:], 2):
        frames += ContinuationFrame(1, data=piece, flags=["END_HEADERS"] if number == len(pieces) else []).serialize()
    rude.write(frames)
    decided = lambda frame: isinstance(frame, (GoAwayFrame, RstStreamFrame)) or isinstance(frame, HeadersFrame)
    answer = rude.frames(until=decided)[-1]
    assert decided(answer), answer
    if isinstance(answer, HeadersFrame):
        from hpack import Decoder
        status = dict(Decoder().decode(answer.data))[":status"]
        assert status == "431", status
    rude.close()


@case
def bodies_that_never_come(scene):
    held = []
    for _ in range(4):
        rude = scene.connect(scene.aanf)
        for stream in range(1, 401, 2):
            rude.write(rude.request(stream, ends=False, method="POST", path="/naanf-akma/v1/retrieve-applicationkey",
                                    further=[("content-type", "application/json"), ("content-length", "1000")]))
        held.append(rude)
    for _ in range(10):
        scene.served()
    # Each of them is answered in the end, so that nothing is held for ever.
    answered = held[0].frames(until=lambda frame: isinstance(frame, HeadersFrame))[-1]
    from hpack import Decoder
    status = dict(Decoder().decode(answered.data))[":status"]
    assert status == "504", status
    for rude in held:
        rude.close()


@case
def more_streams_than_allowed(scene):
    rude = scene.connect()
    try:
        for stream in range(1, 2001, 2):
            rude.write(rude.request(stream, ends=False, method="POST", path="/msgs-msgdelivery/v1/deliver-report",
                                    further=[("content-type", "application/json")]))
    except OSError:
        rude.close()
        return  # the connection was ended
    # Either comes, or the connection ends; if neither happened, this would run into the time-out and fail.
    rude.frames(until=lambda frame: isinstance(frame, (RstStreamFrame, GoAwayFrame)))
    rude.close()


@case
def answers_that_are_never_let_out(scene):
    """A window of nothing, of next to nothing, and one that is never opened again. The streams are bounded, and the answers end
    with the connection, although its pings are answered."""
    held = []
    for window in [0, 1, 65_535] * 4:
        rude = scene.connect(settings={SettingsFrame.INITIAL_WINDOW_SIZE: window})
        rude.socket.settimeout(120)
        for stream in range(1, 401, 2):
            rude.write(rude.request(stream))
        held.append(rude)
    for _ in range(10):
        scene.served()
    for rude in held:
        rude.answer_pings_until_hung_up()
        rude.close()


@case
def empty_data_without_end(scene):
    rude = scene.connect()
    rude.write(rude.request(1, ends=False, method="POST", path="/msgs-msgdelivery/v1/deliver-report",
                            further=[("content-type", "application/json")]))
    flood(rude, DataFrame(1, data=b"").serialize(), 500_000)
    rude.close()


@case
def a_window_that_overflows_and_a_stream_that_depends_on_itself(scene):
    rude = scene.connect()
    rude.write(WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2)
    assert hung_up(rude), "an overflow of the window was accepted"
    rude.close()
    rude = scene.connect()
    rude.write(PriorityFrame(1, depends_on=1).serialize() * 1000 + rude.request(3))
    rude.close()


@case
def frames_that_are_none(scene):
    for octets in (b"\x00\x00\x05\xee\x00\x00\x00\x00\x00hello" * 1000,        # an unknown type: to be ignored
                   b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(20_000),     # longer than allowed
                   b"\x00\x00\x03\x06\x00\x00\x00\x00\x00abc",                  # a PING of three octets
                   b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde",                # SETTINGS of five
                   b"\x00\x00\x08\x01\x04\x00\x00\x00\x02" + b"\xff" * 8,       # an even stream, a header that is none
                   b"GET / HTTP/1.1\r\n\r\n"):
        rude = scene.connect()
        try:
            rude.write(octets)
        except OSError:
            pass
        rude.close()


@case
def nghttp_with_many_requests_at_once_and_h2load_without_a_certificate(scene):
    identity = scene.lab.lab["nf_client"]
    host = scene.url.removeprefix("https://")
    done = subprocess.run(["h2load", "-n", "200", "-c", "4", "-m", "8", f"https://{host}/openapi.json"],
                          capture_output=True, text=True, timeout=60)
    assert " 0 succeeded" in done.stdout, done.stdout
    done = subprocess.run(["nghttp", "--no-verify-peer", "-n", "-m", "500", "--stat",
                           f"--cert={scene.lab.path(identity['cert'])}", f"--key={scene.lab.path(identity['key'])}",
                           f"https://{host}/openapi.json"], capture_output=True, text=True, timeout=120)
    statuses = [line.split()[-3] for line in done.stdout.splitlines() if line.strip().endswith("/openapi.json")]
    assert len(statuses) == 500 and set(statuses) == {"200"}, (len(statuses), set(statuses), done.stderr[-500:])


def loaded(scene, requests):
    """h2load, through a relay where a certificate is needed and straight at the CAPIF core function, which needs none."""
    h2load(scene.relay.url, requests)
    h2load(scene.lab.core["capif"], requests)
    print(f"held: h2load, {2 * requests} requests", flush=True)


def main(lab_json, process, *names):
    scene = Scene(lab_json, int(process))
    scene.served()
    loaded(scene, 2_000)
    failures, at_first = 0, resident(scene.process)
    for function in case:
        if names and function.__name__ not in names:
            continue
        before, client, started = resident(scene.process), Client(scene), time.monotonic()
        client.start()
        try:
            with ThreadPoolExecutor(1) as load:
                # Load of others besides, while the attack goes on.
                pending = load.submit(h2load, scene.relay.url, 500)
                function(scene)
                pending.result()
            served = client.end()
            scene.served()
            growth = resident(scene.process) - before
            assert growth < GROWTH_MAX, f"the process grew by {growth} KiB"
            print(f"held: {function.__name__} ({served} requests of others served, {growth:+} KiB, "
                  f"{time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:
            failures += 1
            client.done.set()
            print(f"FAILED: {function.__name__}: {type(error).__name__}: {error}", flush=True)
    loaded(scene, 2_000)
    growth = resident(scene.process) - at_first
    print(f"all cases together: {growth:+} KiB", flush=True)
    if growth >= GROWTH_IN_ALL_MAX:
        sys.exit(f"the process grew by {growth} KiB in all")
    if failures:
        sys.exit(f"{failures} cases failed")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
