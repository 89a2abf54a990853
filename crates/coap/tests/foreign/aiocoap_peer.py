"""aiocoap as the peer of our datagram machine, in both roles on one socket pair.

    aiocoap_peer.py serve PORT      resources echo, large, slow, counter, tell; runs until killed
    aiocoap_peer.py ask PORT        asks our machine at PORT for the same, and serves it on the same socket

Prints one line for what was shown, and ends well only if all of it held.
"""

import asyncio
import sys

import aiocoap
from aiocoap import resource
from aiocoap.numbers.codes import Code


def body(octets):
    return bytes((place * 7 + place // 251) & 0xFF for place in range(octets))


class Echo(resource.Resource):
    """Gives back what it gets."""

    asked = 0

    async def render_post(self, request):
        Echo.asked += 1
        return aiocoap.Message(code=Code.CHANGED, payload=request.payload, content_format=request.opt.content_format)


class Large(resource.Resource):
    async def render_get(self, request):
        return aiocoap.Message(payload=body(5000))


class Slow(resource.Resource):
    async def render_get(self, request):
        await asyncio.sleep(3)
        return aiocoap.Message(payload=b"at last")


class Counter(resource.ObservableResource):
    """A number that grows twice a second."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.task = None

    def update_observation_count(self, count):
        if count and self.task is None:
            self.task = asyncio.create_task(self.grow())

    async def grow(self):
        while True:
            await asyncio.sleep(0.5)
            self.number += 1
            self.updated_state()

    async def render_get(self, request):
        # Larger than a block: what observes fetches the rest.
        return aiocoap.Message(payload=str(self.number).zfill(2000).encode())


def site():
    root = resource.Site()
    root.add_resource(["echo"], Echo())
    root.add_resource(["large"], Large())
    root.add_resource(["slow"], Slow())
    root.add_resource(["counter"], Counter())
    return root


async def serve(port):
    await aiocoap.Context.create_server_context(site(), bind=("127.0.0.1", port), transports=["udp6"])
    print("listening", flush=True)
    await asyncio.get_running_loop().create_future()


async def ask(port):
    # A server context asks from the port that it serves on, so both directions go over one pair of addresses.
    context = await aiocoap.Context.create_server_context(site(), bind=("127.0.0.1", 0), transports=["udp6"])
    uri = f"coap://127.0.0.1:{port}"

    async def request(code, path, **more):
        return await context.request(aiocoap.Message(code=code, uri=f"{uri}/{path}", **more)).response

    for octets in [0, 10, 1024, 1025, 5000]:
        answer = await request(Code.POST, "echo", payload=body(octets), content_format=42)
        assert answer.code == Code.CHANGED and answer.payload == body(octets), (octets, answer)
        assert answer.opt.content_format == 42
    answer = await request(Code.GET, "large")
    assert answer.code == Code.CONTENT and answer.payload == body(5000), answer
    answer = await request(Code.GET, "slow")
    assert answer.payload == b"at last", answer
    answer = await request(Code.GET, "nowhere")
    assert answer.code == Code.NOT_FOUND, answer

    observing = context.request(aiocoap.Message(code=Code.GET, uri=f"{uri}/counter", observe=0))
    last = int((await observing.response).payload)
    seen = 0
    async for notification in observing.observation:
        number = int(notification.payload)
        assert number > last and len(notification.payload) == 2000, (number, last)
        last = number
        seen += 1
        if seen == 3:
            break
    observing.observation.cancel()
    # Our machine asks in turn, and says how that went.
    answer = await request(Code.POST, "tell")
    assert answer.payload == b"all answered", answer
    assert Echo.asked == 3, Echo.asked
    print("all held")
    await context.shutdown()


if __name__ == "__main__":
    role, port = sys.argv[1], int(sys.argv[2])
    asyncio.run({"serve": serve, "ask": ask}[role](port))
