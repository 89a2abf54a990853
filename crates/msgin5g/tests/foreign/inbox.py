"""Where an application server of httpx and hypercorn is told: HTTP/2 with mutual TLS, whatever is posted is taken."""

import asyncio
import json
import queue
import socket
import ssl
import threading
import time

from asgi import body_of, lifespan
from hypercorn.asyncio import serve
from hypercorn.config import Config


class Inbox:
    def __init__(self, lab, peer):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url, self.received = f"https://127.0.0.1:{self.port}", queue.Queue()
        config = Config()
        config.bind, config.alpn_protocols, config.errorlog = [f"127.0.0.1:{self.port}"], ["h2"], None
        config.certfile, config.keyfile = str(peer.cert), str(peer.key)
        config.ca_certs, config.verify_mode = str(lab.path(lab.lab["ca"])), ssl.CERT_REQUIRED
        threading.Thread(target=self.run, args=(config,), daemon=True).start()
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("hypercorn does not listen")

    def run(self, config):
        asyncio.run(serve(self.take, config, shutdown_trigger=asyncio.Event().wait))

    async def take(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        body = await body_of(receive)
        self.received.put((scope["http_version"], scope["path"], json.loads(body)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def next(self, path):
        """The next thing that was posted, which has to be at `path`."""
        version, at, body = self.received.get(timeout=30)
        assert version == "2", version
        assert at == path, (at, body)
        return body
