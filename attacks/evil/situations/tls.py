"""TLS between look-alikes: what a connection asks ends it, or gives it another protocol."""

# mypy: ignore-errors
# ruff: noqa: B008, B023

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import ssl
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import ctask

from ..connections import Key, do, sockets, stream, tell
from ..objects import Evil, Number, World
from ..scenes.secure import Wire, contexts
from .frames import new_module
from .io import handler
from .tools import acting, collecting, cycle, failing, patched, turns, unseen

BIO = ssl.MemoryBIO


class Below:
    """In the place of a transport; `ask` is called with the name of each method that is."""

    def __init__(self, ask: Callable[[str], Any]) -> None:
        self.ask = ask

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or name == "_ssl_protocol":
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.ask(name)

        return call


class Session:
    """In the place of an SSLObject: it has shaken hands, and `ask` may say something else."""

    def __init__(self, ask: Callable[[str], Any]) -> None:
        self.ask = ask

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            given = self.ask(name)
            if given is not None:
                return given
            if name == "read":
                raise ssl.SSLWantReadError
            return len(args[0]) if name == "write" else None

        return call


def nobody(name: str) -> Any:
    return None


def waits(name: str) -> Any:
    """The handshake goes on when something comes."""
    if name == "do_handshake":
        raise ssl.SSLWantReadError


class Dies:
    """A protocol whose end is evil."""

    world: World

    def __init__(self, world: World, **more: Any) -> None:
        vars(self).update(world=world, **more)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or name in ("get_buffer", "buffer_updated"):
            raise AttributeError(name)
        return lambda *args: None

    def __del__(self) -> None:
        self.world.act()


def made(
    world: World,
    app: Any,
    session: Callable[[str], Any] = nobody,
    below: Callable[[str], Any] = nobody,
    loop: Any = None,
    waiter: Any = None,
    kind: Any = ctask.SSLProtocol,
) -> Any:
    """A connection, after its handshake if the session is as it should be."""
    context = type("Context", (), {"wrap_bio": lambda self, *args, **more: Session(session)})()
    tls = kind(loop or world.loop, app, context, waiter, False, "evil")
    do(world, tls.connection_made, Below(below))
    return tls


def once(name: str, call: Callable[[], Any]) -> Callable[[str], Any]:
    """When it is asked for this, the first time."""
    asked: list[str] = []

    def ask(what: str) -> Any:
        if what == name and not asked:
            asked.append(what)
            return call()
        return None

    return ask


def fed(world: World, tls: Any) -> None:
    with world.quietly():
        view = tls.get_buffer(-1)
        view[:4] = b"evil"
        tls.buffer_updated(4)


def answers_are_not_kept(world: World) -> None:
    """What the session answers goes into a dictionary in which somebody is in the way."""
    for name in ("peercert", "cipher", "compression", "ssl_object"):

        class Refuses(Key):
            __hash__ = Key.__hash__

            def __eq__(self, other: object) -> bool:
                world.act()
                raise ValueError(world.Last())

        def spoil(name: str = name, kind: type = Refuses) -> Any:
            for found in gc.get_referents(held[0]):
                if type(found) is dict and "sslcontext" in found:
                    found.pop(name, None)
                    found[kind(world, name)] = 1
            return None

        held: list[Any] = []

        def ask(what: str, spoil: Any = spoil) -> Any:
            if what == "do_handshake":
                spoil()
            return world.Last() if what in ("getpeercert", "cipher", "compression") else None

        wrap = lambda self, *args, ask=ask, **more: Session(ask)  # noqa: E731
        context = type("Context", (), {"wrap_bio": wrap})()
        held.append(ctask.SSLProtocol(world.loop, Dies(world), context, None, False, "evil"))
        do(world, held[0].connection_made, Below(nobody))
        held.clear()
        turns(world)


def made_again_by_its_timer(world: World) -> None:
    """Who is asked for a timer begins anew, so that the timer is not the first."""
    held: list[Any] = []

    class Timer:
        def cancel(self) -> None:
            pass

        def __del__(self) -> None:
            world.act()

    class Loop(ctask.EventLoop):
        deep = 0

        def call_later(self, *args: Any, **kwargs: Any) -> Any:
            Loop.deep += 1
            if Loop.deep == 1 and held:
                held[1]()
            return Timer()

    loop = Loop()
    try:
        context = type("Context", (), {"wrap_bio": lambda self, *args, **more: Session(waits)})()
        tls = ctask.SSLProtocol(loop, Dies(world), context, None, False, "evil")

        def again() -> None:
            tell(world, tls, "connection_lost", None)
            tell(world, tls, "connection_made", Below(nobody))

        held.extend((tls, again))
        tell(world, tls, "connection_made", Below(nobody))
        tell(world, tls, "connection_lost", None)
        held.clear()
        tls = made(world, Dies(world), loop=loop)
        Loop.deep = 0
        held.extend((tls, partial(tell, world, tls, "_resume")))
        tell(world, tls, "_start_shutdown")
        tell(world, tls, "connection_lost", None)
        held.clear()
    finally:
        loop.close()


