"""Runs the programs that it is given as JSON on standard input, each in a process forked from this
one, and prints what came of them: [[status, what was printed], ...], also as JSON.

A program may have `await` at its top level. What serves without an end is run until its loop waits.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import unittest

import ctask
from ctask import _ctask

SECONDS = 60  # for one of them: a machine may be busy
PREAMBLE = {"asyncio": asyncio, "ctask": ctask, "unittest": unittest}


def main() -> None:
    outcomes = [outcome(program) for program in json.load(sys.stdin)]
    json.dump(outcomes, sys.stdout)


def outcome(program: dict) -> tuple[int, str]:
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                signal.alarm(SECONDS)
                run(program)
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return status, said.read()


def run(program: dict) -> None:
    source, path = program["source"], program["path"]
    with open(path, "w") as file:  # for who shows lines of it
        file.write(source)
    code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    vars(module).update(PREAMBLE)
    if program["serves"]:
        threading.Thread(target=end_when_a_loop_waits, daemon=True).start()
    if code.co_flags & inspect.CO_COROUTINE:
        ctask.run(eval(code, vars(module)))
    else:
        exec(code, vars(module))


def end_when_a_loop_waits() -> None:
    while not any(map(waits, [loop for _, loop in _ctask._open_loops()])):
        time.sleep(0.01)
    os._exit(0)


def waits(loop: ctask.EventLoop) -> bool:
    return loop.is_running() and ctask.stats(loop).idle > 0.02


if __name__ == "__main__":
    main()
