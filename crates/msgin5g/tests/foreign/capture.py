"""Records MSGin5G-1 on its way through a relay, over each transport, and has tshark decode it with the keys.

    capture.py LAB_JSON KEY_LOG DIRECTORY PROGRAM

The server writes the key log of TLS and DTLS; of HTTPS, which has certificates, curl does; what OSCORE derives a UE has.
"""

import asyncio
import os
import subprocess
import sys
import uuid

import aiocoap
import oscore_ue
import websocket
from concurrent.futures import ThreadPoolExecutor
from datagrams import SUITES, Datagrams
from https_ue import HttpsUe
from oscore_ue import Device
from recording import DatagramRelay, Relay, decoded, file, told, values, walk, well_formed
from service import deliver
from ue import Connection, Network, Ue, subscribers

PAYLOAD = b"seen by tshark" * 30


class Scene:
    def __init__(self, lab_json, key_log, directory, program):
        self.lab_json, self.key_log, self.directory, self.program = lab_json, key_log, directory, program
        self.network = Network(lab_json)
        self.alice, self.bob = (Ue(self.network, s).authenticate() for s in subscribers(self.network, 2))

    def recorder(self, kind, member):
        """In the place of the server, as lab.json has it."""
        server = self.network.lab["server"]
        recorder = kind(server[member])
        server[member] = recorder.address
        return recorder


def exchange(sender, receiver):
    """Registration, a message, and the way back: 0.02, 2.01, 2.04, 2.02."""
    for connection in (sender, receiver):
        assert connection.register()[0] == "2.01"
    code, answer = deliver(sender, receiver, receiver.ue, str(uuid.uuid4()), PAYLOAD)
    assert code == "2.04", answer
    for connection in (sender, receiver):
        assert connection.request(msgType="DEREG", ueSvcId=connection.ue.service_id)[0] == "2.02"
        connection.close()


def tls(scene):
    recorder = scene.recorder(Relay, "coaps_tcp")
    for client in ("openssl tls1.3", "openssl tls1.2 ecdhe-psk"):
        exchange(Connection(scene.alice, client), Connection(scene.bob, client))
    port = recorder.port
    frames = decoded(recorder, file(scene.directory, "tls"), "coap", "-o", f"tls.keylog_file:{scene.key_log}",
                     "-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},coap")
    told("TLS", frames, well_formed(frames))


def over_websocket(scene):
    recorder = scene.recorder(Relay, "coaps_ws")
    for client in (websocket.TLS_1_3, websocket.TLS_1_2):
        exchange(websocket.WebSocket(scene.alice, client), websocket.WebSocket(scene.bob, client))
    port = recorder.port
    frames = decoded(recorder, file(scene.directory, "websocket"), "websocket || http",
                     "-o", f"tls.keylog_file:{scene.key_log}", "-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},http")
    openings = [frame for frame in frames if not any(name == "websocket" for name, _ in walk(frame))]
    codes = well_formed([frame for frame in frames if frame not in openings])
    assert not values(openings, "_ws.malformed")
    for name, value in (("http.request.uri", "/.well-known/coap"), ("http.response.code", "101"),
                        ("http.sec_websocket_protocol", "coap")):
        assert set(values(openings, name)) == {value}, (name, values(openings, name))
    told("WebSocket", frames, codes)


def dtls_1_2(scene):
    recorder = scene.recorder(DatagramRelay, "coaps")
    for suite in SUITES:
        exchange(Datagrams(scene.alice, suite), Datagrams(scene.bob, suite))
    port = recorder.port
    # CoAP over DTLS has no CSM. tshark 4.0 cannot decrypt ECDHE_PSK with these AEADs, and sees of that suite the form only.
    frames = decoded(recorder, file(scene.directory, "dtls-1.2"), "coap", "-o", f"tls.keylog_file:{scene.key_log}",
                     "-d", f"udp.port=={port},dtls", "-d", f"dtls.port=={port},coap")
    told("DTLS 1.2", frames, well_formed(frames, (0x02, 0x41, 0x44, 0x42)))


def dtls_1_3(scene):
    """Of our own client, with Connection IDs: tshark 4.0 knows the hellos of DTLS 1.3 and takes the rest as data."""
    recorder = scene.recorder(DatagramRelay, "coaps")
    profile = scene.directory + "/dtls.toml"
    run = lambda *arguments: subprocess.run([scene.program, *arguments], check=True, capture_output=True, text=True).stdout
    run("client", "profile", "--lab", scene.lab_json, "--subscriber", "3", "--transport", "udp", "--out", profile)
    with open(profile) as opened:
        text = opened.read()
    real = "127.0.0.1:%d" % recorder.port
    assert real in text
    with open(profile, "w") as opened:
        opened.write(text.replace(real, recorder.address))
    assert "DTLS 1.3" in run("--json", "client", "register", "--profile", profile)
    port = recorder.port
    frames = decoded(recorder, file(scene.directory, "dtls-1.3"), "dtls", "-d", f"udp.port=={port},dtls")
    assert not values(frames, "_ws.malformed") and not values(frames, "_ws.expert.message"), "malformed"
    hellos = {int(value) for value in values(frames, "dtls.handshake.type")}
    assert {1, 2} <= hellos, hellos
    extensions = {int(value) for value in values(frames, "dtls.handshake.extension.type") + values(frames, "tls.handshake.extension.type")}
    # pre_shared_key, supported_versions, key_share, connection_id
    assert {41, 43, 51, 54} <= extensions, extensions
    with open(scene.key_log) as log:
        assert "SERVER_TRAFFIC_SECRET_0" in log.read()
    print(f"decoded: DTLS 1.3: {len(frames)} frames, hellos {sorted(hellos)}", flush=True)


