"""aiocoap as OSCORE server: server.py PORT DIRECTORY. Says "ready"; ends when its standard input does."""

import asyncio
import sys

import aiocoap
from aiocoap import Message, oscore, resource
from aiocoap.credentials import CredentialsMap
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper

PORT, DIRECTORY = int(sys.argv[1]), sys.argv[2]


class Hello(resource.Resource):
    async def render_get(self, request):
        return Message(payload=b"hello", content_format=0, max_age=7)

    async def render_post(self, request):
        assert request.opt.content_format == 50
        return Message(code=aiocoap.CHANGED, payload=request.payload.upper())


class Large(resource.Resource):
    async def render_get(self, request):
        return Message(payload=bytes(range(250)) * 12)

    async def render_post(self, request):
        return Message(code=aiocoap.CHANGED, payload=request.payload[::-1])


class Counter(resource.ObservableResource):
    count = 0

    async def add_observation(self, request, observation):
        await super().add_observation(request, observation)
        asyncio.get_running_loop().create_task(self.go_on())

    async def go_on(self):
        # One after the other: updates that come together are one notification.
        while self.count < 5:
            await asyncio.sleep(0.05)
            self.count += 1
            self.updated_state()

    async def render_get(self, request):
        return Message(payload=str(self.count).encode())


async def main():
    site = resource.Site()
    site.add_resource(["hello"], Hello())
    site.add_resource(["large"], Large())
    site.add_resource(["counter"], Counter())
    credentials = CredentialsMap()
    credentials[":client"] = oscore.FilesystemSecurityContext(DIRECTORY)
    context = await aiocoap.Context.create_server_context(
        OscoreSiteWrapper(site, credentials), bind=("127.0.0.1", PORT), transports=["udp6"]
    )
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await context.shutdown()


asyncio.run(main())
