"""UEs of aiocoap: they agree on a context with /akma, then register, send, receive and report under OSCORE, over UDP and
TCP; and what is refused is refused. Everything comes from lab.json and docs/reference/oscore.md."""

import asyncio
import base64
import json
import os
import socket
import sys
import tempfile
import uuid
from pathlib import Path

import aiocoap
import cbor2
from aiocoap import Message, oscore, resource
from aiocoap.credentials import CredentialsMap
from aiocoap.numbers.types import Type
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ue import Network, Ue, subscribers

UA_PROTOCOL = bytes.fromhex("ff00000008")
AF_SID = b"\x0a"
PATIENCE_SECONDS = 60


def settings(k_af, request, answer):
    """The context of an exchange, as aiocoap reads it."""
    _, ue_sid = cbor2.loads(answer)
    secret = HKDF(hashes.SHA256(), 32, None, b"AKMA-OSCORE").derive(k_af)
    return {
        "sender-id_hex": ue_sid.hex(),
        "recipient-id_hex": AF_SID.hex(),
        "secret_hex": secret.hex(),
        "salt_hex": (request + answer).hex(),
    }


def akma_payload(a_kid):
    return cbor2.dumps([UA_PROTOCOL, a_kid, os.urandom(16), AF_SID])


class Inbox(resource.Resource):
    """The resource that the server posts to."""

    def __init__(self):
        super().__init__()
        self.messages = asyncio.Queue()

    async def render_post(self, request):
        assert request.opt.content_format == 50
        await self.messages.put(json.loads(request.payload))
        return Message(code=aiocoap.CHANGED)


class Device:
    """A UE on a socket of its own, which is client and server at once."""

    def __init__(self, ue, scheme):
        server = ue.network.lab["server"]
        where = {"coap": server["coap"], "coap+tcp": server["coap_tcp"]}[scheme]
        self.ue, self.path, self.base, self.scheme = ue, server["path"], f"{scheme}://{where}", scheme
        self.directory = tempfile.TemporaryDirectory()

    async def open(self):
        self.inbox, site, self.credentials = Inbox(), resource.Site(), CredentialsMap()
        site.add_resource(self.path.split("/"), self.inbox)
        site = OscoreSiteWrapper(site, self.credentials)
        if self.scheme == "coap":
            self.context = await aiocoap.Context.create_server_context(
                site, bind=("127.0.0.1", 0), transports=["oscore", "udp6"])
        else:
            self.context = await aiocoap.Context.create_client_context(transports=["oscore", "tcpclient"])
            self.context.serversite = site
        return self

    async def ask(self, message):
        return await asyncio.wait_for(self.context.request(message).response, PATIENCE_SECONDS)

    async def agree(self, a_kid=None):
        """The code of the answer to /akma; after 2.01 everything is protected."""
        request = akma_payload(a_kid or self.ue.a_kid)
        message = Message(code=aiocoap.POST, uri=f"{self.base}/akma", payload=request, content_format=60)
        response = await self.ask(message)
        if self.scheme == "coap" and response.code == aiocoap.UNAUTHORIZED and response.opt.echo is not None:
            message = Message(code=aiocoap.POST, uri=f"{self.base}/akma", payload=request, content_format=60)
            message.opt.echo = response.opt.echo
            response = await self.ask(message)
        if response.code == aiocoap.CREATED:
            found = self.settings = settings(self.ue.k_af(UA_PROTOCOL), request, response.payload)
            (Path(self.directory.name) / "secret.json").write_text(json.dumps(found))
            self.security = oscore.FilesystemSecurityContext(self.directory.name)
            self.context.client_credentials[f"{self.base}/*"] = self.security
            self.credentials[":server"] = self.security
        return response.code

    async def request(self, **members):
        message = Message(code=aiocoap.POST, uri=f"{self.base}/{self.path}", payload=json.dumps(members).encode(),
                          content_format=50)
        response = await self.ask(message)
        return response.code, json.loads(response.payload) if response.payload else None

    async def register(self):
        code, answer = await self.request(msgType="REG", ueSvcId=self.ue.service_id)
        assert code == aiocoap.CREATED, (code, answer)

    async def receive(self):
        return await asyncio.wait_for(self.inbox.messages.get(), PATIENCE_SECONDS)

    async def close(self):
        await self.context.shutdown()


