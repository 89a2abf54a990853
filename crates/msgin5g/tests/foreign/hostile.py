"""Peers with a good certificate or key and bad manners in HTTP/2, at every kind of listener; GROUPS has them. How each attack ends
is held to what is documented; memory stays within a bound, at its highest, too, and others are served at every listener meanwhile.

    hostile.py LAB_JSON PROCESS_ID GROUP CAPIF [CASE...]

All listeners of the group are of the process PROCESS_ID. CAPIF is the root of the core function where API invokers onboard.
Frames are made by hand (hyperframe), because no client library would send them.
"""

import contextlib
import functools
import itertools
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

from cases import Cases
from hpack import Decoder, Encoder
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame,
                              RstStreamFrame, SettingsFrame, WindowUpdateFrame)
from invoker import SUITE, Invoker, PskConnection, address_of, credentials, interface_for
from parties import Outside
from peer import Lab, Peer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What the process may grow by through one attack on all listeners, in KiB: several times what all connections of an attack may
# hold by the limits of `sbi` together with what the allocator keeps.
GROWTH_MAX = 128 * 1024
# And through all of them, one after the other: what one leaves behind the next one uses.
GROWTH_IN_ALL_MAX = 192 * 1024
# The most that it may grow by while one goes on is what the limits of `sbi` let its connections hold: `streams_per_connection_max`
# requests on each, of each the header list (`header_list_bytes_max`) and a piece of the answer, in KiB. No attack gets a body in.
STREAMS_MAX, STREAM_KIB_MAX, CONNECTIONS_MAX = 256, 16 + 4, 6
# And what everybody else's connections and h2load's take beside.
OTHERS_KIB_MAX = 16 * 1024
# For what has to come: longer than every time-out of the server on a busy machine.
PATIENCE_SECONDS = 180
# To open a connection before an attack.
ATTEMPTS = 5
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0, 1, 3, 6, 7, 9, 11
case = Cases()


class Target:
    """A listener: how somebody gets there, an operation that takes a body, and the answer to the one that everybody asks for. The
    rounds are how many connections an attack has here where it has several, and how often h2load asks, beside the most of each."""

    def __init__(self, name, url, body_path, *, served=200, rounds=1.0):
        self.name, self.url, self.body_path, self.served, self.rounds = name, url, body_path, served, rounds
        self.host, _, self.port = url.removeprefix("https://").partition(":")

    def connect(self, **further):
        return Rude(self, self.socket(), **further)

    def some(self, most):
        """The first of these, as many as there are to be here."""
        return most[:max(1, round(len(most) * self.rounds))]

    def held_max(self):
        """What the connections of an attack may hold here, in KiB."""
        return len(self.some(range(CONNECTIONS_MAX))) * STREAMS_MAX * STREAM_KIB_MAX

    def close(self):
        pass


class ByCertificate(Target):
    """Whoever `peer()` gives has a certificate, or needs none."""

    def __init__(self, name, url, body_path, peer, **further):
        super().__init__(name, url, body_path, **further)
        self.peer = peer
        self.context = peer().context
        self.context.set_alpn_protocols(["h2"])
        # What h2load is to ask: it has no certificate, and counts other answers than these as failures.
        self.load = None if self.served != 200 else Relay(url, self.context).url if peer().cert else url

    def socket(self):
        raw = socket.create_connection((self.host, int(self.port)), timeout=20)
        return self.context.wrap_socket(raw, server_hostname=self.host)

    def client(self):
        peer = self.peer()
        return lambda: peer.get(f"{self.url}/openapi.json").status_code


