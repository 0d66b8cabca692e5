"""Directed programs for io/ and streams/: each scene brings what it is about into the state that
places in the source need, with what is evil there. What that does is left to chance, as elsewhere.
"""

from __future__ import annotations

import asyncio
import asyncio.trsock
import logging
import os
import resource
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .objects import Error, Evil, Number, Raised, Text, World, derived

Scene = Callable[[World], Any]

Chunk = derived(bytes)  # may be kept as it is until it is sent
Data = derived(bytes, "buffer", "release_buffer", "bool", "len", "repr")
Buffer = derived(bytearray, "delitem", "len", "bool")


class Name(str):
    """As good as the word that it is, and looked at it is evil."""

    world: World

    def __new__(cls, world: World, text: str) -> Any:
        made = str.__new__(cls, text)
        made.world = world
        return made

    def __eq__(self, other: object) -> bool:
        self.world.act()
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


class Key:
    """In a dictionary, in the way of who looks for `text`."""

    def __init__(self, world: World, text: object) -> None:
        self.world, self.text = world, text

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        self.world.act()
        return False


class Getter:
    """In a class it is evil as soon as somebody looks."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __get__(self, obj: object, kind: object = None) -> Any:
        self.world.act()
        raise Raised(self.world)


def answers(*names: str) -> dict[str, Any]:
    def answer(self: Any, *args: Any) -> Any:
        self.world.act()
        return Evil(self.world)

    return dict.fromkeys(names, answer)


class Peer(asyncio.Protocol):
    """A protocol that is evil when it is asked for a method, called, let go of, and so is what it
    gives.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def __getattribute__(self, name: str) -> Any:
        if name[0] != "_" and name != "world":
            self.world.act()
        return object.__getattribute__(self, name)

    def __del__(self) -> None:
        self.world.act()

    names = "connection_made data_received eof_received connection_lost pause_writing"
    names += " resume_writing datagram_received error_received"
    vars().update(answers(*names.split()))


class BufferedPeer(asyncio.BufferedProtocol):
    def __init__(self, world: World) -> None:
        self.world = world

    vars().update(answers("connection_made", "get_buffer", "buffer_updated", "connection_lost"))


class Answers:
    """What is asked for it has, and all of it is evil."""

    world: World

    def __init__(self, world: World) -> None:
        object.__setattr__(self, "world", world)

    def __setattr__(self, name: str, value: Any) -> None:
        self.world.act()

    def __del__(self) -> None:
        self.world.act()

    names = "_attach _detach get_loop done set_result set_exception feed_data feed_eof is_closing"
    names += " _drain_helper _get_close_waiter write close exception resume_reading"
    vars().update(answers(*names.split()))


class File:
    """A pipe's end, whose methods are evil."""

    def __init__(self, world: World, fd: int) -> None:
        self.world, self.fd = world, fd

    def fileno(self) -> Any:
        self.world.act()
        return Number(self.world, self.fd)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self.world.act()
        raise Raised(self.world)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.world.act()


# ---- what scenes are made of ----


