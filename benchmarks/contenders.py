"""The contenders: how each of them runs a coroutine, and how a process of its own is started for
it.

Every contender runs in its own process, since ctask.install() changes asyncio for the whole
process.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from .paths import ROOT

CONTENDERS = ("asyncio", "uvloop", "rloop", "zuvloop", "ctask")  # the order of the tables' columns
BASELINE = "asyncio"
# Beside them, for the network only: ctask's loop without ctask.install(); aiofastnet's transports
# on asyncio's loop; what no event loop can beat.
FLOOR = "floor"  # the scenarios' own Python code, see c/floor.c; for the core only
LIMITS = ("protocol-limit", "c-limit")
NETWORK_CONTENDERS = (*CONTENDERS, "ctask-loop", "aiofastnet", *LIMITS)
# ctask while all that it does is written down, and while a thread watches for what blocks it; for
# the core only.
OBSERVED = ("ctask-traced", "ctask-watched")
WHEEL = "ctask-wheel"  # another build of ctask, in the folder that this variable names; --wheel
WHEEL_FOLDER = "CTASK_WHEEL"
# Of the loop; else the name itself.
MODULES = {
    **dict.fromkeys(("ctask-loop", WHEEL, *OBSERVED), "ctask"),
    "aiofastnet": "asyncio",
}

RunMain = Callable[[Coroutine[Any, Any, Any]], Any]


class Absent(Exception):
    """The contender cannot be imported here; the message says why."""


def runner(name: str) -> tuple[RunMain, str]:
    """Return how `name` runs a main coroutine, and its version. Raises Absent."""
    if name == BASELINE:
        return asyncio.run, sys.version.split()[0]
    if name == FLOOR:
        return run_floor(), "-"
    package = name.split("-")[0]
    if name == WHEEL:
        sys.path.insert(0, os.environ[WHEEL_FOLDER])
    elif package == "ctask":
        prefer_compiled()
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise Absent(str(error)) from None
    version = getattr(module, "__version__", None) or installed_version(package)
    if name in ("ctask", WHEEL, *OBSERVED):
        if name == WHEEL and not Path(module.__file__ or "").is_relative_to(sys.path[0]):
            raise Absent(f"no ctask in {sys.path[0]}")
        module.install()
        return (run_observed(name) if name in OBSERVED else asyncio.run), version
    factory = module.loop_factory() if name == "aiofastnet" else module.new_event_loop

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as running:
            return running.run(main)

    return run, version


def run_observed(name: str) -> RunMain:
    """Run in what `name` names, begun anew each time: forked processes do not inherit it.

    A trace is made and dropped, and not written to a file.
    """
    import ctask
    from ctask.observe import trace

    def run_traced(main: Coroutine[Any, Any, Any]) -> Any:
        trace.begin()
        try:
            return asyncio.run(main)
        finally:
            trace.drop()

    def run_watched(main: Coroutine[Any, Any, Any]) -> Any:
        watch = ctask.watch(0.1)
        try:
            return asyncio.run(main)
        finally:
            watch.stop()

    return run_traced if name == "ctask-traced" else run_watched


def run_floor() -> RunMain:
    """Put the floor's names in the place of asyncio's. Raises Absent."""
    from . import native

    try:
        module = native.extension(FLOOR)
    except native.NotBuilt as error:
        raise Absent(str(error)) from None
    for name, function in vars(module).items():
        if not name.startswith("_"):
            setattr(asyncio, name, function)
    run: RunMain = module.run
    return run


def prefer_compiled() -> None:
    """If ctask is not compiled in this tree, the tree's package must not hide an installed one."""
    if not (ROOT / "ctask" / f"_ctask{sysconfig.get_config_var('EXT_SUFFIX')}").exists():
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def installed_version(name: str) -> str:
    from importlib import metadata  # here: a second under valgrind, and most have __version__

    return metadata.version(name)


def identify() -> dict[str, str]:
    """Call it in a task: the types of the loop and the task that really run."""
    loop, task = type(asyncio.get_running_loop()), type(asyncio.current_task())
    return {
        "loop": f"{loop.__module__}.{loop.__qualname__}",
        "task": f"{task.__module__}.{task.__qualname__}",
    }


def proof(name: str, hello: dict[str, str], answer: dict[str, Any]) -> dict[str, str]:
    """Return what ran, from a worker's answers. Raises RuntimeError if it was not the contender's
    own loop.
    """
    module = answer["loop"].split(".")[0].lstrip("_")
    if name not in LIMITS and module != MODULES.get(name, name):
        raise RuntimeError(f"{name}: the loop that ran was {answer['loop']}")
    return {"version": hello["version"], "loop": answer["loop"], "task": answer["task"]}


def environment(**extra: str) -> dict[str, str]:
    """The environment of every worker: the caller's, without what changes the interpreter's
    behaviour.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON") or key in ("PYTHONPATH", "PYTHONHOME")
    }
    return kept | extra


def start(
    arguments: list[str], *, prefix: list[str] | None = None, stderr: Any = None, **extra: str
) -> subprocess.Popen[str]:
    """Start `python -m benchmarks.drivers.worker ARGUMENTS`; its standard input and output are
    pipes of text.
    """
    return subprocess.Popen(
        [*(prefix or []), sys.executable, "-m", "benchmarks.drivers.worker", *arguments],
        cwd=ROOT,
        env=environment(**extra),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def piped(command: list[str]) -> subprocess.Popen[str]:
    """A program that is no worker, its output and errors being pipes of text."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )


def described(error: Exception) -> str:
    """On one line, for a table's footnotes."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")[:200]
