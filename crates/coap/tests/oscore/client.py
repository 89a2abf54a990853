"""aiocoap as OSCORE client: client.py MODE BASE DIRECTORY. BASE is scheme and authority of the server's URI; the directory
holds a security context, or K_AF."""

import asyncio
import json
import os
import sys
from pathlib import Path

import aiocoap
import cbor2
from aiocoap import Message, error, oscore
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MODE, BASE, DIRECTORY = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def post(path, payload=b""):
    return Message(code=aiocoap.POST, uri=f"{BASE}/{path}", payload=payload)


async def ask(context, message):
    return await asyncio.wait_for(context.request(message).response, 60)


def use(context):
    context.client_credentials[f"{BASE}/*"] = oscore.FilesystemSecurityContext(str(DIRECTORY))


async def exchanges(context):
    use(context)
    request = post("msgin5g", b'{"msgType":"REG"}')
    request.opt.content_format = 50
    response = await ask(context, request)
    assert response.code == aiocoap.CHANGED, response.code
    assert response.payload == b'POST msgin5g {"msgType":"REG"}', response.payload
    response = await ask(context, Message(code=aiocoap.GET, uri=f"{BASE}/hello?a=1"))
    assert response.code == aiocoap.CONTENT and response.payload == b"GET hello ", response.payload
    assert response.opt.content_format == 0 and response.opt.max_age == 5
    # In blocks, which aiocoap protects one by one.
    response = await ask(context, post("large", bytes(range(250)) * 12))
    assert response.code == aiocoap.CHANGED and response.payload == b"3000", response
    response = await ask(context, post("nowhere"))
    assert response.code == aiocoap.NOT_FOUND and response.payload == b"UNKNOWN_TARGET", response


async def blocks(context):
    """Both the request and its answer in blocks, each protected for itself."""
    use(context)
    body = bytes(range(250)) * 12
    for times in (1, 2):
        response = await ask(context, post("large", body * times))
        assert response.code == aiocoap.CHANGED and response.payload == body * times, response
    response = await ask(context, post("large", bytes(70000)))
    assert response.code == aiocoap.REQUEST_ENTITY_TOO_LARGE and response.opt.size1 == 66560, response


async def observe(context):
    use(context)
    request = context.request(Message(code=aiocoap.GET, uri=f"{BASE}/time", observe=0))
    heard = [(await asyncio.wait_for(request.response, 60)).payload]
    # aiocoap keeps the newest only, when several come before it is asked for them.
    async for notification in request.observation:
        heard.append(notification.payload)
        if heard[-1] == b"3":
            break
    assert heard[0] == b"1" and heard == sorted(heard), heard


async def refused(context):
    use(context)
    try:
        response = await ask(context, post("msgin5g"))
    except oscore.NotAProtectedMessage as refusal:
        response = refusal.plain_message
    expected = (DIRECTORY / "expected").read_text()
    assert f"{response.code.dotted} {response.payload.decode()}" == expected, (response, response.payload)
    assert response.opt.max_age == 0


async def akma(context):
    """The exchange as docs/reference/oscore.md has it, by somebody who has read nothing else."""
    k_af = bytes.fromhex((DIRECTORY / "k_af").read_text())
    request = cbor2.dumps([bytes.fromhex("ff00000008"), "0.a4763ff6@5gc.mnc001.mcc001.3gppnetwork.org", os.urandom(16), b"\x0a"])
    message = post("akma", request)
    message.opt.content_format = 60
    response = await ask(context, message)
    assert response.code == aiocoap.CREATED and response.opt.content_format == 60, response
    n2, ue_sid = cbor2.loads(response.payload)
    secret = HKDF(hashes.SHA256(), 32, None, b"AKMA-OSCORE").derive(k_af)
    settings = {
        "sender-id_hex": ue_sid.hex(),
        "recipient-id_hex": "0a",
        "secret_hex": secret.hex(),
        "salt_hex": (request + response.payload).hex(),
    }
    (DIRECTORY / "secret.json").write_text(json.dumps(settings))
    use(context)
    response = await ask(context, post("msgin5g", b"keyed by AKMA"))
    assert response.payload == b"POST msgin5g keyed by AKMA", response


async def main():
    context = await aiocoap.Context.create_client_context(transports=["oscore", "udp6", "tcpclient"])
    try:
        await globals()[MODE](context)
    finally:
        await context.shutdown()
    print("all held")


asyncio.run(main())