async def service(network, scheme):
    """A message and its report between two UEs."""
    alice, bob = [await Device(Ue(network, s).authenticate(), scheme).open() for s in subscribers(network, 2)]
    for device in (alice, bob):
        code = await device.agree()
        assert code == aiocoap.CREATED, code
        await device.register()
    # The larger ones go in blocks over UDP, each protected for itself, up and down.
    for octets in (40, 400, 2048):
        message_id, payload = str(uuid.uuid4()), os.urandom(octets)
        sending = asyncio.create_task(alice.request(
            msgType="MSG", oriAddr=alice.ue.address(), destAddr=bob.ue.address(), msgId=message_id,
            delivStReqInd=True, payload=base64.b64encode(payload).decode()))
        message = await bob.receive()
        assert message["msgId"] == message_id and base64.b64decode(message["payload"]) == payload, message
        code, answer = await asyncio.wait_for(sending, PATIENCE_SECONDS)
        assert code == aiocoap.CHANGED and "status" not in answer, (code, answer)
        code, answer = await bob.request(
            msgType="IMDN", oriAddr=bob.ue.address(), destAddr=alice.ue.address(), msgId=message_id,
            delivSt="REPT_DELY_SUCCESS")
        assert code == aiocoap.CHANGED, (code, answer)
        report = await alice.receive()
        assert report["msgType"] == "IMDN" and report["msgId"] == message_id, report
    # One octet more than a segment may have.
    code, answer = await alice.request(
        msgType="MSG", oriAddr=alice.ue.address(), destAddr=bob.ue.address(), msgId=str(uuid.uuid4()),
        payload=base64.b64encode(bytes(2049)).decode())
    assert code == aiocoap.REQUEST_ENTITY_TOO_LARGE, (code, answer)
    # Nobody speaks for another, whatever protects it.
    code, answer = await alice.request(
        msgType="MSG", oriAddr=bob.ue.address(), destAddr=alice.ue.address(), msgId=str(uuid.uuid4()), payload="")
    assert code == aiocoap.FORBIDDEN, (code, answer)
    for device in (alice, bob):
        code, answer = await device.request(msgType="DEREG", ueSvcId=device.ue.service_id)
        assert code == aiocoap.DELETED, (code, answer)
        await device.close()
    print(f"served: {scheme}")


class Raw:
    """A UE by hand, on UDP: what goes out and comes in is seen as it is."""

    def __init__(self, network, ue):
        host, _, port = network.lab["server"]["coap"].rpartition(":")
        self.ue, self.mid = ue, 1
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, int(port)))
        self.socket.settimeout(PATIENCE_SECONDS)
        self.directory = tempfile.TemporaryDirectory()

    def datagram(self, message):
        message.mtype, message.mid, message.token = Type.CON, self.mid, b"\x01"
        self.mid += 1
        return message.encode()

    def say(self, datagram):
        self.socket.send(datagram)
        return self.heard(), len(datagram)

    def heard(self):
        octets = self.socket.recv(2048)
        answer = Message.decode(octets)
        answer.octets = len(octets)
        return answer

    def agree(self, *, a_kid=None, k_af=None):
        payload = akma_payload(a_kid or self.ue.a_kid)

        def request():
            message = Message(code=aiocoap.POST, payload=payload, content_format=60)
            message.opt.uri_path = ["akma"]
            return message
        challenge, asked = self.say(self.datagram(request()))
        assert challenge.code == aiocoap.UNAUTHORIZED and challenge.opt.echo, challenge
        assert challenge.octets < asked, "more comes back than was sent, and nobody knows to whom"
        message = request()
        message.opt.echo = challenge.opt.echo
        answer, _ = self.say(self.datagram(message))
        if answer.code == aiocoap.CREATED:
            found = settings(k_af or self.ue.k_af(UA_PROTOCOL), payload, answer.payload)
            (Path(self.directory.name) / "secret.json").write_text(json.dumps(found))
            self.security = oscore.FilesystemSecurityContext(self.directory.name)
        return answer.code

    def protected(self, **members):
        message = Message(code=aiocoap.POST, payload=json.dumps(members).encode(), content_format=50)
        message.opt.uri_path = self.ue.network.lab["server"]["path"].split("/")
        outer, self.request_id = self.security.protect(message)
        return self.datagram(outer)

    def opened(self, answer):
        return self.security.unprotect(answer, self.request_id)[0]


