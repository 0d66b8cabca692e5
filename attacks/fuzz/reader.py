"""StreamReader: pieces come, coroutines read; asyncio's has the same pieces.

No loop runs. A coroutine that waits is gone on with when its future is done, at once or some
pieces later, as it would be by a task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import ctask

from .supply import Supply, raised, same

LIMITS = (1, 3, 8, 64, 1024, 65536, 65536, 65536)
LETTERS = b"aab\n" * 64
SIZES = (-1, 0, 1, 2, 3, 8, 100, 8191, 8192, 20000)


class Transport:
    """What is told of it."""

    def __init__(self, log: list[object], paused: bool) -> None:
        self.log, self.can_pause = log, paused

    def pause_reading(self) -> None:
        self.log.append("pause_reading")
        if not self.can_pause:
            raise NotImplementedError

    def resume_reading(self) -> None:
        self.log.append("resume_reading")


def letters(supply: Supply, n: int) -> bytes:
    """They are few, so that a separator is found, and found in part, again and again."""
    return supply.take(n).translate(LETTERS)


def separators(supply: Supply) -> Any:
    """One, or from 3.13 on a tuple of several."""
    kind = supply.byte()
    if kind % 8 == 7:
        return (b"", [b"a"], "a", (), bytearray(b"ab"), (b"a", b""))[kind // 8 % 6]
    if kind % 4 == 3 and sys.version_info >= (3, 13):
        return tuple(letters(supply, 1 + n) for n in range(kind // 8 % 3 + 1))
    return letters(supply, 1 + kind // 4 % 5)


class Play:
    """One reader, and what becomes of it."""

    def __init__(self, make: Callable[..., Any], loop: Any, supply: Supply) -> None:
        self.log: list[object] = []
        self.supply = supply
        self.waits: Any = None
        self.waiter: Any = None
        self.reader = make(limit=supply.pick(LIMITS), loop=loop)
        kind = supply.byte()
        if kind % 4:
            self.reader.set_transport(Transport(self.log, kind % 4 < 3))
        self.steps: list[Callable[[], object]] = [
            self.feed,
            self.feed,
            self.feed,
            self.feed_other,
            self.feed_much,
            self.read,
            self.readexactly,
            self.readuntil,
            self.readuntil,
            lambda: self.start(self.reader.readline()),
            lambda: self.start(self.reader.__anext__()),
            lambda: self.seldom(self.reader.feed_eof),
            self.look,
            self.cancel,
            lambda: self.seldom(self.reader.set_exception, ValueError("told")),
            lambda: self.go_on(),
        ]

    def seldom(self, end: Callable[..., object], *args: object) -> None:
        """Nothing much happens afterwards."""
        if self.supply.byte() > 230:
            end(*args)

    def feed(self) -> None:
        byte = self.supply.byte()
        self.reader.feed_data(letters(self.supply, byte & 31))
        if byte < 128:
            self.go_on()

    def feed_other(self) -> None:
        byte = self.supply.byte()
        data = letters(self.supply, byte & 31)
        kinds = (bytearray, memoryview, lambda data: memoryview(bytearray(data)))
        self.reader.feed_data(kinds[byte >> 5 & 1](data))
        self.go_on()

    def feed_much(self) -> None:
        """Up to 16 KiB, of a byte, with another one at the end."""
        data = letters(self.supply, 1) * (1 << self.supply.byte() % 15)
        self.reader.feed_data(data + letters(self.supply, 1))
        self.go_on()

    def read(self) -> None:
        self.start(self.reader.read(self.supply.pick(SIZES)))

    def readexactly(self) -> None:
        byte = self.supply.byte()
        self.start(self.reader.readexactly(byte - 1 if byte < 64 else SIZES[byte % len(SIZES)]))

    def readuntil(self) -> None:
        self.start(self.reader.readuntil(separators(self.supply)))

    def look(self) -> None:
        """What Python code sees; `_buffer` is another thing once it was seen."""
        told = [self.reader.at_eof(), raised(self.reader.exception())]
        if self.supply.byte() & 1:
            told.append(bytes(self.reader._buffer))
        self.log.append(told)

    def cancel(self) -> None:
        if self.waits is not None:
            self.waiter.cancel()
            self.step(lambda coro: coro.throw(asyncio.CancelledError()))

    def start(self, coro: Awaitable[object]) -> None:
        if self.waits is None:
            self.waits = coro
            self.step(lambda coro: coro.send(None))
        else:  # which says that another one waits, or has its bytes
            waits, self.waits = self.waits, coro
            waiter = self.waiter
            self.step(lambda coro: coro.send(None))
            if self.waits is not None:
                self.waits.close()
            self.waits, self.waiter = waits, waiter

    def go_on(self) -> None:
        while self.waits is not None and self.waiter.done():
            self.step(lambda coro: coro.send(None))

    def step(self, go: Callable[[Any], Any]) -> None:
        coro = self.waits
        try:
            self.waiter = go(coro)
        except StopIteration as stop:
            self.log.append(stop.value)
        except BaseException as error:
            self.log.append(raised(error))
        else:
            self.log.append("waits")
            return
        self.waits = self.waiter = None

    def play(self) -> list[object]:
        while self.supply:
            step = self.supply.byte() % len(self.steps)
            try:
                self.steps[step]()
            except Exception as error:
                self.log.append(raised(error))
        self.reader.feed_eof()
        self.go_on()
        if self.waits is not None:
            self.cancel()
        if self.reader.exception() is None:
            self.start(self.reader.read())
        self.log.append(repr(self.reader).replace(repr(self.reader._transport), "(transport)"))
        return self.log


class Target:
    def __init__(self) -> None:
        self.loop = ctask.new_event_loop()
        self.stock = asyncio.SelectorEventLoop()

    def close(self) -> None:
        self.loop.close()
        self.stock.close()

    def __call__(self, data: bytes) -> None:
        stock = Play(asyncio.StreamReader, self.stock, Supply(data)).play()
        same(Play(ctask.StreamReader, self.loop, Supply(data)).play(), stock)
