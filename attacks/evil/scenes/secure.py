"""TLS: between look-alikes of all that a connection needs, between two ends in memory, and over
sockets.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import logging
import socket
import ssl
import warnings
from collections.abc import Callable
from typing import Any

from ..._interpreter import ROOT
from ..objects import Base, Error, Evil, Many, Number, Real, Text, World
from ..programs import Buffered, Protocol, protocol
from . import things
from .things import Thing, asked, turns

CERTS = ROOT / "tests" / "certs"


def outcome(world: World, *values: Any) -> Callable[..., Any]:
    """One of them; errors are raised."""

    def give(*args: Any) -> Any:
        guard = Evil(world)  # dies with the frame, which an exception keeps
        value = world.rng.choice(values)
        if isinstance(value, type) and issubclass(value, BaseException):
            raise value("evil")
        del guard
        return value

    return give


AGAIN = ssl.SSLWantReadError


def session(world: World) -> Any:
    """In the place of an SSLObject."""
    some = b"evil" * 3
    return Thing(
        world,
        do_handshake=outcome(world, None, None, Evil(world), AGAIN, ssl.SSLError, ValueError),
        read=outcome(world, some, b"", bytearray(some), Evil(world), AGAIN, AGAIN, ssl.SSLError),
        write=outcome(world, 4, 1, 0, 1 << 40, Number(world, 1), Evil(world), AGAIN, ssl.SSLError),
        unwrap=outcome(world, None, Evil(world), AGAIN, ssl.SSLError, OSError),
        pending=outcome(world, 0, 0, Evil(world), ValueError),
        getpeercert=outcome(world, None, {}, Evil(world), ssl.CertificateError),
        cipher=outcome(world, None, Evil(world), KeyError),
        compression=outcome(world, None, Evil(world)),
    )


class Wire(Base):
    """In the place of a transport: what is written is kept."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        object.__setattr__(self, "sent", [])
        object.__setattr__(self, "protocol", None)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or name == "_ssl_protocol":
            raise AttributeError(name)
        world: World = object.__getattribute__(self, "world")

        def call(*args: Any, **kwargs: Any) -> Any:
            world.act()
            world.leave()
            if name == "write" and args:
                object.__getattribute__(self, "sent").append(bytes(args[0]))
            elif name in ("close", "_force_close", "abort") and world.rng.random() < 0.5:
                made = object.__getattribute__(self, "protocol")
                with world.quietly():
                    made.connection_lost(args[0] if args else None)
            elif name == "set_protocol":
                object.__setattr__(self, "protocol", args[0])
            return world.rng.choice((None, False, Evil(world)))

        return call

    close = property(lambda self: self.__getattr__("close"))
    _start_tls_compatible = True


def application(world: World) -> Any:
    kind = world.rng.randrange(7)
    if kind == 0:
        return Thing(world, get_buffer=lambda *a: bytearray(world.rng.choice((0, 3, 99))))
    if kind == 1:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=world.loop), loop=world.loop)
    if kind == 2:
        return world.rng.choice((Protocol, Interrupted))(world)
    return Buffered(world) if kind == 3 else protocol(world)


def method(name: str, *args: Callable[[World], Any]) -> Callable[[World, Any, Any], Any]:
    return lambda world, tls, transport: getattr(
        transport if hasattr(type(transport), name) else tls, name
    )(*[arg(world) for arg in args])


def number(world: World) -> Any:
    return world.rng.choice((0, 1, 10**6, None, Number(world, 1), Real(world, 5.0), Evil(world)))


def data(world: World) -> Any:
    some = (b"x", b"evil" * 20, b"x" * 300_000, bytearray(b"evil"), memoryview(b"evil"))
    return world.rng.choice((*some, Evil(world), world.value()))


def pieces(world: World) -> Any:
    some = [b"one", b"two" * 9000, Evil(world)]
    return world.rng.choice(([b"a", b"b"], some, Many(world, some), iter(some), Evil(world)))


def key(world: World) -> Any:
    return world.rng.choice(("socket", "cipher", Text(world, "cipher"), Evil(world)))


def error(world: World) -> Any:
    return world.rng.choice((None, None, OSError("evil"), Error(world), Evil(world)))


def fed(world: World, tls: Any, transport: Any) -> None:
    view = tls.get_buffer(-1)
    world.keep(view)
    tls.buffer_updated(world.rng.choice((1, 5, 5, 0, 1 << 40, Number(world, 1), Evil(world))))


