"""aiocoap over tinydtls (DTLSSocket) as a client: one request to PORT under KEY, and what comes of it in a line."""

import asyncio
import sys

import aiocoap


async def main(port, identity, key):
    context = await aiocoap.Context.create_client_context(transports=["tinydtls"])
    uri = f"coaps://127.0.0.1:{port}"
    credentials = {"psk": bytes.fromhex(key), "client-identity": identity.encode()}
    context.client_credentials.load_from_dict({f"{uri}/*": {"dtls": credentials}})
    request = aiocoap.Message(code=aiocoap.POST, uri=f"{uri}/readings", payload=b"from aiocoap")
    try:
        answer = await context.request(request).response
        print("answered", answer.code.dotted, answer.payload.decode(), flush=True)
    except aiocoap.error.Error as error:
        cause = error.__cause__
        print("failed", type(error).__name__, type(cause).__name__, *getattr(cause, "args", ()), flush=True)
    await context.shutdown()


asyncio.run(main(*sys.argv[1:]))
