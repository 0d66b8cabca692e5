"""StreamReader, StreamReaderProtocol and StreamWriter: C cores over asyncio's own classes.

They work on any loop and any transport, and with asyncio's own of the other two.
"""

import asyncio
import sys
from asyncio import streams
from typing import TYPE_CHECKING, Any

from ctask import _ctask


class StreamReader(_ctask.StreamReader, asyncio.StreamReader):
    """The bytes that a connection has received: read(), readexactly(), readline(), readuntil().

    Stands for asyncio.StreamReader, which it derives from.
    """

    __slots__ = ()


class StreamReaderProtocol(_ctask.StreamReaderProtocol, streams.StreamReaderProtocol):
    """What a transport calls and a StreamReader hears of.

    Stands for asyncio.StreamReaderProtocol, which it derives from.
    """

    __slots__ = ()

    if sys.version_info < (3, 14):
        if TYPE_CHECKING:

            @property
            def _stream_reader(self) -> Any: ...

        # After start_tls() the reader is to stop and start the new transport.
        if sys.version_info >= (3, 13):

            def _replace_transport(self, transport: Any) -> None:
                super()._replace_transport(transport)  # type: ignore[misc]
                if self._stream_reader is not None:
                    self._stream_reader._transport = transport

        else:

            def _replace_writer(self, writer: Any) -> None:
                super()._replace_writer(writer)  # type: ignore[misc]
                if self._stream_reader is not None:
                    self._stream_reader._transport = writer.transport


class StreamWriter(_ctask.StreamWriter, asyncio.StreamWriter):
    """The writing side of a connection: write(), drain(), close().

    Stands for asyncio.StreamWriter, which it derives from.
    """

    __slots__ = ()


_ctask._over(StreamReader, asyncio.StreamReader)
_ctask._over(StreamReaderProtocol, streams.StreamReaderProtocol)
_ctask._over(StreamWriter, asyncio.StreamWriter)

_stock_connection_made: Any = vars(streams.StreamReaderProtocol)["connection_made"]


def connection_made(protocol: Any, transport: Any) -> None:
    """Do what `StreamReaderProtocol.connection_made()` does from 3.14 on, before.

    Who waits for the connection and fails, or is cancelled, leaves no connection open.
    """
    connected = protocol._client_connected_cb

    def failed(exception: BaseException) -> None:
        protocol._loop.call_exception_handler(
            {
                "message": "Unhandled exception in client_connected_cb",
                "exception": exception,
                "transport": transport,
            }
        )
        transport.close()

    def callback(task: Any) -> None:
        if task.cancelled():
            transport.close()
        elif task.exception() is not None:
            failed(task.exception())

    callback.__qualname__ = "StreamReaderProtocol.connection_made.<locals>.callback"

    def connect(reader: Any, writer: Any) -> None:
        try:
            result = connected(reader, writer)
        except Exception as exc:
            failed(exc)
            return
        if asyncio.iscoroutine(result):
            protocol._task = protocol._loop.create_task(result)
            protocol._task.add_done_callback(callback)

    protocol._client_connected_cb = connect
    try:
        _stock_connection_made(protocol, transport)
    finally:
        protocol._client_connected_cb = connected
