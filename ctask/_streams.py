"""StreamReader, StreamReaderProtocol and StreamWriter: C cores over asyncio's own classes.

They work on any loop and any transport, and with asyncio's own of the other two.
"""

import asyncio
from asyncio import streams

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


class StreamWriter(_ctask.StreamWriter, asyncio.StreamWriter):
    """The writing side of a connection: write(), drain(), close().

    Stands for asyncio.StreamWriter, which it derives from.
    """

    __slots__ = ()


_ctask._over(StreamReader, asyncio.StreamReader)
_ctask._over(StreamReaderProtocol, streams.StreamReaderProtocol)
_ctask._over(StreamWriter, asyncio.StreamWriter)
