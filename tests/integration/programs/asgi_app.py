"""An ASGI application without a framework: each path is one thing that a server has to do."""

import asyncio
import hashlib
import json
import os

import which

CHUNK = bytes(range(256)) * 256  # 64 KiB
progress = {"sent": 0, "cancelled": 0}
disconnected: asyncio.Event


async def app(scope, receive, send):
    await {"lifespan": lifespan, "http": http, "websocket": websocket}[scope["type"]](
        scope, receive, send
    )


async def lifespan(scope, receive, send):
    global disconnected
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            disconnected = asyncio.Event()
            print(f"lifespan: {which.loop()}", flush=True)
            await send({"type": "lifespan.startup.complete"})
        else:
            print("lifespan: shutdown", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def http(scope, receive, send):
    handler = PATHS.get(scope["path"])
    if handler is None:
        await respond(send, b"no such path", status=404)
    else:
        await handler(scope, receive, send)


async def respond(send, body, status=200):
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    await respond(send, b"hello")


async def about(scope, receive, send):
    task = type(asyncio.current_task())
    answer = {
        "loop": which.loop(),
        "task": f"{task.__module__}.{task.__qualname__}",
        "pid": os.getpid(),
        **progress,
    }
    await respond(send, json.dumps(answer).encode())


async def digest(scope, receive, send):
    """The size and hash of the request's body."""
    size, hashed, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        size += len(message["body"])
        hashed.update(message["body"])
        more = message.get("more_body", False)
    await respond(send, f"{size} {hashed.hexdigest()}".encode())


async def stream(scope, receive, send):
    """As many chunks as the query says, counted as they are accepted."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        progress["sent"] += 1
    await send({"type": "http.response.body", "body": b""})


async def hang(scope, receive, send):
    """No answer, until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    disconnected.set()


async def gone(scope, receive, send):
    """An answer when a client of `hang` has gone."""
    await disconnected.wait()
    await respond(send, b"gone")


async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "which":
            await send({"type": "websocket.send", "text": which.loop()})
        else:
            echo = {key: message.get(key) for key in ("text", "bytes")}
            await send({"type": "websocket.send", **echo})
    print(f"websocket: closed with {message['code']}", flush=True)


PATHS = {
    "/": hello,
    "/about": about,
    "/digest": digest,
    "/stream": stream,
    "/hang": hang,
    "/gone": gone,
}