def altered(datagram, place):
    octets = bytearray(datagram)
    octets[place] ^= 1
    return bytes(octets)


def refusals(network):
    known = subscribers(network, 2)
    ue = Ue(network, known[0]).authenticate()

    stranger = Raw(network, ue)
    assert stranger.agree(a_kid=f"0.{'00' * 32}@5gc.{network.domain}") == aiocoap.UNAUTHORIZED
    plain = Message(code=aiocoap.POST, payload=json.dumps({"msgType": "REG", "ueSvcId": ue.service_id}).encode(),
                    content_format=50)
    plain.opt.uri_path = [network.lab["server"]["path"]]
    answer, _ = stranger.say(stranger.datagram(plain))
    assert answer.code == aiocoap.UNAUTHORIZED and not answer.payload, answer
    print("refused: unknown A-KID, no protection")

    impostor = Raw(network, ue)
    assert impostor.agree(k_af=bytes(32)) == aiocoap.CREATED, "anybody may ask, which proves nothing"
    answer, _ = impostor.say(impostor.protected(msgType="REG", ueSvcId=ue.service_id))
    assert answer.code == aiocoap.BAD_REQUEST and answer.opt.oscore is None, answer
    print("refused: another key")

    device = Raw(network, ue)
    assert device.agree() == aiocoap.CREATED
    registration = device.protected(msgType="REG", ueSvcId=ue.service_id)
    for place in (-1, -9, len(registration) // 2):
        answer, _ = device.say(altered(registration, place))
        assert answer.code in (aiocoap.BAD_REQUEST, aiocoap.UNAUTHORIZED, aiocoap.BAD_OPTION), answer
        assert answer.opt.oscore is None, "nothing vouches for a refusal"
    answer, _ = device.say(registration)
    assert device.opened(answer).code == aiocoap.CREATED, "the forgeries took nothing of it"
    print("refused: an altered octet")

    copy, _ = device.say(registration)
    assert copy.payload == answer.payload, "a copy gets the answer as it was"
    replay = bytearray(registration)
    replay[2:4] = (0x7FFF).to_bytes(2, "big")
    answer, _ = device.say(bytes(replay))
    assert answer.code == aiocoap.UNAUTHORIZED and answer.payload == b"Replay detected", answer
    print("refused: a replay")

    # Another subscriber's name, under keys of this one.
    other = known[1]["ue_service_id"]
    thief = Raw(network, ue)
    assert thief.agree() == aiocoap.CREATED
    answer, _ = thief.say(thief.protected(msgType="REG", ueSvcId=other))
    assert thief.opened(answer).code == aiocoap.FORBIDDEN, answer
    print("refused: another's UE Service ID")


async def main():
    network = Network(sys.argv[1])
    for scheme in ("coap", "coap+tcp"):
        await service(network, scheme)
    await asyncio.to_thread(refusals, network)
    print("all held", flush=True)
    # aiocoap writes its contexts once more when it is torn down, into folders that are gone.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