CALLS: list[Callable[[World, Any, Any], Any]] = [
    lambda world, tls, transport: keywords(world, tls, transport),
    method("write", data),
    method("write", data),
    method("writelines", pieces),
    method("close"),
    method("abort"),
    method("_force_close", error),
    method("pause_reading"),
    method("resume_reading"),
    method("set_write_buffer_limits", number, number),
    method("set_read_buffer_limits", number, number),
    method("set_write_buffer_limits", lambda world: 0),
    method("set_read_buffer_limits", lambda world: 0),
    method("get_extra_info", key, error),
    method("set_protocol", application),
    method("is_closing"),
    method("_test__append_write_backlog", data),
    method("get_write_buffer_size"),
    method("get_read_buffer_size"),
    method("eof_received"),
    method("connection_lost", error),
    method("pause_writing"),
    method("resume_writing"),
    method("_check_handshake_timeout"),
    method("_check_shutdown_timeout"),
    method("_start_shutdown"),
    method("_resume"),
    method("_feed", data),
    fed,
    fed,
    fed,
    lambda world, tls, transport: (tls._state, tls._app_state),
]


def calls(world: World, tls: Any, transport: Any, most: int = 8) -> None:
    for _ in range(world.rng.randrange(most)):
        with world.quietly():
            world.rng.choice(CALLS)(world, tls, transport)
        if world.rng.random() < 0.2:
            turns(world, 1)


def alike(world: World) -> Any:
    """Nothing of it is real."""
    import ctask

    rng = world.rng
    context = Thing(world, wrap_bio=lambda *args: session(world))
    waiter = rng.choice((None, things.future(world), things.future(world), Evil(world)))
    timeouts = (None, 5, 5, Number(world, 1), Real(world, 1.0), Real(world, -1.0), Evil(world))
    tls = ctask.SSLProtocol(
        things.loop(world) if rng.random() < 0.6 else world.loop,
        application(world),
        rng.choice((context, context, context, Evil(world), None)),
        waiter,
        rng.choice((False, False, True, Evil(world))),
        rng.choice(("evil", None, "", Text(world, "evil"), Evil(world))),
        rng.choice((True, True, False)),
        rng.choice(timeouts),
        rng.choice(timeouts),
    )
    del waiter, context
    wire = Wire(world)
    wire.set_protocol(tls)
    transport = tls._app_transport
    if rng.random() < 0.5:
        world.keep(tls)
        world.keep(transport)
    with world.quietly():
        tls.connection_made(wire)
    del wire
    for _ in range(rng.randrange(3)):
        with world.quietly():
            fed(world, tls, transport)
    calls(world, tls, transport, 14)
    return rng.choice((tls, transport, None))


class Interrupted(Protocol):
    """Its callbacks leave the loop."""

    def _act(self, *args: Any) -> Any:
        guard = Evil(self.world)
        super()._act()
        raise self.world.rng.choice((KeyboardInterrupt, SystemExit, ValueError))(guard)

    connection_made = data_received = eof_received = _act  # type: ignore[assignment]
    connection_lost = _act
    pause_writing = resume_writing = _act


def keywords(world: World, tls: Any, transport: Any) -> None:
    """Names that are compared as they like."""
    name = world.rng.choice(("high", "low", "name", "default"))
    some = {things.Key(world, name): number(world)}
    kind = "set_write_buffer_limits" if name in ("high", "low") else "get_extra_info"
    getattr(transport, kind)(**some)


class Ends:
    """Who asks it loses the connection, of which only the transport is left."""

    def __init__(self, world: World, transport: Any) -> None:
        self.__dict__.update(world=world, transport=transport)

    def end(self, answer: Any) -> Any:
        self.__dict__["transport"].close()
        self.__dict__["world"].act()
        return answer

    def __index__(self) -> int:
        return int(self.end(3))

    def __hash__(self) -> int:
        return int(self.end(3))

    def __iter__(self) -> Any:
        return self.end(iter([b"evil"]))

    def __buffer__(self, flags: int) -> Any:
        return self.end(memoryview(b"evil"))

    @property
    def __class__(self) -> Any:
        return self.end(Ends)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        pass


TAKERS: tuple[str, ...] = ("set_write_buffer_limits", "set_read_buffer_limits", "set_protocol")
TAKERS += ("writelines", "_test__append_write_backlog", "get_extra_info", "resume_reading", "write")