class ByPsk(Target):
    """An API invoker with AEF_PSK. TLS is the openssl command's, with a socket to it."""

    def __init__(self, name, interface, identity, key, body_path, **further):
        super().__init__(name, f"https://{address_of(interface)}", body_path, **further)
        self.load, self.processes = None, []
        self.client_of = functools.partial(PskConnection, interface, identity, key)
        self.command = ["openssl", "s_client", "-quiet", "-connect", address_of(interface), "-tls1_2", "-cipher", SUITE,
                        "-alpn", "h2", "-psk_identity", identity, "-psk", key.hex()]

    def socket(self):
        ours, its = socket.socketpair()
        with its:
            self.processes.append(subprocess.Popen(self.command, stdin=its, stdout=its, stderr=subprocess.DEVNULL))
        return ours

    def client(self):
        connection = self.client_of()
        self.processes.append(connection.process)
        return lambda: connection.request("GET", "/openapi.json").status_code

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Rude:
    """One connection with HTTP/2 frames on it, written as told."""

    def __init__(self, target, connected, settings=None):
        self.socket, self.encoder, self.decoder = connected, Encoder(), Decoder()
        self.authority, self.buffer, self.over = f"{target.host}:{target.port}", b"", False
        self.socket.setblocking(False)
        self.exchange([PREFACE + SettingsFrame(0, settings=settings or {}).serialize()],
                      until=lambda frame: isinstance(frame, SettingsFrame))
        assert not self.over, "not let in"

    def headers(self, path="/openapi.json", method="GET", further=()):
        return self.encoder.encode([(":method", method), (":scheme", "https"), (":authority", self.authority),
                                    (":path", path), *further])

    def request(self, stream, *, ends=True, **what):
        frame = HeadersFrame(stream, data=self.headers(**what), flags=["END_HEADERS"] + (["END_STREAM"] if ends else []))
        return frame.serialize()

    def exchange(self, pieces=(), until=None, reads=True):
        """Writes the pieces and reads frames meanwhile, until `until` says so of one, or the connection is over. Gives the frames
        but those of DATA, and answers pings. Without `reads`, nothing is read before all is written, or nothing more is taken."""
        pieces, waiting, pongs, seen = iter(pieces), b"", b"", []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.over:
            assert time.monotonic() < deadline, f"still open, after {[str(frame) for frame in seen[-5:]]}"
            moved = False
            if reads:
                frames = self.read()
                moved = frames is not None
                for frame in frames or ():
                    seen += [] if isinstance(frame, DataFrame) else [frame]
                    if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                        pongs += PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize()
                    if until and until(frame):
                        return seen
            if not waiting:
                waiting, pongs = pongs or next(pieces, b""), b""
            if waiting and not self.over:
                written = self.write(waiting)
                waiting, moved = waiting[written:], moved or written > 0
            elif not reads:
                reads = moved = True
            if not moved and not self.over:
                ready = select.select([self.socket] if reads else [], [self.socket] if waiting else [], [], 5)
                # A peer that reads nothing may be read from no more.
                reads = reads or not any(ready)
        return seen

    def write(self, octets):
        try:
            return self.socket.send(octets)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            # What the server said before is still there to be read.
            while self.read() is not None and not self.over:
                pass
            self.over = True
            return len(octets)

    def read(self):
        """The frames that are there; None if there is nothing to read."""
        try:
            octets = self.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            octets = b""
        self.over, self.buffer, frames = not octets, self.buffer + octets, []
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
            if len(self.buffer) < 9 + length:
                break
            frame.parse_body(memoryview(self.buffer[9:9 + length]))
            self.buffer = self.buffer[9 + length:]
            frames.append(frame)
        return frames

    def status(self, frame):
        """Every HEADERS frame has to come by here, in order."""
        return dict(self.decoder.decode(frame.data))[":status"]

    def close(self):
        self.socket.close()


class Relay(threading.Thread):
    """h2load has no certificate of its own: it speaks plain HTTP/2 to here, and goes on from here with mutual TLS."""

    def __init__(self, url, context):
        super().__init__(daemon=True)
        self.host, _, port = url.removeprefix("https://").partition(":")
        self.port, self.context = int(port), context
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


