"""What ctask's transports add to asyncio's: one context for all callbacks, TCP_NODELAY always."""

import contextvars
import socket

import pytest
from helpers.streams import MUCH, BufferedRecorder, Recorder, make_pair, receive

pytestmark = pytest.mark.ctask_only

VAR: contextvars.ContextVar = contextvars.ContextVar("VAR", default="default")


def looking(kind, seen):
    class Looker(kind):
        def note(self, name, *args):
            seen[name] = VAR.get()
            VAR.set(f"set in {name}")
            return super().note(name, *args)

    return Looker()


@pytest.mark.parametrize(
    "kind, received", [(Recorder, "data_received"), (BufferedRecorder, "buffer_updated")]
)
def test_all_callbacks_share_the_context_of_the_connection(loop, run, until, turn, kind, received):
    seen = {}
    proto = looking(kind, seen)
    ours, peer = make_pair("unix")

    async def connect():
        VAR.set("creator's")
        return await loop.create_connection(lambda: proto, sock=ours)

    transport, _ = run(connect())

    async def elsewhere(call, *args):
        VAR.set("somebody else's")
        call(*args)
        assert VAR.get() == "somebody else's"

    peer.send(b"x")
    until(lambda: proto.data)
    run(elsewhere(transport.write, MUCH))
    receive(peer, turn, len(MUCH))
    run(elsewhere(transport.close))
    until(lambda: proto.is_lost)
    peer.close()
    assert seen == {
        "connection_made": "creator's",
        received: "set in connection_made",
        "pause_writing": f"set in {received}",
        "resume_writing": "set in pause_writing",
        "connection_lost": "set in resume_writing",
    }
    assert VAR.get() == "default"


def test_write_from_within_a_callback_pauses_in_the_same_context(link, until, turn):
    seen = {}
    proto = looking(Recorder, seen)
    proto.on("data_received", lambda p, data: p.transport.write(MUCH))
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: "pause_writing" in seen)
    assert seen["pause_writing"] == "set in data_received"
    receive(peer, turn, len(MUCH))
    until(lambda: "resume_writing" in seen)


def test_no_delay_for_a_socket_made_without_its_protocols_number(loop, run, settle):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        assert ours.proto == 0
        ours.connect(listener.getsockname())
        transport, _ = run(loop.create_connection(Recorder, sock=ours))
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        transport.close()
        settle()