def lost_as_it_ends(world: World) -> None:
    """The transport below is lost, and let go of, as the loop is asked to close it."""

    class Last:
        def __del__(self) -> None:
            world.act()

    class Loop(ctask.EventLoop):
        tls: Any = None

        def call_soon(self, *args: Any, **kwargs: Any) -> Any:
            if self.tls is not None:
                tell(world, self.tls, "connection_lost", None)
                return None
            return super().call_soon(*args, **kwargs)

    for _ in range(2):
        loop = Loop()
        try:
            tls = made(world, Dies(world), loop=loop, below=lambda name, guard=Last(): None)
            loop.tls = tls
            tell(world, tls._app_transport, "close")
            loop.tls = None
        finally:
            loop.close()


def reported(world: World) -> None:
    """What it tells the handler takes evil along; and what was told of goes with it."""
    handler(world)

    class Fails(Dies):
        def __getattr__(self, name: str) -> Any:
            if name[:2] == "__" or name in ("get_buffer", "buffer_updated"):
                raise AttributeError(name)

            def fail(*args: Any) -> Any:
                raise ValueError(world.Last())

            return fail

    def ask(name: str) -> Any:
        return b"evil" if name == "read" else None

    for session in (nobody, ask, once("read", lambda: b"evil")):
        tls = made(world, Fails(world), session=session)
        fed(world, tls)
        for name in ("eof_received", "pause_writing", "resume_writing"):
            tell(world, tls, name)
        tell(world, tls._app_transport, "set_write_buffer_limits", 0)
        tell(world, tls._app_transport, "write", b"evil")
        tell(world, tls, "connection_lost", ValueError(world.Last()))
        turns(world)


def interrupted(world: World) -> None:
    """The application leaves the loop, and the loop cannot be asked to go on."""

    class Loop(ctask.EventLoop):
        refuses = False

        def call_soon(self, *args: Any, **kwargs: Any) -> Any:
            if self.refuses:
                world.act()
                raise ValueError(world.Last())
            return super().call_soon(*args, **kwargs)

    class Leaves(Dies):
        def data_received(self, data: bytes) -> None:
            raise KeyboardInterrupt

    loop = Loop()
    read: list[bytes] = []

    def ask(name: str) -> Any:
        return read.pop() if name == "read" and read else None

    try:
        tls = made(world, Leaves(world), session=ask, loop=loop)
        loop.refuses = True
        read.append(b"evil")
        fed(world, tls)
        tls = made(world, Leaves(world), loop=loop)
        loop.refuses = False
    finally:
        loop.close()
    tls = made(world, Leaves(world))
    tls._app_transport.set_protocol(Leaves(world))
    tell(world, tls, "eof_received")


def contexts_change(world: World) -> None:
    """A connection that is made again by a callback has another context: the first one, which has
    something evil, goes when the callback has returned.
    """
    variable = contextvars.ContextVar[Any]("variable")

    class Again(Dies):
        def data_received(self, data: bytes) -> None:
            tell(world, self.tls, "connection_lost", None)
            below = stream(world, asyncio.Protocol(), begun=False)[0]
            contextvars.Context().run(tell, world, self.tls, "connection_made", below)
            world.undo.append(below.abort)
            world.loop._ready.clear()
            world.act()
            variable.set(world.Last())

    for _ in range(2):
        app = Again(world)
        read: list[bytes] = []

        def ask(name: str, read: list[bytes] = read) -> Any:
            return read.pop() if name == "read" and read else None

        app.tls = made(world, app, session=ask)
        world.loop._ready.clear()
        read.append(b"evil")
        fed(world, app.tls)
        del app.tls
        turns(world)


