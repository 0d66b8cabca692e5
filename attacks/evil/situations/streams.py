"""Readers, writers and their protocol: what a reader waits for, raises and drops."""

# mypy: ignore-errors

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import ctask

from ..connections import do, tell
from ..objects import World
from .tools import acting, collecting, patched, turns


def waiters_of_others(world: World) -> None:
    """Another one waits, as soon as the loop is asked for a future."""

    class Loop(ctask.EventLoop):
        def create_future(self) -> Any:
            reader._waiter = world.Last()
            return super().create_future()

    loop = Loop()
    try:
        for name, *args in (("read", 5), ("readline",), ("readexactly", 5)):
            reader = asyncio.StreamReader(loop=loop)
            waiting = getattr(reader, name)(*args)
            tell(world, waiting, "send", None)
            tell(world, waiting, "close")
    finally:
        loop.close()


def raised_and_forgotten(world: World) -> None:
    """What is raised is the last to hold it, as making it takes it out of the reader."""
    for name, *args in (("read",), ("read", 5), ("readline",), ("readexactly", 5)):
        reader = asyncio.StreamReader(loop=world.loop)

        class Kind(ValueError):
            def __init__(self, *args: Any, reader: Any = reader) -> None:
                reader._exception = None
                world.act()

        class Raised(ValueError):
            def __del__(self) -> None:
                world.act()

            @property
            def __class__(self, reader: Any = reader) -> type:
                reader._exception = None
                world.act()
                return ValueError

        do(world, setattr, reader, "_exception", Raised())
        tell(world, getattr(reader, name)(*args), "send", None)
        with world.quietly():
            reader._exception = Kind
            getattr(reader, name)(*args).send(None)
        world.collect()


def lines_too_long(world: World) -> None:
    """readline() drops what is too long; the error that it began with is evil."""

    class Transport(asyncio.Transport):
        def resume_reading(self) -> None:
            world.act()
            raise ValueError(world.Last())

        def pause_reading(self) -> None:
            pass

    kind = asyncio.LimitOverrunError
    init = kind.__init__

    def spoiled(self: Any, *args: Any) -> None:
        init(self, *args)
        self.evil = world.Last()

    with patched(kind, "__init__", spoiled):
        for line in (b"x" * 20 + b"\n", b"x" * 20):
            reader = asyncio.StreamReader(limit=5, loop=world.loop)
            reader._transport = Transport()
            reader.feed_data(line)
            do(world, setattr, reader, "_paused", True)
            tell(world, reader.readline(), "send", None)


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    def read() -> Callable[[], Any]:
        reader = asyncio.StreamReader(loop=world.loop)
        reader.feed_data(b"evil")
        reader.feed_eof()
        return partial(reader.read().send, None)

    collecting(world, read)


def silent_futures(world: World) -> None:
    """`_closed` is somebody else's, and evil when it is told to be silent."""

    class Closed(asyncio.Future):
        def __setattr__(self, name: str, value: Any) -> None:
            protocol.__dict__.clear()
            world.act()
            super().__setattr__(name, value)

        def __del__(self) -> None:
            world.act()

    for error in (ValueError("evil"), None):
        protocol: Any = asyncio.StreamReaderProtocol(
            asyncio.StreamReader(loop=world.loop), loop=world.loop
        )
        do(world, setattr, protocol, "_closed", Closed(loop=world.loop))
        tell(world, protocol, "connection_lost", error)
        kind = type("Kind", (ctask.EventLoop,), {})
        kind.create_future = acting(world, lambda *args: Closed(loop=world.loop))
    turns(world)


SITUATIONS: list[Callable[[World], Any]] = [
    waiters_of_others,
    raised_and_forgotten,
    lines_too_long,
    collections,
    silent_futures,
]
