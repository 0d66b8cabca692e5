"""Messages between the driver and its workers: a length, four bytes, and as many bytes."""

from __future__ import annotations

import struct
from typing import BinaryIO


def read(stream: BinaryIO) -> bytes | None:
    """The next message; None at the end. The stream may be without a buffer."""
    head = exactly(stream, 4)
    return None if head is None else exactly(stream, *struct.unpack("<I", head))


def exactly(stream: BinaryIO, length: int) -> bytes | None:
    data = b""
    while len(data) < length:
        more = stream.read(length - len(data))
        if not more:
            return None
        data += more
    return data


def write(stream: BinaryIO, data: bytes) -> None:
    left = memoryview(struct.pack("<I", len(data)) + data)
    while left:
        left = left[stream.write(left) :]