def do(world: World, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    with world.quietly():
        return function(*args, **kwargs)
    return None


def tell(world: World, subject: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    with world.quietly():
        return getattr(subject, name)(*args, **kwargs)
    return None


def turns(world: World, number: int = 3) -> None:
    for _ in range(number):
        with world.quietly():
            world.loop.call_soon(world.loop.stop)
            world.loop.run_forever()


@contextmanager
def replaced(subject: Any, **values: Any) -> Iterator[None]:
    """These attributes are others meanwhile."""
    before = {name: vars(subject).get(name) for name in values}
    try:
        for name, value in values.items():
            setattr(subject, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                if name in vars(subject):
                    delattr(subject, name)
            else:
                setattr(subject, name, value)


def through(world: World, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and evil."""

    def call(*args: Any, **kwargs: Any) -> Any:
        world.act()
        return function(*args, **kwargs)

    return call


def unblocking(*socks: Any) -> Any:
    for sock in socks:
        sock.setblocking(False)
    return socks


def sockets(kind: int = socket.SOCK_STREAM) -> Any:
    return unblocking(*socket.socketpair(socket.AF_UNIX, kind))


def stream(world: World, protocol: Any, begun: bool = True, **more: Any) -> tuple[Any, Any]:
    mine, theirs = sockets()
    made = tell(world, world.loop, "_make_socket_transport", mine, protocol, **more)
    world.keep(made)
    if begun:
        turns(world, 2)
    return made, theirs


def datagrams(world: World, protocol: Any, *more: Any, **extra: Any) -> tuple[Any, Any]:
    mine, theirs = sockets(socket.SOCK_DGRAM)
    made = tell(world, world.loop, "_make_datagram_transport", mine, protocol, *more, **extra)
    world.keep(made)
    turns(world, 2)
    return made, theirs


def pipe(world: World, kind: str, file: Any = None, **more: Any) -> tuple[Any, Any]:
    read, write = os.pipe()
    mine, other = (read, write) if kind == "read" else (write, read)
    file = File(world, mine)
    make = getattr(world.loop, f"_make_{kind}_pipe_transport")
    made = do(world, make, file, Peer(world), **more)
    world.keep(made)
    turns(world, 2)
    return made, os.fdopen(other, "wb" if kind == "read" else "rb", 0)


def named(world: World, kind: int) -> tuple[Any, str]:
    """A Unix socket with a name that is longer than other addresses are."""
    path = f"./{'x' * 60}{len(os.listdir('.'))}.{world.rng.random()}"
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    sock.setblocking(False)
    return sock, path


def fill(world: World, transport: Any) -> None:
    tell(world, transport, "write", b"x" * 1_000_000)
    for _ in range(3):
        tell(world, transport, "write", Chunk(world, b"evil" * 9))
    tell(world, transport, "write", Data(world, b"evil"))


def empty(world: World, sock: Any) -> None:
    for _ in range(20):
        for _ in range(20):
            if not do(world, sock.recv, 200_000):
                break
        turns(world, 1)


# ---- scenes of streams ----


def stream_from_beginning_to_end(world: World) -> None:
    kind = world.rng.choice((Peer, Peer, BufferedPeer))
    _made, theirs = stream(world, kind(world), waiter=world.value())
    do(world, theirs.send, b"evil")
    turns(world)
    theirs.close()
    turns(world)


def stream_of_what_is_no_protocol(world: World) -> None:
    stream(world, Evil(world))
    made, theirs = stream(world, asyncio.BaseProtocol())
    do(world, theirs.send, b"evil")
    tell(world, made, "set_protocol", Evil(world))
    turns(world)
    tell(world, made, "abort")


def stream_is_given_things(world: World) -> None:
    extra = {Key(world, name): 1 for name in ("sockname", "socket", "peername")}
    server = world.rng.choice((Answers(world), None))
    made, _ = stream(world, Peer(world), world.rng.random() < 0.7, extra=extra, server=server)
    for name in (Evil(world), Name(world, "peername"), "socket", Key(world, "socket")):
        tell(world, made, "get_extra_info", name)
    do(world, getattr, made, "_extra", None)
    tell(world, made, "get_extra_info", **{Name(world, "name"): Evil(world)})
    with replaced(asyncio.trsock.TransportSocket, __init__=world.callback()):
        tell(world, made, "get_extra_info", "socket")
    patched = {"get_extra_info": world.callback()}
    with replaced(asyncio.BaseTransport, **patched):
        tell(world, made, "get_extra_info", "socket")
    tell(world, made, "abort")


def stream_is_full(world: World) -> None:
    made, theirs = stream(world, Peer(world))
    tell(world, made, "set_write_buffer_limits", Number(world, 9), Number(world, 1))
    tell(world, made, "set_write_buffer_limits", **{Name(world, "high"): 3})
    tell(world, made, "_set_write_buffer_limits", **{Name(world, "low"): 1})
    fill(world, made)
    tell(world, made, "writelines", world.value())
    tell(world, made, "writelines", [Chunk(world, b"evil"), Data(world, b"evil"), Evil(world)])
    if world.rng.random() < 0.6:
        empty(world, theirs)
    tell(world, made, world.rng.choice(("abort", "close", "_call_connection_lost")))
    tell(world, made, "_call_connection_lost", None)


def stream_writes_evil(world: World) -> None:
    made, _ = stream(world, Peer(world))
    kind = type("Kind", (), {})
    do(world, setattr, kind, "__name__", Text(world, "evil"))
    for data in (Evil(world), kind(), Data(world, b"evil"), memoryview(Data(world, b"evil"))):
        tell(world, made, "write", data)
    tell(world, made, "_fatal_error", **{Name(world, "exc"): Raised(world)})
    tell(world, made, "_call_connection_lost", Evil(world))
    with replaced(logging.getLogger("asyncio"), warning=world.callback()):
        for _ in range(7):
            tell(world, made, "write", b"evil")


def stream_fails_in_debug_mode(world: World) -> None:
    made, theirs = stream(world, Peer(world))
    world.loop.set_debug(True)
    logged = world.callback()
    with replaced(logging.getLogger("asyncio"), debug=logged, info=logged, warning=logged):
        tell(world, made, "pause_reading")
        tell(world, made, "resume_reading")
        if world.rng.random() < 0.5:
            theirs.close()
            turns(world, 1)
        tell(world, made, "_fatal_error", OSError("evil"))
        turns(world)


def stream_is_sent_as_a_file(world: World) -> None:
    made, theirs = stream(world, Peer(world))
    fill(world, made)
    waiter = tell(world, made, "_make_empty_waiter")
    tell(world, waiter, "add_done_callback", Evil(world))
    if world.rng.random() < 0.5:
        for name in ("set_result", "set_exception"):
            do(world, setattr, waiter, name, world.callback())
    kind = world.rng.randrange(3)
    with replaced(world.loop, call_soon=through(world, world.loop.call_soon)):
        if kind == 0:
            theirs.close()
        elif kind == 1:
            empty(world, theirs)
        else:
            tell(world, made, "abort")
        turns(world)
    tell(world, made, "_make_empty_waiter")
    del waiter
    tell(world, made, "_reset_empty_waiter")
    made, _ = stream(world, Peer(world))
    tell(world, made, "close")
    tell(world, made, "_make_empty_waiter")  # not lost yet
    turns(world)


def stream_has_a_long_address(world: World) -> None:
    listening, path = named(world, socket.SOCK_STREAM)
    mine, _ = named(world, socket.SOCK_STREAM)
    listening.listen()
    mine.connect(path)
    extra = {Key(world, name): 1 for name in ("sockname", "peername")}
    made = tell(world, world.loop, "_make_socket_transport", mine, Peer(world), extra=extra)
    turns(world, 1)
    if made is not None and world.rng.random() < 0.4:
        asyncio.BaseTransport.__dict__["_extra"].__set__(made, world.value())
    tell(world, made, "abort")
    turns(world)


def transports_are_left(world: World) -> None:
    def forget(*args: Any, **kwargs: Any) -> None:
        world.act()

    with warnings.catch_warnings(), replaced(warnings, showwarning=forget):
        warnings.simplefilter("always")
        made: Any = [stream(world, Peer(world), server=Answers(world), waiter=Evil(world))]
        made.append(datagrams(world, Peer(world), Evil(world), Evil(world)))
        made.append(pipe(world, "read", waiter=Evil(world)))
        made.append(pipe(world, "write", waiter=Evil(world)))
        fill(world, made[0][0])
        with replaced(socket.socket, close=world.callback()):
            world.subjects.clear()
            made.clear()
            world.collect()


def transports_that_cannot_be_made(world: World) -> None:
    stream(world, Evil(world), extra=world.value(), server=Evil(world))
    datagrams(world, Evil(world), world.value(), Evil(world), world.value())
    with replaced(world.loop, _ensure_fd_no_transport=world.callback()):
        stream(world, Peer(world), begun=False, waiter=Evil(world))
        make = world.loop._make_read_pipe_transport
        do(world, make, File(world, os.pipe()[0]), Peer(world), Evil(world))
        world.subjects.clear()
        world.close()
        stream(world, Peer(world))
        datagrams(world, Peer(world), Evil(world))
        pipe(world, "read")


# ---- of servers ----


def serving(world: World, server: Any = None, factory: Any = None, backlog: Any = 5) -> Any:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    factory = factory or through(world, lambda: Peer(world))
    given = (factory, listening, server or Answers(world), backlog, (Evil(world), Evil(world)))
    do(world, world.loop._accept_streams, *given)
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(listening.getsockname())
    return listening, client


def server_accepts(world: World) -> None:
    def fails() -> Any:
        world.act()
        raise Raised(world)

    factory = world.rng.choice((None, fails, Evil(world)))
    listening, _client = serving(world, factory=factory, backlog=Number(world, 5))
    turns(world)
    watched = tell(world, world.loop, "_watched", listening)
    if type(watched) is tuple:
        tell(world, watched[2], "_read_ready")
    del watched
    factory = None
    tell(world, world.loop, "_remove_reader", listening)
    turns(world)


def accepted(world: World) -> tuple[Any, Any]:
    made: list[Any] = []

    class Keeps(Peer):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)
            self.world.keep(transport)

    listening, client = serving(world, factory=lambda: Keeps(world))
    turns(world)
    tell(world, world.loop, "_remove_reader", listening)
    return made[0] if made else None, client


def server_connection_shows_its_socket(world: World) -> None:
    made, _client = accepted(world)
    init = socket.socket.__init__
    with replaced(socket.socket, __init__=through(world, init)):
        tell(world, made, "get_extra_info", "socket")
        do(world, getattr, made, "_sock", None)
    tell(world, made, "abort")
    turns(world)


def server_of_an_odd_socket(world: World) -> None:
    serving(world)
    accept = {"_accept_connection": world.callback()}
    with replaced(socket.socket, accept=Getter(world)), replaced(world.loop, **accept):
        turns(world)
    do(world, world.loop._accept_streams, Evil(world), Evil(world), Evil(world), 5, ())
    do(world, world.loop._accept_streams, Evil(world), File(world, os.dup(0)), None, 5, ())


def server_without_descriptors(world: World) -> None:
    serving(world)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    later = {"call_later": world.callback(), "_start_serving": Evil(world)}
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with replaced(world.loop, **later):
            if world.rng.random() < 0.5:
                with replaced(asyncio.trsock.TransportSocket, __init__=world.callback()):
                    turns(world, 2)
            turns(world, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- of pipes ----


def pipe_reads(world: World) -> None:
    _made, other = pipe(world, "read", extra=world.rng.choice((None, Evil(world))))
    do(world, other.write, b"evil")
    turns(world)
    world.loop.set_debug(True)
    with replaced(logging.getLogger("asyncio"), info=world.callback()):
        other.close()
        turns(world)


def pipe_writes(world: World) -> None:
    made, other = pipe(world, "write")
    for data in (Evil(world), Data(world, b"evil"), memoryview(Data(world, b"evil"))):
        tell(world, made, "write", data)
    fill(world, made)
    world.loop.set_debug(world.rng.random() < 0.5)
    with replaced(logging.getLogger("asyncio"), info=world.callback(), debug=world.callback()):
        if world.rng.random() < 0.5:
            os.set_blocking(other.fileno(), False)
            for _ in range(30):
                do(world, other.read, 100_000)
                turns(world, 1)
        other.close()
        turns(world)


def pipe_file_is_another(world: World) -> None:
    for kind in ("read", "write"):
        made, _other = pipe(world, kind)
        do(world, setattr, made, "_pipe", Evil(world))
        tell(world, made, "write", b"evil")
        turns(world, 1)
        do(world, setattr, made, "_pipe", world.rng.choice((None, Evil(world))))
        tell(world, made, "set_protocol", Peer(world))
        tell(world, made, "set_protocol", Peer(world))
        tell(world, made, "close")
        turns(world)


# ---- of datagrams ----

AUDITED: list[World] = []


def audited(world: World) -> None:
    """Hooks cannot be taken away: there is one."""
    if not AUDITED:

        def hook(event: str, args: Any) -> None:
            if event in ("socket.sendto", "socket.connect"):
                AUDITED[0].act()

        sys.addaudithook(hook)
        AUDITED.append(world)


def datagrams_come_and_go(world: World) -> None:
    extra: Any = {Key(world, name): 1 for name in ("sockname", "socket", "peername")}
    extra["peername"] = Evil(world)
    init = through(world, asyncio.trsock.TransportSocket.__init__)
    with replaced(asyncio.trsock.TransportSocket, __init__=init):
        made, theirs = datagrams(world, Peer(world), extra=world.rng.choice((None, extra)))
    do(world, theirs.send, b"evil")
    turns(world)
    tell(world, made, "sendto", Data(world, b"evil"))
    tell(world, made, "sendto", b"evil", **{Name(world, "addr"): Evil(world)})
    theirs.close()
    tell(world, made, "sendto", b"evil")
    tell(world, made, "set_protocol", Peer(world))
    tell(world, made, "abort")
    turns(world)


def datagrams_have_one_address(world: World) -> None:
    made, _ = datagrams(world, Peer(world), Text(world, "evil"), Evil(world))
    for to in (Evil(world), Text(world, "evil"), None):
        tell(world, made, "sendto", b"evil", to)


def datagrams_wait(world: World) -> None:
    audited(world)
    mine, _ = named(world, socket.SOCK_DGRAM)
    theirs, path = named(world, socket.SOCK_DGRAM)
    made = tell(world, world.loop, "_make_datagram_transport", mine, Peer(world))
    world.keep(made)
    turns(world, 2)
    tell(world, made, "set_write_buffer_limits", 9)
    for _ in range(20):
        tell(world, made, "sendto", b"evil" * 5000, path)
    for to in (path, Name(world, path), Text(world, path), Evil(world)):
        tell(world, made, "sendto", Data(world, b"evil"), to)
        tell(world, made, "sendto", Chunk(world, b"evil"), to)
    with replaced(socket.socket, sendto=through(world, socket.socket.sendto)):
        empty(world, theirs)
    tell(world, made, "close")
    turns(world)


def datagrams_ask_a_socket_for_its_address(world: World) -> None:
    def init(self: Any, sock: Any) -> None:
        names = ("getsockname", "getpeername")
        patched.enter_context(replaced(socket.socket, **dict.fromkeys(names, world.callback())))

    with ExitStack() as patched, replaced(asyncio.trsock.TransportSocket, __init__=init):
        datagrams(world, Peer(world))


# ---- of sockets by themselves ----


def operate(world: World, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Begins it, and gives the coroutine."""
    made = tell(world, world.loop, f"sock_{name}", *args, **kwargs)
    if made is not None:
        tell(world, made, "send", None)
        world.keep(made)
    return made


def sock_gives_and_takes(world: World) -> None:
    audited(world)
    mine, theirs = sockets(world.rng.choice((socket.SOCK_STREAM, socket.SOCK_DGRAM)))
    for given in (Number(world, 5), Evil(world)):
        do(world, theirs.send, b"evil")
        for name in ("recv", "recv_into", "recvfrom", "recvfrom_into", "sendall"):
            operate(world, name, mine, given)
    operate(world, "sendall", mine, Data(world, b"evil" * 9))
    operate(world, "sendto", mine, Evil(world), "evil")
    operate(world, "sendto", mine, b"evil", Text(world, "evil"))
    operate(world, "recv", **{Name(world, "sock"): mine, Name(world, "nbytes"): 5})
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    operate(world, "sendto", udp, Data(world, b"evil"), ("127.0.0.1", 9))
    operate(world, "connect", udp, ("127.0.0.1", 9))


def sock_waits(world: World) -> None:
    mine, theirs = sockets()

    class Future(asyncio.Future):  # type: ignore[type-arg]
        def __del__(self) -> None:
            world.act()

    def create() -> Any:
        world.act()
        return Future(loop=world.loop)

    def ends() -> Any:
        made = create()
        world.close()
        return made

    data = type("Data", (), {"data": {Key(world, mine.fileno()): 1, mine.fileno(): 1}})()
    ensure = {"_ensure_fd_no_transport": world.callback()}
    with replaced(world.loop, create_future=create, **ensure):
        do(world, setattr, world.loop, "_transports", world.rng.choice((Evil(world), data)))
        made = operate(world, "recv", mine, 5)
        tell(world, made, "close")
        made = operate(world, "recv", mine, 5)
        del made
        fill_up = b"x" * 1_000_000
        operate(world, "sendall", theirs, fill_up)
        operate(world, "sendall", theirs, Data(world, b"evil" * 9))
        world.subjects.clear()
    with replaced(world.loop, create_future=ends):
        operate(world, "recv", mine, 5)


def sock_is_odd(world: World) -> None:
    mine, _theirs = sockets()
    world.loop.set_debug(True)
    made = tell(world, world.loop, "sock_recv", mine, 5)
    with replaced(socket.socket, gettimeout=world.callback()):
        tell(world, made, "send", None)
    for names in ({"recv": Getter(world)}, {"accept": Getter(world)}):
        with replaced(socket.socket, **names):
            operate(world, "recv", mine, 5)


def sock_accepts(world: World) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    unblocking(listening, client)
    client.connect_ex(listening.getsockname())
    names: Any = vars(socket)
    kind, key = names.pop("socket"), Key(world, "socket")
    names[key] = 1
    names["socket"] = kind
    try:
        with replaced(socket.socket, __new__=world.callback()):
            operate(world, "accept", listening)
        operate(world, "accept", listening)
    finally:
        names.pop(key, None)
        for other in [name for name in names if type(name) is not str]:
            del names[other]


IO: list[Scene] = [
    stream_from_beginning_to_end,
    stream_of_what_is_no_protocol,
    stream_is_given_things,
    stream_is_full,
    stream_writes_evil,
    stream_fails_in_debug_mode,
    stream_is_sent_as_a_file,
    stream_has_a_long_address,
    transports_are_left,
    transports_that_cannot_be_made,
    server_accepts,
    server_connection_shows_its_socket,
    server_of_an_odd_socket,
    server_without_descriptors,
    pipe_reads,
    pipe_writes,
    pipe_file_is_another,
    datagrams_come_and_go,
    datagrams_have_one_address,
    datagrams_wait,
    datagrams_ask_a_socket_for_its_address,
    sock_gives_and_takes,
    sock_waits,
    sock_is_odd,
    sock_accepts,
]


# ---- scenes of readers, writers and the protocol between them ----


def reader_of(world: World, **more: Any) -> Any:
    made = do(world, asyncio.StreamReader, loop=world.loop, **more)
    world.keep(made)
    return made


def protocol_of(world: World, *args: Any) -> Any:
    reader = asyncio.StreamReader(loop=world.loop)
    world.keep(reader)
    made = do(world, asyncio.StreamReaderProtocol, reader, *args, loop=world.loop)
    world.keep(made)
    return made


def give(world: World, subject: Any, *names: str) -> None:
    for name in names:
        do(world, setattr, subject, name, Evil(world))


def ask(world: World, subject: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """As far as the coroutine gets by itself."""
    made = tell(world, subject, name, *args, **kwargs)
    if made is not None and not isinstance(made, Evil):
        tell(world, made, "send", None)
    return made


ANY_READ = (("read",), ("read", 2), ("readexactly", 9), ("readline",), ("readuntil", b"\r\n"))


def reader_is_made_again(world: World) -> None:
    names = {Name(world, "limit"): world.value(), Name(world, "loop"): world.value()}
    do(world, asyncio.StreamReader, **names)
    made = reader_of(world)
    give(world, made, "_transport", "_waiter", "_exception", "_loop", "_limit")
    tell(world, made, "__init__", Number(world, 9), Evil(world))
    do(world, setattr, made, Name(world, "_limit"), Evil(world))
    do(world, setattr, made, "_limit", 5)


def reader_has_evil_attributes(world: World) -> None:
    for name, *args in ANY_READ:
        made = reader_of(world)
        tell(world, made, "feed_data", b"evil" * 9)
        do(world, setattr, made, "_limit", 2)
        do(world, setattr, made, "_paused", True)
        give(world, made, world.rng.choice(("_transport", "_waiter", "_loop")))
        ask(world, made, name, *args)
        tell(world, made, "feed_eof")
        ask(world, made, name, *args)


def reader_raises_evil(world: World) -> None:
    for error in (Raised(world), Evil(world), Error(world)):
        made = reader_of(world)
        do(world, setattr, made, "_exception", error)
        name, *args = world.rng.choice(ANY_READ)
        ask(world, made, name, *args)
        writer = do(world, asyncio.StreamWriter, Evil(world), Evil(world), made, world.loop)
        ask(world, writer, "drain")


def reader_wakes(world: World) -> None:
    made = reader_of(world)
    waiting = ask(world, made, "read")
    give(world, made, "_waiter")
    tell(world, waiting, "close")
    with replaced(world.loop, call_soon=through(world, world.loop.call_soon)):
        for name, *args in ANY_READ:
            made = reader_of(world)
            task = do(world, world.loop.create_task, getattr(made, name)(*args))
            turns(world, 1)
            how = world.rng.randrange(4)
            if how == 0:
                give(world, made, "_waiter")
            if how == 1:
                tell(world, made, "set_exception", Raised(world))
            tell(world, made, "feed_data", b"evil\n")
            tell(world, made, "_wakeup_waiter")
            tell(world, task, "cancel")
            turns(world, 1)


def reader_of_an_evil_buffer(world: World) -> None:
    made = reader_of(world)
    for name, *args in ANY_READ:
        buffer = Buffer(world)
        bytearray.extend(buffer, b"evil\r\n" * 3)
        do(world, setattr, made, "_buffer", buffer)
        del buffer
        give(world, made, "_transport")
        do(world, setattr, made, "_limit", world.rng.choice((1, 100)))
        ask(world, made, name, *args)
    for data in (Evil(world), Data(world, b"evil"), Buffer(world, b"evil")):
        tell(world, made, "feed_data", data)
    tell(world, made, "feed_data", **{Name(world, "data"): Evil(world)})
    do(world, setattr, made, "_buffer", Buffer(world, b"evil"))


def readers_errors_are_evil(world: World) -> None:
    for kind in (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        with replaced(kind, __init__=through(world, kind.__init__)):
            for name, *args in ANY_READ[2:]:
                made = reader_of(world, limit=2)
                tell(world, made, "feed_data", b"evil")
                tell(world, made, "feed_eof")
                ask(world, made, name, *args)


def reader_pauses(world: World) -> None:
    class Transport(asyncio.Transport):
        def pause_reading(self) -> None:
            world.act()
            raise NotImplementedError(Raised(world))

        def resume_reading(self) -> Any:
            world.act()
            return Evil(world)

        def __del__(self) -> None:
            world.act()

    transport: Any
    for transport in (Evil(world), Transport()):
        made = reader_of(world, limit=2)
        do(world, setattr, made, "_transport", transport)
        transport = None
        tell(world, made, "feed_data", b"evil" * 9)
        tell(world, made, "_maybe_resume_transport")
        do(world, setattr, made, "_paused", True)
        ask(world, made, "read", 100)
        ask(world, made, "readexactly", 100)


def readers_methods_are_asked_otherwise(world: World) -> None:
    made = reader_of(world)
    give(world, made, "_transport", "_waiter", "_exception")
    for name in ("feed_data", "feed_eof", "at_eof", "exception", "_wakeup_waiter", "read"):
        tell(world, made, name, **{Name(world, "evil"): 1})
    tell(world, made, "_maybe_resume_transport", **{Name(world, "evil"): 1})
    tell(world, made, "read", Number(world, 1))
    tell(world, made, "readuntil", Evil(world))


def protocol_hears_of_everything(world: World) -> None:
    made = protocol_of(world, world.rng.choice((None, Evil(world), world.callback())))
    tell(world, made, "connection_made", Evil(world))
    readers: Any = (lambda: Evil(world), lambda: Answers(world), Evil(world), world.callback())
    do(world, setattr, made, "_stream_reader_wr", world.rng.choice(readers))
    tell(world, made, "data_received", b"evil")
    tell(world, made, "data_received", **{Name(world, "data"): Evil(world)})
    give(world, made, *world.rng.sample(("_task", "_transport", "_stream_writer"), 2))
    if world.rng.random() < 0.5:
        do(world, setattr, made, "_closed", Answers(world))
    tell(world, made, "connection_lost", world.rng.choice((None, Raised(world))))
    give(world, made, "_closed", "_drain_waiters")
    give(world, made, "_closed", "_drain_waiters")
    do(world, setattr, made, Name(world, "data_received"), Evil(world))


def protocol_of_a_stream(world: World) -> None:
    made = protocol_of(world)
    _transport, theirs = stream(world, made)
    if world.rng.random() < 0.5:
        do(world, setattr, made, "data_received", world.callback())
    else:
        do(world, setattr, made, "_stream_reader_wr", lambda: Answers(world))
    do(world, theirs.send, b"evil")
    turns(world, 2)
    give(world, made, "_task")
    theirs.close()
    turns(world)


def protocol_is_made_again(world: World) -> None:
    do(world, asyncio.StreamReaderProtocol, **{Name(world, "stream_reader"): Evil(world)})
    do(world, asyncio.StreamReaderProtocol, Evil(world), Evil(world), loop=Evil(world))
    made = protocol_of(world)
    with replaced(world.loop, create_future=through(world, lambda: Evil(world))):
        do(world, getattr, made, "_closed", None)
        lost = protocol_of(world)
        tell(world, lost, "connection_lost", None)
        do(world, getattr, lost, "_closed", None)
    tell(world, made, "__init__", Evil(world), Evil(world), Evil(world))
    give(world, made, "_closed", "_task", "_stream_writer")


def writer_of_evil(world: World) -> None:
    given = [world.value() for _ in range(4)]
    made = do(world, asyncio.StreamWriter, *given)
    kind = world.rng.choice((Answers, Evil))
    made = do(world, asyncio.StreamWriter, kind(world), kind(world), None, Evil(world))
    world.keep(made)
    for name in ("drain", "wait_closed", "close", "is_closing", "can_write_eof"):
        ask(world, made, name)
        ask(world, made, name, **{Name(world, "evil"): 1})
    tell(world, made, "write", Evil(world))
    tell(world, made, "write", **{Name(world, "data"): Evil(world)})
    do(world, getattr, made, "_complete_fut", None)
    give(world, made, "_complete_fut", "_reader")
    give(world, made, "_complete_fut", "_transport", "_protocol", "_loop")
    ask(world, made, "drain")
    do(world, asyncio.StreamWriter, **{Name(world, "transport"): Evil(world)})


def writer_of_a_stream(world: World) -> None:
    protocol = protocol_of(world)
    transport, _ = stream(world, protocol)
    made = do(world, asyncio.StreamWriter, transport, protocol, None, world.loop)
    world.keep(made)
    kind = type(transport)
    if made is not None and "is_closing" in vars(kind):
        with replaced(kind, write=Getter(world), is_closing=Getter(world)):
            tell(world, made, "write", b"evil")
            ask(world, made, "drain")
    tell(world, made, "write", Data(world, b"evil"))
    do(world, setattr, protocol, "_paused", True)
    give(world, protocol, "_drain_waiters")
    ask(world, made, "drain")
    give(world, protocol, "_closed")
    ask(world, made, "wait_closed")
    tell(world, made, "close")
    made = None
    world.subjects.clear()


STREAMS: list[Scene] = [
    reader_is_made_again,
    reader_has_evil_attributes,
    reader_raises_evil,
    reader_wakes,
    reader_of_an_evil_buffer,
    readers_errors_are_evil,
    reader_pauses,
    readers_methods_are_asked_otherwise,
    protocol_hears_of_everything,
    protocol_of_a_stream,
    protocol_is_made_again,
    writer_of_evil,
    writer_of_a_stream,
]


def directed(scenes: list[Scene]) -> Callable[[World], list[Callable[[], Any]]]:
    """A program that plays them, one after the other and as chance has it."""

    def playing(world: World, scene: Scene) -> Callable[[], Any]:
        def play() -> None:
            world.subjects.clear()
            do(world, scene, world)
            world.subjects.clear()

        return play

    return lambda world: [playing(world, scene) for scene in scenes]