def oscore(scene):
    recorder = scene.recorder(DatagramRelay, "coap")
    contexts = asyncio.run(oscore_exchange(scene))
    settings = []
    for found in contexts:
        # Whoever asks is the sender to tshark: requests go both ways.
        ids = (found["sender-id_hex"], found["recipient-id_hex"])
        for sender, recipient in (ids, ids[::-1]):
            row = [sender, recipient, found["secret_hex"], found["salt_hex"], "", "AES-CCM-16-64-128 (CCM*)"]
            settings += ["-o", "uat:oscore_contexts:" + ",".join(f'"{each}"' for each in row)]
    port = recorder.port
    frames = decoded(recorder, file(scene.directory, "oscore"), "coap", "-d", f"udp.port=={port},coap", *settings)
    protected = [frame for frame in frames if any(name == "oscore" for name, _ in walk(frame))]
    outer = well_formed(frames, (0x02, 0x81, 0x41, 0x44))
    inner = {int(value) for value in values(protected, "oscore.code") + values(protected, "oscore.code_")}
    assert {0x02, 0x41, 0x44, 0x42} <= inner, (sorted(inner), sorted({n for f in protected for n, _ in walk(f)}))
    told("OSCORE", protected, inner | outer)


async def oscore_exchange(scene):
    """The same by aiocoap, with a message that goes in blocks; what each UE's context is made of."""
    devices = [await Device(ue, "coap").open() for ue in (scene.alice, scene.bob)]
    for number, device in enumerate(devices):
        # tshark tells contexts apart by the ID alone.
        oscore_ue.AF_SID = bytes([0x0A + number])
        assert await device.agree() == aiocoap.CREATED
        await device.register()
    sender, receiver = devices
    sending = asyncio.create_task(sender.request(
        msgType="MSG", oriAddr=sender.ue.address(), destAddr=receiver.ue.address(), msgId=str(uuid.uuid4()),
        payload="c2VlbiBieSB0c2hhcms" * 100))
    await receiver.receive()
    code, answer = await sending
    assert code == aiocoap.CHANGED, (code, answer)
    for device in devices:
        code, _ = await device.request(msgType="DEREG", ueSvcId=device.ue.service_id)
        assert code == aiocoap.DELETED
        await device.close()
    return [device.settings for device in devices]


def https(scene):
    keys = scene.directory + "/curl-keys.log"
    os.environ["SSLKEYLOGFILE"] = keys
    server = scene.network.lab["server"]
    recorder = Relay(server["https"].removeprefix("https://"))
    root = f"https://{recorder.address}"
    sender, receiver = HttpsUe(scene.alice, root), HttpsUe(scene.bob, root)
    for device in (sender, receiver):
        assert device.curl_post("--http1.1", **device.register())[0] == 201
    with ThreadPoolExecutor(1) as pool:
        body = sender.message(scene.bob.address(), PAYLOAD, str(uuid.uuid4()))
        sending = pool.submit(sender.curl, sender.path, "--http1.1", body=body)
        while not (events := receiver.poll()):
            pass
        [(event, message)] = events
        assert receiver.acknowledge(event, message)[0] in (200, 204)
        assert sending.result()[0] == 200
    for device in (sender, receiver):
        assert device.curl_post("--http2", msgType="DEREG", ueSvcId=device.ue.service_id)[0] == 200
    port = recorder.port
    frames = decoded(recorder, file(scene.directory, "https"), "http || http2", "-o", f"tls.keylog_file:{keys}",
                     "-d", f"tcp.port=={port},tls")
    assert not values(frames, "_ws.malformed"), "malformed"
    statuses = set(values(frames, "http.response.code")) | set(values(frames, "http2.headers.status"))
    assert {"401", "201", "200"} <= statuses, statuses
    digests = [value for value in values(frames, "http.authorization") if value.startswith("Digest ")]
    assert digests and all("SHA-256" in value for value in digests), digests
    print(f"decoded: HTTPS: {len(frames)} frames, statuses {sorted(statuses)}", flush=True)


def main(*arguments):
    for transport in (tls, over_websocket, dtls_1_2, dtls_1_3, oscore, https):
        transport(Scene(*arguments))
    print("all held", flush=True)
    # aiocoap writes its contexts once more when it is torn down, into folders that are gone.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
