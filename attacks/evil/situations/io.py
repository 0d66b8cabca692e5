"""Transports, servers and sockets at the places that `connections.py` does not come to."""

# mypy: ignore-errors
# (Attributes that types do not know are what this is about.)

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import os
import resource
import socket
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import ctask

from ..connections import File, Key, Peer, do, empty, fill, serving, sockets, stream, tell
from ..objects import World
from .tools import acting, collecting, failing, patched, turns


def ignored(*args: Any) -> None:
    pass


def handler(world: World, transport: Callable[[], Any] = lambda: None) -> None:
    """What is reported takes evil along, and the connection ends meanwhile."""

    def handle(loop: Any, context: Any) -> None:
        context["evil"] = world.Last()
        error = context.get("exception")
        if error is not None:
            error.evil = world.Last()
        tell(world, transport(), "close")
        world.act()

    with world.quietly():
        world.loop.set_exception_handler(handle)


def connected() -> tuple[Any, Any]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mine = socket.socket()
        mine.connect(listening.getsockname())
        theirs, _ = listening.accept()
    mine.setblocking(False)
    return mine, theirs


def read_fails(world: World) -> None:
    """A pipe for reading that is a socket, which is reset; a terminal whose other side is gone."""
    for end in (True, False):
        mine, theirs = connected()
        file = File(world, mine.detach())
        made = do(world, world.loop._make_read_pipe_transport, file, Peer(world))
        handler(world, lambda made=made, end=end: made if end else None)
        turns(world, 2)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        turns(world)
        del file, made
    ours, other = os.openpty()
    do(world, world.loop._make_read_pipe_transport, File(world, ours), Peer(world))
    turns(world, 2)
    os.close(other)
    turns(world)


def out_of_descriptors(world: World) -> None:
    handler(world)
    listening, client = serving(world)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = asyncio.trsock.TransportSocket
    kind = type("Shown", (shown,), {"__init__": acting(world, shown.__init__)})
    with patched(shown, "__init__", acting(world, shown.__init__)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            turns(world)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    del kind
    tell(world, world.loop, "_remove_reader", listening)
    client.close()
    turns(world)


def waits_of_closed_sockets(world: World) -> None:
    """The future of an operation is evil, and the socket is closed as it is made."""
    for name, args in (("recv", (5,)), ("accept", ()), ("sendall", (b"x" * 9_000_000,))):
        mine, theirs = sockets()
        if name == "accept":
            mine = socket.create_server(("127.0.0.1", 0))
            mine.setblocking(False)

        class Future(asyncio.Future):
            def __del__(self) -> None:
                world.act()

        def create(mine: Any = mine, kind: Any = Future) -> Any:
            mine.close()
            return kind(loop=world.loop)

        with patched(world.loop, "create_future", create):
            tell(world, tell(world, world.loop, f"sock_{name}", mine, *args), "send", None)
        theirs.close()


def collections(world: World) -> None:
    """Where C makes tuples and dictionaries a collection may come (3.11)."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as one, world.quietly():
            one.bind((host, 0))
            one.setblocking(False)

            def receive(one: Any = one) -> Callable[[], Any]:
                one.sendto(b"evil", one.getsockname()[:2])
                return partial(world.loop.sock_recvfrom(one, 5).send, None)

            collecting(world, receive)
            free = socket.socket(family)
            free.bind((host, 0))
            address = free.getsockname()[:2]
            free.close()

            def refused(family: int = family, address: Any = address) -> Callable[[], Any]:
                sock = socket.socket(family)
                sock.setblocking(False)
                coroutine = world.loop.sock_connect(sock, address)
                coroutine.send(None)
                turns(world, 1)
                return partial(coroutine.send, None)

            collecting(world, refused)

    def made(**more: Any) -> Callable[[], Any]:
        mine, _theirs = sockets()
        make = partial(world.loop._make_stream, mine, asyncio.Protocol())
        return partial(make, None, {"a": 1}) if more else make

    def asked() -> Callable[[], Any]:
        transport = made()()
        world.undo.append(transport.abort)
        return partial(transport.get_extra_info, "evil")

    collecting(world, lambda: made(extra=True))
    collecting(world, asked)


def socket_objects(world: World) -> None:
    """Of a server's connection, made when it is asked for, and each of its methods is evil."""
    made: list[Any] = []

    class Keeps(Peer):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)

    for key in ("socket", "sockname", "peername"):
        listening, client = serving(world, factory=lambda: Keeps(world))
        turns(world)
        tell(world, world.loop, "_remove_reader", listening)
        if not made:
            continue
        transport = made.pop()
        world.undo.append(transport.abort)
        shown = asyncio.trsock.TransportSocket
        with patched(shown, "__init__", acting(world, shown.__init__)):
            tell(world, transport, "get_extra_info", key)
        tell(world, transport, "abort")
        client.close()
        turns(world)