def resident(process, what="VmRSS"):
    """In KiB: what is resident now, or with VmHWM the most that was since `begin_peak`."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


def begin_peak(process):
    """The highest that was resident counts anew from here (proc_pid_clear_refs(5)); gives what is resident."""
    with open(f"/proc/{process}/clear_refs", "w") as clear:
        clear.write("5")
    return resident(process, "VmHWM")


class Scene:
    """The lab, and the listeners of one process that are attacked: those of `group`."""

    def __init__(self, lab_json, process, group, capif, folder):
        self.lab, self.process = Lab(lab_json), process
        self.lab.core = self.lab.core | {"capif": capif}
        self.targets = GROUPS[group](self.lab, folder)
        # What others ask with h2load during each attack.
        self.loaded = self.targets[0]
        self.peak_max = OTHERS_KIB_MAX + sum(target.held_max() for target in self.targets)

    def close(self):
        for target in self.targets:
            target.close()


def producers(lab, folder):
    """Those that anybody asks, inside the domain and outside."""
    inside, core = lambda: lab.peer("lab-nf"), lab.core
    return [
        ByCertificate("server", lab.api, "/msgs-msgdelivery/v1/deliver-report", inside),
        ByCertificate("aanf", core["aanf"], "/naanf-akma/v1/retrieve-applicationkey", inside),
        ByCertificate("nef", core["nef"], "/3gpp-akma/v1/retrieve", lambda: Outside(lab)),
        ByCertificate("capif", core["capif"], "/api-provider-management/v1/registrations", lambda: Peer(lab, None, None)),
        by_psk("aef_psk", *onboarded(lab, folder, "3gpp-akma"), "/3gpp-akma/v1/retrieve"),
    ]


def core_functions(lab, _):
    """The others of the core, and the NEF where only the server has something to ask: in fewer rounds."""
    inside, core, some = lambda: lab.peer("lab-nf"), lab.core, {"rounds": 0.25}
    with open(lab.path("config/exposure.toml"), "rb") as file:
        nef = tomllib.load(file)["nef"]["msgin5g"]["listen"]
    return [
        ByCertificate("nrf", core["nrf"], "/nnrf-nfm/v1/subscriptions", inside, **some),
        ByCertificate("udm", core["udm"], "/nudm-ueau/v1/imsi-001010000000001/auth-events", inside, **some),
        ByCertificate("ausf", core["ausf"], "/nausf-auth/v1/ue-authentications", inside, **some),
        ByCertificate("configuration", core["configuration"], "/ss-gm/v1/group-documents", inside, **some),
        # It has no document: what is not there is not found.
        ByCertificate("nef inside", f"https://{nef}", "/nef-msgin5g/v1/weather@outside.example/deliver-message",
                      lambda: lab.peer("server"), served=404, **some),
    ]


def servers_doors(lab, folder):
    """Where the server itself takes API invokers, and where it takes the NEF's notifications: in fewer rounds."""
    some, body_path = {"rounds": 0.25}, "/msgs-msgdelivery/v1/deliver-as-message"
    invoker, profile = onboarded(lab, folder, "msgs-msgdelivery")
    url = f"https://{address_of(interface_for(profile, 'PKI'))}"
    with open(lab.path("own-server.toml"), "rb") as file:
        notified = tomllib.load(file)["exposure"]["notification_listen"]
    return [ByCertificate("server's capif", url, body_path, lambda: Peer(lab, invoker.cert, invoker.key), **some),
            by_psk("server's aef_psk", invoker, profile, body_path, **some),
            # It has no document, and nobody here may notify it.
            ByCertificate("server's notifications", f"https://{notified}", "/notifications/reachability/0000",
                          lambda: lab.peer("lab-nf"), served=404, **some)]


GROUPS = {"producers": producers, "core": core_functions, "invokers": servers_doors}


