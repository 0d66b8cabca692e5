"""Faults planted in asyncio's own transports: does the attack find them?"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from .judge import FORMS, Form, judge
from .program import generate
from .stock import Loop, Stream
from .stock import kind as stock_kind

Base: Any = stock_kind


def planted(*methods: Callable[..., Any]) -> type[Any]:
    """A transport with other methods."""
    return type("Planted", (Base,), {method.__name__: method for method in methods})


def lost_chunk() -> type[Any]:
    """What is written while something waits is lost when it is the third."""

    def write(self: Any, data: Any) -> None:
        if len(self._buffer) != 1 or len(data) > 4000:
            Base.write(self, data)

    return planted(write)


def sent_twice() -> type[Any]:
    """A partial send is not counted to the last byte."""

    def _write_sendmsg(self: Any) -> None:
        if len(self._buffer) == 1 and len(self._buffer[0]) > 2000 and not hasattr(self, "_twice"):
            self._twice = True
            self._buffer.appendleft(bytes(self._buffer[0][:1]))
        Base._write_sendmsg(self)

    return planted(_write_sendmsg)


def no_resume_of_reading() -> type[Any]:
    """resume_reading() forgets to, if it paused twice."""

    def pause_reading(self: Any) -> None:
        self._times = getattr(self, "_times", 0) + self.is_reading()
        Base.pause_reading(self)

    def resume_reading(self: Any) -> None:
        if getattr(self, "_times", 0) == 2 and self._paused:
            self._paused = False
        else:
            Base.resume_reading(self)

    return planted(pause_reading, resume_reading)


def no_resume_of_writing() -> type[Any]:
    """The protocol is not told that it may write again if the connection is closing."""

    def _maybe_resume_protocol(self: Any) -> None:
        if not self._closing:
            Base._maybe_resume_protocol(self)

    return planted(_maybe_resume_protocol)


def late_write() -> type[Any]:
    """write() sends in the next iteration."""

    def write(self: Any, data: Any) -> None:
        if self._conn_lost or self._eof or not data or self._buffer:
            Base.write(self, data)
            return
        self._buffer.append(bytes(data))
        self._loop._add_writer(self._sock_fd, self._write_ready)

    return planted(write)


def dropped_eof() -> type[Any]:
    """write_eof() with something waiting is forgotten."""

    def write_eof(self: Any) -> None:
        if not self._buffer:
            Base.write_eof(self)
        elif not self._closing:
            self._eof = True
            waiting = self._write_ready

            def ready() -> None:
                self._eof = False
                waiting()
                self._eof = True

            self._write_ready = ready
            self._loop._add_writer(self._sock_fd, ready)

    return planted(write_eof)


def abort_flushes() -> type[Any]:
    """abort() sends what waits."""

    def abort(self: Any) -> None:
        for chunk in list(self._buffer):
            with contextlib.suppress(OSError):
                self._sock.send(chunk)
        Base.abort(self)

    return planted(abort)


def close_drops() -> type[Any]:
    """close() does not wait for what waits."""

    def close(self: Any) -> None:
        self._buffer.clear()
        Base.close(self)

    return planted(close)


def lost_twice() -> type[Any]:
    """connection_lost() comes twice after abort() while something waits."""

    def abort(self: Any) -> None:
        if self._buffer and not self._conn_lost:
            self._loop.call_soon(self._protocol.connection_lost, None)
        Base.abort(self)

    return planted(abort)


def other_error() -> type[Any]:
    """A reset connection ends as a closed one."""

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        Base._call_connection_lost(self, None if isinstance(exc, ConnectionResetError) else exc)

    return planted(_call_connection_lost)


def open_descriptor() -> type[Any]:
    """The descriptor stays open after a failed read."""

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        if isinstance(exc, OSError):
            self._loop._leak = os.dup(self._sock_fd)
        Base._call_connection_lost(self, exc)

    return planted(_call_connection_lost)


def pauses_early() -> type[Any]:
    """pause_writing() at the limit, not above."""

    def set_write_buffer_limits(self: Any, high: int | None = None, low: int | None = None) -> None:
        Base.set_write_buffer_limits(self, high, low)
        self._high_water -= self._high_water == 100

    return planted(set_write_buffer_limits)


def keeps_buffer() -> type[Any]:
    """A bytearray is not copied."""

    def write(self: Any, data: Any) -> None:
        super(Stream, self).write(data)

    return planted(write)


def swallows_exit() -> type[Any]:
    """KeyboardInterrupt in data_received() is taken for an error."""

    def _read_ready(self: Any) -> None:
        try:
            Base._read_ready(self)
        except KeyboardInterrupt as error:
            self._fatal_error(RuntimeError(str(error)))

    return planted(_read_ready)


def reads_after_close() -> type[Any]:
    """What came before close() is read all the same."""

    def close(self: Any) -> None:
        if not self._closing and self.is_reading():
            with contextlib.suppress(OSError):
                data = self._sock.recv(1 << 16)
                if data and not hasattr(self._protocol, "get_buffer"):
                    self._protocol.data_received(data)
        Base.close(self)

    return planted(close)


def half_close_ends() -> type[Any]:
    """After eof_received() that answers True the writing side is closed, too."""

    def _read_ready__on_eof(self: Any) -> None:
        Base._read_ready__on_eof(self)
        if not self._closing:
            self._sock.shutdown(socket.SHUT_WR)

    return planted(_read_ready__on_eof)


FAULTS = (
    lost_chunk,
    sent_twice,
    no_resume_of_reading,
    no_resume_of_writing,
    late_write,
    dropped_eof,
    abort_flushes,
    close_drops,
    lost_twice,
    other_error,
    open_descriptor,
    pauses_early,
    keeps_buffer,
    swallows_exit,
    reads_after_close,
    half_close_ends,
)


def plant(make: Callable[[], type[Any]]) -> str:
    """Have a form with this fault; its name."""
    transport = make()

    class Planted(Loop):
        """With this transport."""

        kind = transport

    FORMS[make.__name__] = Form(contextlib.nullcontext, Planted)
    return make.__name__


def found_after(make: Callable[[], type[Any]], seed: int, count: int) -> int | None:
    """By how many programs a fault is found; None if by none of `count`."""
    name = plant(make)
    for number in range(count):
        program = generate(f"{seed}-{number}")
        if any(step.op == "exit" for step in program.steps) or all(
            conn.kind == "tls" for conn in program.conns
        ):
            continue
        if judge(program, (name,)):
            return number + 1
    return None


def measure(seed: int, count: int) -> int:
    """Print by how many programs each is found; how many are not."""
    missed = 0
    for make in FAULTS:
        after = found_after(make, seed, count)
        missed += after is None
        print(
            f"{make.__name__:<22} {'NOT FOUND' if after is None else f'after {after} programs'}",
            flush=True,
        )
    return missed