def protocols_change(world: World) -> None:
    """Each callback gives the connection another protocol, and was held by nobody else."""

    class Changes(Dies):
        def change(self, *args: Any) -> Any:
            vars(self)["transport"].set_protocol(asyncio.Protocol())
            self.__dict__.pop("transport")

        data_received = eof_received = pause_writing = resume_writing = connection_lost = change

        def connection_made(self, transport: Any) -> None:
            vars(self)["transport"] = transport

    class AtOnce(Dies):
        def connection_made(self, transport: Any) -> None:
            transport.set_protocol(asyncio.Protocol())

    made(world, AtOnce(world))
    for how in range(4):
        read: list[bytes] = []

        def ask(name: str, read: list[bytes] = read, how: int = how) -> Any:
            if name == "write" and how == 3:
                raise ssl.SSLWantReadError
            return read.pop() if name == "read" and read else None

        tls = made(world, Changes(world), session=ask)
        if how == 0:
            read.append(b"evil")
            fed(world, tls)
        elif how == 1:
            tell(world, tls, "eof_received")
        elif how == 2:
            tls._app_transport.set_protocol(Changes(world, transport=tls._app_transport))
            tell(world, tls, "eof_received")
        else:
            tell(world, tls._app_transport, "set_write_buffer_limits", 1)
            tell(world, tls._app_transport, "write", b"evil" * 9)
        turns(world)


def streams_change(world: World) -> None:
    """A StreamReader has its transport pause, which gives the connection another protocol."""

    class Protocol(asyncio.StreamReaderProtocol):
        pass

    for kind in (asyncio.StreamReaderProtocol, Protocol):
        reader = asyncio.StreamReader(limit=1, loop=world.loop)
        app = kind(reader, loop=world.loop)
        do(world, setattr, app, "evil", world.Last())
        read: list[bytes] = []
        tls = made(
            world,
            app,
            session=lambda name, read=read: read.pop() if name == "read" and read else None,
        )
        transport = tls._app_transport
        del app

        class Pauses(asyncio.Transport):
            def pause_reading(self, transport: Any = transport) -> None:
                transport.set_protocol(asyncio.Protocol())
                world.act()

        reader._transport = Pauses()
        read.append(b"evil" * 9)
        fed(world, tls)
        turns(world)


def odd_numbers(world: World) -> None:
    """How much was written is said by a number that is evil, or by none."""
    for give in (lambda: Number(world, 1), lambda: Evil(world), lambda: world.Last()):
        tls = made(world, Dies(world), session=once("write", give))
        tell(world, tls._app_transport, "write", b"evil")
        tell(world, tls, "connection_lost", None)


def lost_by_who_is_asked(world: World) -> None:
    """The last who holds the connection is the method that runs: whoever is asked loses it."""
    module = new_module(world, lambda name: False)  # in which ssl's classes are not known yet
    calls: list[tuple[str, str, tuple[Any, ...]]] = [
        ("is_closing", "is_closing", ()),
        ("_force_close", "_force_close", (None,)),
        ("abort", "_force_close", ()),
        ("write", "write", (b"evil",)),
        ("writelines", "write", ([b"evil", b"evil"],)),
        ("close", "unwrap", ()),
        ("get_write_buffer_size", "pending", ()),
        ("get_read_buffer_size", "pending", ()),
    ]
    for method, asked, args in calls:
        held: list[Any] = []

        def lose(held: list[Any] = held) -> Any:
            if held:
                lost = held.pop(), held.pop()
                tell(world, lost[0], "connection_lost", None)
                tell(world, lost[1], "close")
                del lost
                world.act()
            return None

        class Bio:
            def __init__(self) -> None:
                self.bio = BIO()

            def __getattr__(self, name: str, lose: Any = lose) -> Any:
                if name == "pending":
                    lose()
                return getattr(self.bio, name)

        ask = lambda name, asked=asked, lose=lose: lose() if name == asked else None  # noqa: E731
        kind: Any = module.SSLProtocol if asked == "pending" else ctask.SSLProtocol
        with patched(ssl, "MemoryBIO", Bio if asked == "pending" else BIO):
            tls = made(world, Dies(world), session=ask, below=ask, kind=kind)
        transport = tls._app_transport
        held.extend((transport, tls))
        world.keep(weakref.ref(tls, lambda ref: world.act()))
        del tls
        tell(world, transport, method, *args)
        held.clear()
        del transport


