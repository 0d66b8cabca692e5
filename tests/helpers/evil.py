"""What the tests of odd programs share: an interpreter of its own that has to come to its end."""

from __future__ import annotations

import os

import pytest

HELPERS = """
import gc, logging, socket, threading
if not STOCK:
    impl.install()
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
loop = impl.new_event_loop()
loop.set_exception_handler(lambda loop, context: None)

def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception:
        return None

def turns(n=3):
    for _ in range(n):
        loop.call_soon(loop.stop)
        loop.run_forever()

def stream(protocol):
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    made = loop.create_task(loop.create_connection(lambda: protocol, sock=mine))
    turns()
    return protocol.transport, theirs

class Protocol(asyncio.Protocol):
    transport = None
    def connection_made(self, transport):
        self.transport = transport

def accepted():
    '''A server's transport, whose socket object nobody has asked for yet, and its client's.'''
    protocol = Protocol()
    async def main():
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        client, _ = await loop.create_connection(Protocol, *server.sockets[0].getsockname())
        while protocol.transport is None:
            await asyncio.sleep(0)
        server.close()
        return protocol.transport, client
    return loop.run_until_complete(main())
"""

END = """
attempt(loop.close)
print("stands")
"""


@pytest.fixture
def stands(script, monkeypatch):
    """stands(body): the program comes to its end, though what is freed in it is overwritten."""
    if "PYTHONMALLOC" not in os.environ:
        monkeypatch.setenv("PYTHONMALLOC", "debug")

    def run(body):
        done = script(HELPERS, body + END, code=None)
        assert done.out.endswith("stands\n"), done.err[-2000:]

    return run
