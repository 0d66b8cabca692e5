"""A process that plays programs in one mode: `python -m attacks.programs.worker MODE [MUTANT]`.

Reads (marshal) a length and code, writes a length and the program's log, until its input ends.
"""

from __future__ import annotations

import faulthandler
import gc
import marshal
import os
import resource
import struct
import sys
import types
from typing import BinaryIO

from . import world


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


def main(mode: str, mutant: str = "") -> None:
    given, answers = os.fdopen(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_loop, debug = world.make(mode)
    if mutant:
        from . import mutants

        mutants.apply(mutant)
    gc.disable()  # when it collects, nobody says
    gc.collect()
    gc.freeze()
    while (data := read(given)) is not None:
        code = marshal.loads(data)
        assert isinstance(code, types.CodeType)
        try:
            log = world.play(code, make_loop, debug)
        except BaseException as error:
            log = f"PLAY {world.World(world.SETTINGS).show(error)}"
        write(answers, log.encode("utf-8", "backslashreplace"))
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
