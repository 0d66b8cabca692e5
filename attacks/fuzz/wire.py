"""What the interposed calls of one socket do (wire.c), told in Python."""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any

FUNCTION = ctypes.PYFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint32),
)
AHEAD = 2  # behind others of a batch


class Wire:
    """`with wire(sock, received, outcomes):` sends nothing, and receives what it is told.

    What is received is (data, address) or an errno; outcomes are an errno for each datagram that is
    sent, 0 if it goes, and so do all that follow.
    """

    def __init__(self) -> None:
        self.library = ctypes.PyDLL(None)
        self.function = FUNCTION(self.told)
        self.sent: list[Any] = []
        self.received: list[tuple[bytes, bytes] | int] = []
        self.outcomes: list[int] = []
        self.fd = -1

    def lookups(self) -> int:
        """How many names would have been looked up since it was last asked."""
        return int(self.library.fuzz_lookups())

    def __call__(
        self,
        sock: socket.socket | None,
        received: Iterable[tuple[bytes, bytes] | int] = (),
        outcomes: Iterable[int] = (),
    ) -> Wire:
        self.sent, self.received, self.outcomes = [], list(received), list(outcomes)
        self.fd = -1 if sock is None else sock.fileno()
        return self

    def __enter__(self) -> Wire:
        self.library.fuzz_wire(self.fd, self.function)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.library.fuzz_wire(-1, None)

    def told(self, sending: int, data: int, n: int, address: int, length: Any) -> int:
        if sending:
            error = self.outcomes[0] if self.outcomes else 0
            if error and sending == AHEAD:
                return -error  # it is asked for again
            del self.outcomes[:1]
            if not error:
                to = ctypes.string_at(address, length[0]) if address else b""
                self.sent.append((ctypes.string_at(data, n), to))
            return -error or n
        if not self.received:
            return -errno.EAGAIN
        given = self.received.pop(0)
        if isinstance(given, int):
            return -given
        size = min(n, len(given[0]))
        ctypes.memmove(data, given[0], size)
        if address:
            ctypes.memmove(address, given[1], min(length[0], len(given[1])))
            length[0] = len(given[1])
        return size