def let_go(world: World) -> None:
    """The last who holds a connection that is lost is the method that runs."""
    for name in TAKERS:
        with world.quietly():
            lost(world, name)


def lost(world: World, name: str) -> None:
    import ctask

    loop = Thing(world, call_soon=lambda *args: transport.close())
    context = Thing(world, wrap_bio=lambda *args: session(world))
    tls = ctask.SSLProtocol(loop, Protocol(world), context, None, False, "evil")
    transport = tls._app_transport
    tls.connection_lost(None)
    del tls
    if name == "resume_reading":
        transport.pause_reading()
        transport.resume_reading()
    elif name == "write":
        for _ in range(9):
            transport.write(b"evil")
    else:
        getattr(transport, name)(Ends(world, transport))


# ---- contexts ----


def evil_context(world: World, base: Any) -> Any:
    """A context, and its SSLObjects, whose attributes are evil."""
    rng = world.rng

    def spied(cls: Any, name: str, chance: float = 0.3) -> dict[str, Any]:
        def get(self: Any) -> Any:
            world.act()
            world.leave()
            before = getattr(cls.__base__, name, None)
            return before.__get__(self) if before else self.__dict__[name]

        def put(self: Any, value: Any) -> None:
            world.act()
            before = getattr(cls.__base__, name, None)
            if before:
                before.__set__(self, value)
            else:
                self.__dict__[name] = value

        return {name: property(get, put)} if rng.random() < chance else {}

    class Object(ssl.SSLObject):
        pass

    class Context(base):  # type: ignore[misc]
        sslobject_class = Object

    for name in ("context", "_sslobj", "read", "write", "do_handshake", "unwrap", "getpeercert"):
        for found, value in spied(Object, name, 0.15).items():
            setattr(Object, found, value)
    for name in ("cipher", "compression", "pending"):
        for found, value in spied(Object, name, 0.15).items():
            setattr(Object, found, value)
    for name in ("keylog_filename", "_msg_callback", "wrap_bio"):
        for found, value in spied(Context, name).items():
            setattr(Context, found, value)
    return Context


MADE: list[tuple[Any, Any]] = []


def contexts(world: World) -> tuple[Any, Any]:
    """A client's and a server's; to make some takes a while."""
    if not MADE or (len(MADE) < 5 and world.rng.random() < 0.3):
        MADE.append(new_contexts(world))
    return world.rng.choice(MADE)


