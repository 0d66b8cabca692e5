"""A process that plays programs in one mode: `python -m attacks.programs.worker MODE [MUTANT]`.

Reads code (marshal), writes the program's log, until its input ends.
"""

from __future__ import annotations

import faulthandler
import gc
import marshal
import os
import resource
import sys
import types

from . import world
from .wire import read, write


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