def odd_families(world: World) -> None:
    """An address that only the socket module can show, and the connection is lost meanwhile."""
    for name in ("getsockname", "getpeername"):
        mine = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        mine.setblocking(False)
        mine.bind((0, 0))
        world.keep(weakref.ref(mine, lambda ref: world.act()))
        transport = do(world, world.loop._make_socket_transport, mine, Peer(world))
        del mine
        before = getattr(socket.socket, name)

        def lost(sock: Any, transport: Any = transport, before: Any = before, *args: Any) -> Any:
            world.act()
            tell(world, transport, "_call_connection_lost", None)
            return before(sock)

        with patched(socket.socket, name, lost):
            tell(world, transport, "get_extra_info", "peername" if "peer" in name else "sockname")
        tell(world, transport, "abort")
        turns(world)


def protocols_change(world: World) -> None:
    """The protocol is replaced by a callback of its own, and was held by nobody else."""

    class Goes(asyncio.Protocol):
        transport: Any = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.set_protocol(asyncio.Protocol())

        def eof_received(self) -> None:
            self.transport.set_protocol(asyncio.Protocol())

        pause_writing = resume_writing = eof_received

        def __del__(self) -> None:
            world.act()

    for _ in range(2):
        made, theirs = stream(world, Goes())
        do(world, theirs.send, b"evil")
        turns(world)
        theirs.close()
        turns(world)
        made, theirs = stream(world, Goes())
        fill(world, made)
        empty(world, theirs)
        tell(world, made, "abort")


def gathered_writes(world: World) -> None:
    """A stream that is held back until the end of the callback, and is nobody's by then."""
    mine, theirs = connected()
    held = [world.loop._make_socket_transport(mine, asyncio.Protocol(), extra={"e": world.Last()})]
    del mine
    turns(world, 2)

    def write(number: int) -> None:
        for _ in range(number):
            tell(world, held[0], "write", b"evil")
        if number == 1:
            tell(world, held[0], "_call_connection_lost", None)
            held.clear()

    for number in (4, 4, 4, 1):
        world.loop.call_soon(write, number)
        turns(world, 1)
    theirs.close()


def empty_waiters(world: World) -> None:
    """sendfile()'s, whose methods are evil, when all is sent and when it cannot be."""
    for sent in (True, False):
        made, theirs = stream(world, Peer(world))
        fill(world, made)
        waiter = tell(world, made, "_make_empty_waiter")
        for name in ("set_result", "set_exception", "done"):
            do(world, setattr, waiter, name, acting(world, getattr(waiter, name, int)))
        if sent:
            empty(world, theirs)
        else:
            tell(world, made, "pause_reading")
            theirs.close()
        turns(world)
        tell(world, made, "abort")
        turns(world)


