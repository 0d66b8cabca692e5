"""asyncio's loop, with what later releases of the same version have mended in its transports.

ctask does as the latest.  What may be changed after write() has returned is copied, as ctask does
(docs/differences.md)."""

from __future__ import annotations

import asyncio
import inspect
import sys
import unittest.mock
from asyncio import selector_events, sslproto
from typing import Any

Selector: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
DatagramTransport: Any = selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]
MENDED = "gh-156512" in inspect.getsource(Selector)


def unchanging(data: Any) -> Any:
    """Bytes, if it may change."""
    if isinstance(data, memoryview):
        return bytes(data) if data.c_contiguous and not data.readonly else data
    return bytes(data) if isinstance(data, bytearray) else data


class Stream(Selector):  # type: ignore[misc]
    """The transport of streams."""

    def write(self, data: Any) -> None:
        """Of a copy."""
        super().write(unchanging(data))

    def writelines(self, list_of_data: Any) -> None:
        """Of copies."""
        super().writelines([unchanging(data) for data in list_of_data])


class Mended(Stream):
    """The transport as of 3.13.14 and 3.14.5."""

    def writelines(self, list_of_data: Any) -> None:
        """Pause the protocol, count what is lost, leave out what is empty."""
        if self._eof or self._empty_waiter is not None or not list_of_data:
            super().writelines(list_of_data)
        elif self._conn_lost:
            self.write(b"lost")
        else:
            chunks = [chunk for chunk in list_of_data if chunk]
            if chunks:
                super().writelines(chunks)
                if self._buffer:
                    self._maybe_pause_protocol()

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        if self._protocol is None:
            return  # the second time
        self._conn_lost += not self._conn_lost
        super()._call_connection_lost(exc)

    def close(self) -> None:
        """Keep _write_ready, which is still needed."""
        selector_events._SelectorTransport.close(self)  # type: ignore[attr-defined]


class Datagrams(DatagramTransport):  # type: ignore[misc]
    """The transport of datagrams, whose header leaves the buffer with the datagram."""

    _header = 8 if sys.version_info >= (3, 13) else 0

    @property
    def _buffer_size(self) -> int:
        return sum(len(data) + self._header for data, _ in self._buffer)

    @_buffer_size.setter
    def _buffer_size(self, size: int) -> None: ...


kind: Any = Stream if MENDED or sys.version_info < (3, 12) else Mended


class Loop(asyncio.SelectorEventLoop):
    """With these transports."""

    kind = kind

    def mended(self) -> Any:
        """While a transport is made: of which class."""
        kinds = {"_SelectorSocketTransport": self.kind}
        if not MENDED:
            kinds["_SelectorDatagramTransport"] = Datagrams
        return unittest.mock.patch.multiple(selector_events, **kinds)

    def _make_socket_transport(self, *args: Any, **named: Any) -> Any:
        with self.mended():
            return super()._make_socket_transport(*args, **named)  # type: ignore[misc]

    def _make_ssl_transport(self, *args: Any, **named: Any) -> Any:
        with self.mended():
            return super()._make_ssl_transport(*args, **named)  # type: ignore[misc]

    def _make_datagram_transport(self, *args: Any, **named: Any) -> Any:
        with self.mended():
            return super()._make_datagram_transport(*args, **named)  # type: ignore[misc]


def is_closing(self: Any) -> Any:
    """Of a TLS transport: so is one whose transport below is closing."""
    below = self._ssl_protocol._transport if self._ssl_protocol is not None else None
    return self._closed or (below is not None and below.is_closing())


if not MENDED:
    sslproto._SSLProtocolTransport.is_closing = is_closing  # type: ignore[method-assign]


def make_loop() -> Any:
    """asyncio's loop."""
    return Loop()
