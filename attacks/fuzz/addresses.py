"""Addresses: what is written in numbers, and what the kernel has, in both directions.

The socket module says what is right. Nothing is sent, and no name is looked up (wire.c).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import ctask

from .supply import Differs, Supply, raised, same
from .wire import Wire

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
BITS = (0, 0, 1, 2, 4, 8, 0x20, 0x400, 1 << 30, -1)
HOSTS = ("127.0.0.1", "::1", "fe80::1", "fe80::1%1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "/a/b")
NUMBERS = (0, 1, 80, 65535, 65536, -1, 0xFFFFF, 0x100000, 2**32 - 1, 2**32, 2**64)


class Loop(ctask.EventLoop):
    """Its executor does nothing: what it was asked for is the answer."""

    async def _asked(self, *asked: Any) -> Any:
        return ("executor", *asked)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        return self._asked(getattr(func, "__name__", func), *args)


def outcome(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    try:
        return repr(function(*args, **options))
    except Exception as error:
        return raised(error, 0)


def alone(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        function(*args, **options).send(None)
    except StopIteration as stop:
        return stop.value
    raise Differs("it waits")


def number(supply: Supply) -> Any:
    kind = supply.byte() % 8
    if kind < 4:
        return supply.number()
    return (*NUMBERS, None, True, 1.5, "80")[supply.byte() % 15] if kind < 7 else supply.text()


def host(supply: Supply) -> Any:
    """An address, one with another letter in it, or anything."""
    kind = supply.byte() % 16
    if kind == 15:
        return supply.pick((None, 7, b"", bytearray(b"::1"), ("::1",)))
    if kind > 10:
        return supply.text() if kind > 12 else supply.piece()
    text = supply.pick(HOSTS)
    if kind > 5:
        at = supply.byte() % len(text)
        text = text[:at] + chr(supply.byte()) + text[at + (kind & 1) :]
    return text.encode("latin-1") if kind in (0, 6) else text


class Target:
    def __init__(self) -> None:
        self.loop = Loop()
        self.wire = Wire()
        self.socks = {
            family: socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            for family in FAMILIES
        }
        self.parts = (self.getaddrinfo, self.getnameinfo, self.send, self.send, self.receive)

    def __call__(self, data: bytes) -> None:
        supply = Supply(data)
        part = supply.pick(self.parts)
        for _ in range(8):
            part(supply)
            if not supply:
                break

    def getaddrinfo(self, supply: Supply) -> None:
        """What is answered at once needs no look-up, and is what the socket module says."""
        name, port = host(supply), number(supply)
        names = ("family", "type", "proto", "flags")
        given = {
            "family": int(supply.pick((0, *FAMILIES, -1))),
            "type": int(supply.pick((0, socket.SOCK_STREAM, socket.SOCK_DGRAM, 99))),
            "proto": supply.pick((0, 6, 17, -1)),
            "flags": supply.pick(BITS),
        }
        self.wire.lookups()
        told = outcome(alone, self.loop.getaddrinfo, name, port, **given)
        looked_up = self.wire.lookups()
        if told.startswith("('executor'"):
            asked = ("executor", "getaddrinfo", name, port, *map(given.__getitem__, names))
            same([told], [repr(asked)], f"getaddrinfo({name!r}, {port!r}, {given})")
            return
        if looked_up:
            raise Differs(f"getaddrinfo({name!r}, {port!r}, {given}) is looked up while all wait")
        stock = outcome(socket.getaddrinfo, name, port, *map(given.__getitem__, names))
        same([told], [stock], f"getaddrinfo({name!r}, {port!r}, {given})")

    def getnameinfo(self, supply: Supply) -> None:
        address: Any = (host(supply), number(supply), number(supply), number(supply))
        address = supply.pick((address[:2], address, address[:3], address[:1], list(address)))
        flags = supply.pick((0, 1, 2, 3, 3, 11, 16, 19, True, None, -1))
        told = outcome(alone, self.loop.getnameinfo, address, flags)
        if told.startswith("('executor'"):
            stock = repr(("executor", "getnameinfo", address, flags))
        else:
            if type(flags) is not int or flags & 3 != 3:
                raise Differs(f"getnameinfo({address!r}, {flags!r}) is looked up while all wait")
            stock = outcome(socket.getnameinfo, address, flags)
        same([told], [stock], f"getnameinfo({address!r}, {flags!r})")

    def send(self, supply: Supply) -> None:
        """sock_sendto(): the kernel gets the same structure, or the error is the same."""
        sock = self.socks[supply.pick(FAMILIES)]
        address: Any = (host(supply), number(supply), number(supply), number(supply))
        cut = (2, 2, 4, 3, 1)[supply.byte() % 5]
        if sock.family == socket.AF_UNIX:
            address = address[0]
        elif cut > 1 or address[0]:
            address = address[:cut]
        logs = []
        for function, args in ((sock.sendto, ()), (self.sendto, (sock,))):
            with self.wire(sock) as wire:
                logs.append([outcome(function, *args, b"data", address), wire.sent])
        same(logs[1], logs[0], f"sendto({address!r}) of {sock.family!r}")

    def sendto(self, sock: socket.socket, data: bytes, address: Any) -> Any:
        return alone(self.loop.sock_sendto, sock, data, address)

    def receive(self, supply: Supply) -> None:
        """sock_recvfrom(): what the kernel has is the same address."""
        sock = self.socks[supply.pick(FAMILIES)]
        family = struct.pack("=H", sock.family)
        if sock.family == socket.AF_INET:
            address = family + supply.take(14).ljust(14, b"\0")
        elif sock.family == socket.AF_INET6:
            address = family + supply.take(26).ljust(26, b"\0")
        else:
            path = supply.take(supply.byte() % 109)
            address = family + path if supply.byte() & 1 or path else b""
        logs = []
        for function in (sock.recvfrom, lambda n: alone(self.loop.sock_recvfrom, sock, n)):
            with self.wire(sock, [(b"data", address)]):
                logs.append([outcome(function, 100)])
        same(logs[1], logs[0], f"from {address!r}")
