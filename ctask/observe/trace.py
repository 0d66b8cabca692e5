"""What loops did, one step after the other: trace(), and what begins and ends one for others.

The records are made in C (src/loop/trace.c); here a trace begins and ends, collections of garbage
are noted, and what there was is given to timeline.py, which writes it down.
"""

import atexit
import contextlib
import gc
import logging
import os
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import ctask
from ctask import _ctask
from ctask.observe import graph, timeline
from ctask.observe.waits import chain_of, read, text

logger = logging.getLogger("ctask.trace")

MEMORY = 32 << 20  # bytes, of records


@dataclass(frozen=True)
class Raw:
    """What is left of a trace that has ended, before anybody has looked at it."""

    records: bytes
    """As src/loop/trace.c has them, the oldest first."""
    facts: dict[str, Any]
    """What JSON can say: names, places, threads, clocks."""


# ---- begin and end ----


def begin(memory: int = MEMORY) -> None:
    """Trace all loops from now on.  Raises RuntimeError if that is done already, MemoryError."""
    _ctask._trace_start(memory)
    gc.callbacks.append(_on_collection)


def end() -> Raw | None:
    """End it, and return what there is; None if there is no trace.  Any thread may do both."""
    _forget_collections()
    found = _ctask._trace_stop(True)
    if found is None:
        return None
    records, names, labels, threads, lost, began, ended = found
    return Raw(
        records=records,
        facts={
            "pid": os.getpid(),
            "version": ctask.__version__,
            "python": sys.version.partition(" ")[0],
            "when": time.time(),
            "names": [text(name) for name in names],
            "labels": [
                [[kind, text(name), text(file), line] for kind, name, file, line in links]
                for links in labels
            ],
            "threads": [graph._thread_name(ident) if ident else "" for ident in threads],
            "lost": lost,
            "began": began,
            "ended": ended,
            "living": [list(one) for one in _living()],
        },
    )


def drop() -> None:
    """End it, and forget what there is."""
    _forget_collections()
    _ctask._trace_stop(False)


def _living() -> list[tuple[int, str, str]]:
    """The number, the name and the coroutine of each task that is not done."""
    living = []
    for _, loop in _ctask._open_loops():
        for task in graph.tasks_of(loop):
            number = _ctask._task_serial(task)
            if number:
                links = chain_of(read(task, "_coro"))
                living.append((number, graph.name_of(task), links[0].name if links else ""))
                graph.give_way(len(living))
    return living


def _on_collection(phase: str, info: dict[str, int]) -> None:
    _ctask._trace_collection(-1 if phase == "start" else info["generation"])


def _forget_collections() -> None:
    with contextlib.suppress(ValueError):
        gc.callbacks.remove(_on_collection)


# ---- for a program ----

_current: "Trace | None" = None


class Trace:
    """What trace() returns: a context manager that writes the file when its block ends."""

    def __init__(self, path: str | os.PathLike[str], memory: int) -> None:
        global _current
        self._path = os.fspath(path)
        self._ended = False
        begin(memory)
        try:
            self._file = open_output(self._path)
        except BaseException:
            self._ended = True
            drop()
            raise
        _current = self
        atexit.register(self.stop_and_say)

    def stop(self) -> None:
        """End the trace and write the file; once more does nothing.

        Raises OSError if the file cannot be written: then it is empty.
        """
        global _current
        if self._ended:
            return
        self._ended = True
        _current = None
        atexit.unregister(self.stop_and_say)
        raw = end()
        assert raw is not None
        write(raw, self._file, self._path)

    def stop_and_say(self) -> bool:
        """Do the same, with a line on stderr for an OSError; return whether there was none."""
        try:
            self.stop()
        except OSError as error:
            print(f"ctask: {cannot_write(self._path, error)}", file=sys.stderr)
            return False
        return True

    def _forget(self) -> None:
        """In a forked child, whose trace the file is not."""
        self._ended = True
        atexit.unregister(self.stop_and_say)
        self._file.close()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except OSError as error:
            if exc is None:
                raise
            logger.error("%s", cannot_write(self._path, error))


def trace(path: str | os.PathLike[str], *, memory: int = MEMORY) -> Trace:
    """Write down what all loops of the process do from now on: steps, waits, wake-ups, callbacks.

    The file is written when the `with` block ends, or by stop(). A path that ends with `.html`
    gets a page that draws the timeline, any other the Trace Event format, as Perfetto and Chrome
    open it. memory is what records may take, in bytes: once they have, the youngest take the place
    of the oldest. Loops that are made later are traced, too, in any thread. In a forked child the
    trace ends, and writes nothing.

    Raises RuntimeError if the process is traced already, OSError if the file cannot be opened (and
    stop() if it cannot be written), ValueError if memory is not more than 0.
    """
    if not 0 < memory <= sys.maxsize:
        raise ValueError("the memory for a trace is more than 0 bytes")
    return Trace(path, memory)


def open_output(path: str) -> TextIO:
    """Open the file for write(); what is in it stays until then.  Raises OSError."""
    return open(path, "a", encoding="utf-8")


def write(raw: Raw, file: TextIO, path: str) -> None:
    """Write a trace in the format that the path's end names, and close the file.

    Raises OSError, and then the file is empty.
    """
    try:
        with file:
            with contextlib.suppress(OSError):
                file.truncate(0)  # a pipe has nothing
            made = timeline.Timeline(raw.records, raw.facts)
            parts = timeline.page(made) if path.endswith(".html") else timeline.events(made)
            for part in parts:
                file.write(part)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
        raise


def cannot_write(path: str, error: OSError) -> str:
    """One line for a person, which says what to do."""
    return f"the trace cannot be written to {path!r}: {error.strerror or error}: name another file"


def _after_fork() -> None:
    global _current
    if _current is not None:
        _current._forget()
    _current = None
    drop()


os.register_at_fork(after_in_child=_after_fork)
