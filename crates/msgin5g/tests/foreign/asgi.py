"""What every application under ASGI does before it looks at a request."""


async def lifespan(receive, send):
    """Says that it has started, and that it has stopped."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def body_of(receive):
    """The whole body of a request. One whose sender went away in the middle has none."""
    body = b""
    while True:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise ConnectionResetError("the request was taken back")
        body += part.get("body", b"")
        if not part.get("more_body"):
            return body