def left_open(world: World) -> None:
    """A transport that nobody closed is warned of; and the collector clears a connection."""

    def show(*args: Any, **kwargs: Any) -> None:
        world.act()

    with warnings.catch_warnings(), patched(warnings, "showwarning", show):
        warnings.simplefilter("always")
        for _ in range(2):
            tls = made(world, Dies(world), waiter=world.loop.create_future())
            transport = tls._app_transport
            del tls
            del transport
            world.collect()
        tls = made(world, asyncio.Protocol(), session=waits, waiter=world.Last())
        cycle(world, tls, tls._app_transport)
        del tls
        world.collect()
        app = Dies(world)
        tls = made(world, app, below=lambda name, guard=world.Last(): None)
        cycle(world, tls, tls._app_transport, app)
        app.tls = tls
        del tls, app
        world.collect()
        wrap = type("Context", (), {"wrap_bio": lambda self, *args, **more: Session(nobody)})
        app = type("Holds", (asyncio.Protocol,), {})()
        app.tls = ctask.SSLProtocol(world.loop, app, wrap(), unseen(world), False, "evil")
        cycle(world, app.tls)
        del app
        world.collect()


def ended_while_it_pauses(world: World) -> None:
    """The connection below is lost as the application is told to wait."""
    client, server = contexts(world)

    class Pauses(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def pause_writing(self) -> None:
            below = self.transport._ssl_protocol._transport
            self.__dict__.clear()
            tell(world, below, "_call_connection_lost", None)
            world.act()

    mine, theirs = sockets()
    weak: list[Any] = []
    loop = world.loop
    one = loop.create_task(
        loop.create_connection(Pauses, sock=mine, ssl=client, server_hostname="localhost")
    )
    other = loop.create_task(loop.connect_accepted_socket(asyncio.Protocol, theirs, ssl=server))
    turns(world, 14)
    del mine
    with world.quietly():
        transport, _ = one.result()
        world.keep(other.result()[0])
        other.result()[0].pause_reading()
        below = transport._ssl_protocol._transport
        below.evil = world.Last()
        del below, one, other
        for _ in range(5):
            transport.write(b"x" * 300_000)
    weak.clear()
    turns(world)


def lost_while_it_sends(world: World) -> None:
    """The stream below asks for a pause, and is lost: the connection was the last to hold it."""
    client, server = contexts(world)
    weak: list[Any] = []

    class Loses(asyncio.Protocol):
        def pause_writing(self) -> None:
            below, tls = weak[0](), weak[1]()
            tell(world, tls, "connection_lost", None)
            tell(world, below, "_call_connection_lost", None)
            del below, tls
            world.act()

    mine, theirs = sockets()
    loop = world.loop
    one = loop.create_task(
        loop.create_connection(asyncio.Protocol, sock=mine, ssl=client, server_hostname="localhost")
    )
    other = loop.create_task(loop.connect_accepted_socket(asyncio.Protocol, theirs, ssl=server))
    turns(world, 14)
    del mine
    with world.quietly():
        transport, _ = one.result()
        world.keep(other.result()[0])
        other.result()[0].pause_reading()
        below = transport._ssl_protocol._transport
        weak[:] = [weakref.ref(below), weakref.ref(transport._ssl_protocol)]
        below.evil = world.Last()
        below.set_protocol(Loses())
        del below, one, other
        for _ in range(9):
            transport.write(b"x" * 300_000)
    turns(world)


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    class Disowned:
        """Its sessions are said to be others'."""

        def wrap_bio(self, *args: Any, **more: Any) -> Any:
            session = context.wrap_bio(*args, **more)
            session._sslobj.owner = self.owner = Disowned()
            return session

    def disowned() -> Callable[[], Any]:
        args = (world.loop, asyncio.Protocol(), Disowned(), None, False, "evil")
        return partial(ctask.SSLProtocol, *args)

    context = ssl.create_default_context()

    def connection() -> Callable[[], Any]:
        args = (world.loop, asyncio.Protocol(), context, None, False, "evil")
        return partial(ctask.SSLProtocol, *args)

    def begun() -> Callable[[], Any]:
        return partial(connection()().connection_made, Wire(world))

    collecting(world, connection)
    collecting(world, disowned)
    collecting(world, begun)
    collecting(world, lambda: partial(made, world, asyncio.Protocol()))


def logged(world: World) -> None:
    """In debug mode the handshake's time is logged."""
    world.loop.set_debug(True)
    with patched(logging.getLogger("asyncio"), "debug", acting(world, lambda *args: None)):
        made(world, Dies(world))
    with patched(logging.getLogger("asyncio"), "debug", failing(world)):
        made(world, Dies(world))


SITUATIONS: list[Callable[[World], Any]] = [
    answers_are_not_kept,
    made_again_by_its_timer,
    lost_as_it_ends,
    reported,
    interrupted,
    contexts_change,
    protocols_change,
    streams_change,
    odd_numbers,
    lost_by_who_is_asked,
    left_open,
    ended_while_it_pauses,
    lost_while_it_sends,
    collections,
    logged,
]