def new_contexts(world: World) -> tuple[Any, Any]:
    """With callbacks that are evil."""
    rng = world.rng

    def callback(*values: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            world.act()
            return rng.choice(values)

        return call

    def changes(sslobj: Any, name: Any, context: Any) -> Any:
        world.act()
        with world.quietly():
            sslobj.context = rng.choice((other, context))
        return rng.choice((*[None] * 12, ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE, world.value()))

    def made(kind: int) -> Any:
        cls: Any = ssl.SSLContext
        if rng.random() < 0.5:
            cls = evil_context(world, cls)
        return cls(kind)

    client = made(ssl.PROTOCOL_TLS_CLIENT)
    server, other = made(ssl.PROTOCOL_TLS_SERVER), made(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = rng.choice((*[ssl.CERT_NONE] * 9, ssl.CERT_REQUIRED))
    for context in (server, other):
        context.load_cert_chain(CERTS / "server.pem")
    if rng.random() < 0.5:
        server.sni_callback = changes
    if rng.random() < 0.3:
        server.set_alpn_protocols(["evil"])
        client.set_alpn_protocols(["evil", "good"])
    for context in (client, server, other):
        if rng.random() < 0.15:
            context._msg_callback = callback(None)
        if rng.random() < 0.1:
            context.keylog_filename = rng.choice(("keys", "/dev/full"))
    if rng.random() < 0.3:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
    return client, server


def in_memory(world: World) -> Any:
    """Both ends of a connection, whose transports are ours."""
    import ctask

    rng = world.rng
    ends = []
    for server_side, context in enumerate(contexts(world)):
        waiter = rng.choice((None, things.future(world)))
        where = things.loop(world) if rng.random() < 0.2 else world.loop
        hostname = None if server_side else "localhost"
        made = ctask.SSLProtocol(
            where, application(world), context, waiter, bool(server_side), hostname
        )
        wire = Wire(world)
        object.__setattr__(wire, "protocol", made)
        ends.append((made, wire, made._app_transport))
    for made, wire, _ in ends:
        with world.quietly():
            made.connection_made(wire)
    for made, _, transport in ends:
        if rng.random() < 0.6:
            world.keep(made)
            world.keep(transport)
    for _ in range(rng.randrange(4, 10)):
        for (_, wire, _), (made, _, transport) in (ends, ends[::-1]):
            pump(world, object.__getattribute__(wire, "sent"), made)
            if rng.random() < 0.4:
                calls(world, made, transport, 3)
        turns(world, 1)
    return rng.choice(ends)[rng.choice((0, 2))]


def pump(world: World, sent: list[bytes], made: Any) -> None:
    some, sent[:] = b"".join(sent), []
    while some:
        with world.quietly():
            view = made.get_buffer(-1)
            size = min(len(view), len(some))
            view[:size] = some[:size]
            some = some[size:]
            del view
            made.buffer_updated(size)
            continue
        break


def over_sockets(world: World) -> Any:
    """Both ends in the loop; perhaps with TLS over it once more."""
    rng, loop = world.rng, world.loop
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    client, server = contexts(world)
    tasks = [
        loop.create_task(
            loop.create_connection(
                lambda: application(world), sock=one, ssl=client, server_hostname="localhost"
            )
        ),
        loop.create_task(
            loop.connect_accepted_socket(lambda: application(world), other, ssl=server)
        ),
    ]
    turns(world, rng.choice((3, 12, 12, 12)))
    made = []
    for task in tasks:
        with world.quietly():
            made.append(task.result()[0])
    if len(made) == 2 and rng.random() < 0.4:
        client, server = contexts(world)
        tasks = [
            loop.create_task(
                loop.start_tls(made[0], application(world), client, server_hostname="localhost")
            ),
            loop.create_task(loop.start_tls(made[1], application(world), server, server_side=True)),
        ]
        turns(world, rng.choice((3, 20)))
        for task in tasks:
            with world.quietly():
                made.append(task.result())
    for transport in made:
        if rng.random() < 0.5:
            world.keep(transport)
    for _ in range(rng.randrange(5)):
        for transport in made:
            with world.quietly():
                calls(world, transport._ssl_protocol, transport, 3)
        turns(world, 2)
    return made[-1] if made else None


def streams(world: World) -> Any:
    rng, loop = world.rng, world.loop
    one, other = socket.socketpair()
    client, server = contexts(world)
    opened = loop.create_task(
        asyncio.open_connection(sock=one, ssl=client, server_hostname="localhost")
    )
    other.setblocking(False)
    accepted = loop.create_task(
        loop.connect_accepted_socket(lambda: application(world), other, ssl=server)
    )
    turns(world, 12)
    with world.quietly():
        world.keep(accepted.result()[0])
    reader, writer = opened.result()
    world.keep(reader)
    with world.quietly():
        loop.create_task(reader.read(5))
        for _ in range(4):
            accepted.result()[0].write(rng.choice((b"evil\n", b"x" * 70_000)))
            writer.write(b"evil\n")
            turns(world, 2)
    return writer


# ---- what a connection asks of modules ----


class Bio:
    """In the place of ssl.MemoryBIO."""

    world: World

    def __init__(self) -> None:
        self.bio = _MemoryBIO()
        self.world.act()

    def __getattr__(self, name: str) -> Any:
        self.world.act()
        value = getattr(self.__dict__["bio"], name)
        if self.world.rng.random() < 0.1:
            return self.world.value()
        return value

    def __del__(self) -> None:
        self.world.act()


_MemoryBIO = ssl.MemoryBIO


@functools.cache
def begin(world: World) -> None:
    """What of a process is asked only once, or is the same for all connections."""
    rng = world.rng
    for name in ("debug", "warning"):
        setattr(logging.getLogger("asyncio"), name, asked(world, lambda *args, **kwargs: None))
    if rng.random() < 0.3:
        Bio.world = world
        ssl.MemoryBIO = Bio  # type: ignore[misc, assignment]
    if rng.random() < 0.3:
        default = Thing(world, wrap_bio=lambda *args: session(world))
        ssl.create_default_context = asked(world, lambda: default)
    if rng.random() < 0.5:
        warnings.simplefilter("always")
        warnings.showwarning = asked(world, lambda *args, **kwargs: None)
    if rng.random() < 0.5:
        builtins.__import__ = asked(world, builtins.__import__)


TLS: list[Callable[[World], Any]] = [alike, alike, let_go, in_memory, over_sockets, streams]