def contexts_left_otherwise(world: World) -> None:
    """C code of somebody's has entered another context, and not left it."""
    enter = ctypes.pythonapi.PyContext_Enter
    leave = ctypes.pythonapi.PyContext_Exit
    enter.argtypes = leave.argtypes = [ctypes.py_object]
    other = contextvars.copy_context()

    class Enters(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            enter(other)

    _made, theirs = stream(world, Enters())
    theirs.send(b"evil")
    turns(world, 2)
    with world.quietly():
        leave(other)


def reports(world: World) -> None:
    """What callbacks raise is told to a handler by which the connection ends."""

    class Fails(asyncio.Protocol):
        pass

    for name in ("connection_made", "data_received", "connection_lost", "eof_received"):
        setattr(Fails, name, failing(world))
    made: Any = None
    handler(world, lambda: made)
    for _ in range(2):
        made, theirs = stream(world, Fails())
        do(world, theirs.send, b"evil")
        turns(world)
        made, theirs = stream(world, type("Lost", (asyncio.Protocol,), {})())
        tell(world, made, "_fatal_error", ValueError(world.Last()))
        turns(world)
    read, write = os.pipe()
    made = do(world, world.loop._make_read_pipe_transport, File(world, read), Fails())
    turns(world, 2)
    os.close(write)
    turns(world)


def looked_at_first(world: World) -> None:
    """A transport asks its protocol for connection_made() while it is made."""

    class Shy(asyncio.Protocol):
        @property
        def connection_made(self) -> Any:
            world.act()
            return world.Last()

        @property
        def data_received(self) -> Any:
            world.act()
            raise AttributeError

    made, theirs = stream(world, Shy())
    do(world, theirs.send, b"evil")
    turns(world)
    mine, _ = sockets(socket.SOCK_DGRAM)
    do(world, world.loop._make_datagram_transport, mine, Shy())
    read, write = os.pipe()
    tell(world, world.loop, "_make_read_pipe_transport", File(world, read), Shy())
    tell(world, world.loop, "_make_write_pipe_transport", File(world, write), Shy())
    turns(world)
    tell(world, made, "abort")


def loops_that_only_transports_hold(world: World) -> None:
    """It goes with the connection, in whatever ends that."""

    class Loop(ctask.EventLoop):
        def __del__(self) -> None:
            world.act()

    class Ends(asyncio.Protocol):
        transport: Any = None

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport._call_connection_lost(None)
            self.transport = None

        def eof_received(self) -> None:
            self.data_received(b"")
            raise ValueError("evil")

    for how in range(4):
        loop = Loop()
        asyncio.set_event_loop(None)
        mine, theirs = sockets()
        transport: Any
        if how == 3:
            read, write = os.pipe()
            transport = loop._make_read_pipe_transport(os.fdopen(read, "rb", 0), Ends())
            os.close(write)
        else:
            transport = loop._make_socket_transport(mine, Ends())
        for _ in range(2):
            loop.call_soon(loop.stop)
            with world.quietly():
                loop.run_forever()
        theirs.send(b"evil")
        if how == 3:
            with world.quietly():
                loop._poll(0)
        loop._ready.clear()
        loop.set_exception_handler(None)
        loop.call_exception_handler = None  # no handler is asked
        del loop.call_exception_handler
        held = transport
        del transport, loop
        with world.quietly():
            if how == 0:
                held._read_ready()
            elif how == 1:
                held._call_connection_lost(None)
            elif how == 2:
                held._lost_ready()
            else:
                held._read_ready()
                held._read_ready()
        del held
        gc.collect()
    asyncio.set_event_loop(world.loop)


def taken_back(world: World) -> None:
    """A transport that cannot be made after all, and is the last that holds what it was given."""
    for make in ("_make_socket_transport", "_make_datagram_transport"):
        kind = socket.SOCK_STREAM if "socket" in make else socket.SOCK_DGRAM
        mine, _theirs = sockets(kind)
        extra: dict[Any, Any] = {"evil": world.Last()}

        class Clears(Key):
            __hash__ = Key.__hash__

            def __eq__(self, other: object, extra: Any = extra) -> bool:
                extra.clear()
                world.act()
                raise ValueError(world.Last())

        def attach(server: Any, *args: Any, extra: Any = extra) -> None:
            extra.clear()
            raise ValueError(world.Last())

        for name in ("sockname", "socket", "peername"):
            extra[Clears(world, name)] = 1
        server = type("Server", (), {"_attach": attach})
        more = {"server": server()} if "socket" in make else {}
        with world.quietly():
            getattr(world.loop, make)(mine, asyncio.Protocol(), extra=extra, **more)


def left_open(world: World) -> None:
    """Transports that nobody closed, of a loop that is gone."""

    def show(*args: Any, **kwargs: Any) -> None:
        world.act()
        raise ValueError(world.Last())

    with warnings.catch_warnings(), patched(warnings, "showwarning", show):
        warnings.simplefilter("always" if world.rng.random() < 0.5 else "error")
        for close in (True, False):
            loop = ctask.EventLoop()
            mine, theirs = sockets()
            server = type("Server", (), {"_attach": ignored, "_detach": failing(world)})
            made = [loop._make_socket_transport(mine, asyncio.Protocol(), server=server())]
            mine, _ = sockets(socket.SOCK_DGRAM)
            made.append(loop._make_datagram_transport(mine, asyncio.DatagramProtocol()))
            read, write = os.pipe()
            made.append(loop._make_read_pipe_transport(os.fdopen(read, "rb"), asyncio.Protocol()))
            if close:
                loop.close()
            del loop, mine
            made.clear()
            os.close(write)
            theirs.close()
            gc.collect()


SITUATIONS: list[Callable[[World], Any]] = [
    read_fails,
    out_of_descriptors,
    waits_of_closed_sockets,
    collections,
    socket_objects,
    odd_families,
    protocols_change,
    gathered_writes,
    empty_waiters,
    contexts_left_otherwise,
    reports,
    looked_at_first,
    loops_that_only_transports_hold,
    taken_back,
    left_open,
]