def onboarded(lab, folder, api_name):
    """An API invoker, and how this API is exposed, which its provider publishes in the background."""
    invoker = Invoker(lab, folder, "hostile", credentials(lab, Outside(lab).service_id)[0])
    answer = invoker.onboard()
    assert answer.status_code == 201, (answer.status_code, answer.text)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := invoker.discover(**{"api-name": api_name})):
        assert time.monotonic() < deadline, f"{api_name} is not published"
        time.sleep(0.1)
    return invoker, found[0]["aefProfiles"][0]


def by_psk(name, invoker, profile, body_path, **further):
    return ByPsk(name, interface_for(profile, "PSK"), invoker.id, invoker.aef_psk(profile), body_path, **further)


class Client(threading.Thread):
    """A well-behaved client that asks again and again, on a connection of its own, while an attack goes on."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.done = target, threading.Event()
        self.served, self.longest, self.failure = 0, 0, None
        self.ask = self.let_in()

    def let_in(self):
        """A connection that is open before the attack begins: a handshake has its time, which a busy machine may not give it."""
        for attempt in range(ATTEMPTS):
            ask = self.target.client()
            try:
                assert ask() == self.target.served
                return ask
            except Exception:
                if attempt + 1 == ATTEMPTS:
                    raise

    def run(self):
        try:
            while not self.done.wait(0.05) or not self.served:
                began = time.monotonic()
                status = self.ask()
                assert status == self.target.served, status
                self.served, self.longest = self.served + 1, max(self.longest, time.monotonic() - began)
        except Exception as failure:
            self.failure = failure

    def end(self):
        self.done.set()
        self.join()
        if self.failure:
            raise AssertionError(f"{self.target.name}: not served during the attack: {self.failure!r}")
        return self.served


def codes(frames, kind=GoAwayFrame):
    return [frame.error_code for frame in frames if isinstance(frame, kind) and frame.error_code != NO_ERROR]


def ended(rude, pieces, wanted, *, reads=True, told=False):
    """The connection is ended before all the pieces are taken, with a code of `wanted` in the GOAWAY if one comes through: a peer
    that writes on may lose it. With `told`, all the pieces may be taken, and the GOAWAY has to come."""
    pieces = iter(pieces)
    frames = rude.exchange(pieces, reads=reads)
    away = codes(frames)
    rude.close()
    assert not away or set(away) <= set(wanted), f"GOAWAY {away}"
    if told:
        assert away, f"no GOAWAY: {[str(frame) for frame in frames]}"
    else:
        assert next(pieces, None) is not None, "all of it was taken"
    return f"GOAWAY {away[-1]}" if away else "ended"


def flood(frames, count, batch=256):
    return itertools.repeat(frames * batch, count // batch)


@case
def streams_opened_and_reset_at_once(target):
    rude = target.connect()
    opened = lambda stream: rude.request(stream) + RstStreamFrame(stream, error_code=8).serialize()
    batches = (b"".join(map(opened, range(first, first + 512, 2))) for first in range(1, 40_001, 512))
    return ended(rude, batches, [ENHANCE_YOUR_CALM])


@case
def a_header_that_goes_on_and_on(target):
    rude = target.connect()
    block = HeadersFrame(1, data=rude.headers(further=[("x-first", "1")]), flags=["END_STREAM"]).serialize()
    more = b"".join(rude.encoder.encode([(f"x-{n}", "v" * 200)]) for n in range(32))
    pieces = itertools.chain([block], flood(ContinuationFrame(1, data=more).serialize(), 20_000, 4))
    return ended(rude, pieces, [ENHANCE_YOUR_CALM, COMPRESSION_ERROR])


@case
def empty_continuations_without_end(target):
    rude = target.connect()
    block = HeadersFrame(1, data=rude.headers(), flags=["END_STREAM"]).serialize()
    pieces = itertools.chain([block], flood(ContinuationFrame(1, data=b"").serialize(), 1_000_000))
    return ended(rude, pieces, [ENHANCE_YOUR_CALM, COMPRESSION_ERROR])


@case
def settings_again_and_again(target):
    return ended(target.connect(), flood(SettingsFrame(0, settings={4: 65535}).serialize(), 300_000), [ENHANCE_YOUR_CALM])


@case
def pings_whose_answers_are_not_read(target):
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    return ended(target.connect(), flood(ping, 500_000), [ENHANCE_YOUR_CALM], reads=False)


@case
def a_header_list_over_the_limit(target):
    rude = target.connect()
    block = rude.headers(further=[(f"x-{number}", "v" * 1000) for number in range(40)])
    pieces = [block[at:at + 16_000] for at in range(0, len(block), 16_000)]
    frames = HeadersFrame(1, data=pieces[0], flags=["END_STREAM"]).serialize()
    for number, piece in enumerate(pieces[1:], 2):
        frames += ContinuationFrame(1, data=piece, flags=["END_HEADERS"] if number == len(pieces) else []).serialize()
    seen = rude.exchange([frames], until=lambda frame: isinstance(frame, (GoAwayFrame, RstStreamFrame, HeadersFrame)))
    status = [rude.status(frame) for frame in seen if isinstance(frame, HeadersFrame)]
    away, reset = codes(seen), [frame.error_code for frame in seen if isinstance(frame, RstStreamFrame)]
    rude.close()
    assert status == ["431"] or reset or set(away) == {ENHANCE_YOUR_CALM}, (status, reset, away)
    return f"{status[0]}" if status else f"RST_STREAM {reset[0]}" if reset else f"GOAWAY {away[0]}"


@case
def bodies_that_never_come(target):
    """Each of them is answered in the end, so that nothing is held for ever."""
    held = [target.connect() for _ in target.some([1, 2])]
    for rude in held:
        request = lambda stream: rude.request(stream, ends=False, method="POST", path=target.body_path,
                                              further=[("content-type", "application/json"), ("content-length", "1000")])
        rude.expected = set(range(1, 401, 2))
        rude.asked = b"".join(request(stream) for stream in sorted(rude.expected))
    def all_answered(rude):
        def answered(frame):
            if isinstance(frame, HeadersFrame):
                status = rude.status(frame)
                # Which of two times is over first; and whoever has no token or no right, or asked too often without, is refused
                # before its body is waited for.
                assert status in ("401", "403", "408", "429", "504"), status
                rude.expected.discard(frame.stream_id)
            return not rude.expected
        rude.exchange([rude.asked], until=answered)
        assert not rude.expected, f"{len(rude.expected)} were never answered"
        rude.close()
    with ThreadPoolExecutor(len(held)) as pool:
        list(pool.map(all_answered, held))
    return "408 or 504 each"


@case
def more_streams_than_allowed(target):
    rude = target.connect()
    request = lambda stream: rude.request(stream, ends=False, method="POST", path=target.body_path,
                                          further=[("content-type", "application/json")])
    pieces = (b"".join(map(request, range(first, first + 100, 2))) for first in range(1, 2001, 100))
    # Whoever has no token or no right is refused before its body is waited for, and so holds no stream.
    at_once = set()

    def over(frame):
        if isinstance(frame, HeadersFrame) and rude.status(frame) in ("401", "403", "429"):
            at_once.add(frame.stream_id)
        return bool(codes([frame], RstStreamFrame) or codes([frame])) or len(at_once) == 1000
    seen = rude.exchange(pieces, until=over)
    reset, away, is_over = codes(seen, RstStreamFrame), codes(seen), rude.over
    rude.close()
    assert set(reset) <= {REFUSED_STREAM, PROTOCOL_ERROR} and set(away) <= {ENHANCE_YOUR_CALM, PROTOCOL_ERROR}, (reset, away)
    assert reset or away or is_over or len(at_once) == 1000, "none was refused"
    return (f"RST_STREAM {reset[0]}" if reset else f"GOAWAY {away[0]}" if away
            else "each refused at once" if len(at_once) == 1000 else "ended")


# The last of three lets some answers out, and then no more.
WINDOWS = [0, 1, 65_535] * 2
assert len(WINDOWS) <= CONNECTIONS_MAX


@case
def answers_that_are_never_let_out(target):
    """A window of nothing, of next to nothing, and one that is never opened again. The streams are bounded, and the answers end
    with the connection, although its pings are answered."""
    held = [target.connect(settings={SettingsFrame.INITIAL_WINDOW_SIZE: window}) for window in target.some(WINDOWS)]
    for rude in held:
        rude.exchange([b"".join(rude.request(stream) for stream in range(1, 401, 2))],
                      until=lambda frame: isinstance(frame, HeadersFrame))
    with ThreadPoolExecutor(len(held)) as pool:
        list(pool.map(Rude.exchange, held))
    for rude in held:
        rude.close()
    return "ended"


@case
def empty_data_without_end(target):
    rude = target.connect()
    opened = rude.request(1, ends=False, method="POST", path=target.body_path, further=[("content-type", "application/json")])
    pieces = itertools.chain([opened], flood(DataFrame(1, data=b"").serialize(), 500_000))
    return ended(rude, pieces, [ENHANCE_YOUR_CALM])


@case
def windows_that_overflow(target):
    whole = ended(target.connect(), [WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2], [FLOW_CONTROL_ERROR], told=True)
    rude = target.connect()
    opened = rude.request(1, ends=False, method="POST", path=target.body_path, further=[("content-type", "application/json")])
    seen = rude.exchange([opened + WindowUpdateFrame(1, window_increment=2**31 - 1).serialize() * 2],
                         until=lambda frame: isinstance(frame, (RstStreamFrame, GoAwayFrame)))
    rude.close()
    assert codes(seen, RstStreamFrame) == [FLOW_CONTROL_ERROR] or codes(seen) == [FLOW_CONTROL_ERROR], [str(f) for f in seen]
    return f"{whole}; RST_STREAM {FLOW_CONTROL_ERROR}"


@case
def a_stream_that_depends_on_itself(target):
    rude = target.connect()
    return ended(rude, flood(PriorityFrame(1, depends_on=1).serialize(), 2_000_000), [ENHANCE_YOUR_CALM])


@case
def frames_that_are_none(target):
    faults = {
        "longer than allowed": (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(20_000), [FRAME_SIZE_ERROR]),
        "a PING of three octets": (b"\x00\x00\x03\x06\x00\x00\x00\x00\x00abc", [FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        "SETTINGS of five": (b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde", [FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        "a header that is none": (b"\x00\x00\x08\x01\x04\x00\x00\x00\x01" + b"\xff" * 8, [COMPRESSION_ERROR, PROTOCOL_ERROR]),
        "DATA of no stream": (DataFrame(7, data=b"x").serialize(), [PROTOCOL_ERROR]),
        "HTTP/1.1": (b"GET / HTTP/1.1\r\n\r\n", [FRAME_SIZE_ERROR]),
    }
    told = {name: ended(target.connect(), [octets], wanted, told=True) for name, (octets, wanted) in faults.items()}
    rude = target.connect()
    told["an even stream"] = ended(rude, [rude.request(2)], [PROTOCOL_ERROR], told=True)
    # An unknown type is to be ignored (RFC 9113 clause 5.5): a request behind many is served.
    rude = target.connect()
    unknown = b"\x00\x00\x05\xee\x00\x00\x00\x00\x00hello" * 1000
    seen = rude.exchange([unknown, rude.request(1)], until=lambda frame: isinstance(frame, HeadersFrame))
    assert rude.status(seen[-1]) == str(target.served), seen[-1]
    rude.close()
    return ", ".join(f"{name}: {outcome}" for name, outcome in told.items())


@case
def no_preface_of_http_2(target):
    """What is no HTTP/2 at all behind a good handshake is not answered."""
    for octets in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000)):
        connected = target.socket()
        connected.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(OSError):
            connected.sendall(octets)
            answered = b""
            while octets := connected.recv(65536):
                answered += octets
            assert b"HTTP/1" not in answered, answered[:100]
        connected.close()
    return "ended"


def others_with_load(scene):
    """nghttp with many requests at once, and h2load without a certificate where one is needed."""
    identity, host = scene.lab.lab["nf_client"], scene.loaded.url.removeprefix("https://")
    done = subprocess.run(["h2load", "-n", "200", "-c", "4", "-m", "8", f"https://{host}/openapi.json"],
                          capture_output=True, text=True, timeout=60)
    assert " 0 succeeded" in done.stdout, done.stdout
    done = subprocess.run(["nghttp", "--no-verify-peer", "-n", "-m", "500", "--stat",
                           f"--cert={scene.lab.path(identity['cert'])}", f"--key={scene.lab.path(identity['key'])}",
                           f"https://{host}/openapi.json"], capture_output=True, text=True, timeout=120)
    statuses = [line.split()[-3] for line in done.stdout.splitlines() if line.strip().endswith("/openapi.json")]
    assert len(statuses) == 500 and set(statuses) == {"200"}, (len(statuses), set(statuses), done.stderr[-500:])
    print("held: nghttp with 500 requests at once, h2load without a certificate", flush=True)


def loaded(scene, requests):
    """h2load, through a relay where a certificate is needed and straight at the CAPIF core function, which needs none."""
    for target in scene.targets:
        if not target.load:
            continue
        before, number = begin_peak(scene.process), round(requests * target.rounds)
        h2load(target.load, number)
        peak = resident(scene.process, "VmHWM") - before
        assert peak < scene.peak_max, f"the process grew by {peak} KiB under h2load at {target.name}"
        print(f"held: h2load, {number} requests at {target.name} ({peak:+} KiB at most)", flush=True)


def attack(scene, function):
    """The same attack on every listener at once, while others ask at each of them."""
    started = time.monotonic()
    clients = [Client(target) for target in scene.targets]
    for client in clients:
        client.start()
    failures, outcomes, before = [], {}, begin_peak(scene.process)

    def at(target):
        try:
            outcomes[target.name] = function(target)
        except Exception as failure:
            failures.append(f"{target.name}: {type(failure).__name__}: {failure}")
    with ThreadPoolExecutor(len(scene.targets) + 1) as pool:
        load = pool.submit(h2load, scene.loaded.load, round(500 * scene.loaded.rounds))
        list(pool.map(at, scene.targets))
        load.result()
    served = [client.end() for client in clients]
    peak, growth = resident(scene.process, "VmHWM") - before, resident(scene.process) - before
    assert not failures, "; ".join(failures)
    assert growth < GROWTH_MAX, f"the process grew by {growth} KiB"
    assert peak < scene.peak_max, f"the process grew by {peak} KiB at its highest, and may by {scene.peak_max}"
    told = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
    print(f"held: {function.__name__} ({told}; {served} requests of others served, {max(c.longest for c in clients):.1f} s at most, "
          f"{growth:+} KiB, {peak:+} KiB at most, {time.monotonic() - started:.1f} s)", flush=True)


def main(lab_json, process, group, capif, *names):
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(lab_json, int(process), group, capif, folder)
        loaded(scene, 1_000)
        if group == "producers":
            others_with_load(scene)
        failures, at_first = 0, resident(scene.process)
        for function in case:
            if names and function.__name__ not in names:
                continue
            try:
                attack(scene, function)
            except Exception as error:
                failures += 1
                print(f"FAILED: {function.__name__}: {type(error).__name__}: {error}", flush=True)
        loaded(scene, 1_000)
        growth = resident(scene.process) - at_first
        print(f"all cases together: {growth:+} KiB", flush=True)
        scene.close()
    if growth >= GROWTH_IN_ALL_MAX:
        sys.exit(f"the process grew by {growth} KiB in all")
    if failures:
        sys.exit(f"{failures} cases failed")
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
