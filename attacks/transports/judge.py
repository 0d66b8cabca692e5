"""What asyncio and ctask made of a program, and whether that is the same."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .program import DATAGRAMS, Program
from .stage import Log, perform
from .stock import MENDED, make_loop

# A difference counts if no two of so many runs are alike: the kernel has moods, about TCP's windows
# above all.
AGAIN = 4


@dataclass(frozen=True)
class Form:
    """Something that runs programs."""

    enter: Callable[[], contextlib.AbstractContextManager[Any]]
    make_loop: Callable[[], Any]
    debug: bool = False


def ctask_loop() -> Any:
    """ctask's."""
    import ctask

    return ctask.EventLoop()


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """While asyncio's names are ctask's."""
    import ctask

    ctask.install()
    try:
        yield
    finally:
        ctask.uninstall()


FORMS = {
    "asyncio": Form(contextlib.nullcontext, make_loop),
    "asyncio debug": Form(contextlib.nullcontext, make_loop, debug=True),
    "loop": Form(contextlib.nullcontext, ctask_loop),
    "installed": Form(installed, ctask_loop),
    "debug": Form(contextlib.nullcontext, ctask_loop, debug=True),
}
CANDIDATES = ("loop", "installed", "debug")


@dataclass
class Verdict:
    """Where two logs part; nothing if `form` is empty."""

    form: str = ""
    stock: Log | None = None
    ours: Log | None = None
    why: str = ""

    def __bool__(self) -> bool:
        return bool(self.form)

    def __str__(self) -> str:
        if not self or self.stock is None or self.ours is None:
            return self.why or "the same"
        lines = [self.why] if self.why else []
        for name in self.stock:
            a, b = self.stock[name], self.ours.get(name, [])
            if a == b:
                continue
            lines.append(f"  {name:<4} {'asyncio':<44} | {self.form}")
            for i in range(max(len(a), len(b))):
                left = a[i] if i < len(a) else ""
                right = b[i] if i < len(b) else ""
                lines.append(f"    {' ' if left == right else '>'} {left:<44} | {right}")
        return "\n".join(lines)


def once(program: Program, form: str) -> Log:
    """Run it, and take out what need not be alike."""
    how = FORMS[form]
    with how.enter():
        log = perform(program, how.make_loop, debug=how.debug)
    return normal(program, log)


FLOW = re.compile(r"(pause|resume)\b(?! ->| raises)")


def normal(program: Program, log: Log) -> Log:
    """The log without what asyncio does not promise, and what docs/differences.md names."""
    changed: Log = {}
    for name, lines in log.items():
        kind = program.conns["ab".index(name[0])].kind if name != "loop" else ""
        tls = kind.startswith("tls") or any(
            step.op == "start_tls" and name != "loop" and step.conn == "ab".index(name[0])
            for step in program.steps
        )
        if tls:
            lines = tls_lines(lines)
        if kind in DATAGRAMS and not MENDED:
            lines = [
                line for line in lines if not FLOW.match(line)
            ]  # 8 bytes of each datagram are counted for ever
        if kind in ("tcp", "server") and "peer's end: ECONNRESET" in lines:
            lines = [
                re.sub(r"^(peer has )?\d+( ECONNRESET)?$", "?", line) for line in lines
            ]  # what TCP had taken
        if name == "loop" and any(conn.kind in DATAGRAMS for conn in program.conns):
            lines = [line for line in lines if line != "logged socket.send() raised exception."]
        changed[name] = lines
    return changed


def tls_lines(lines: list[str]) -> list[str]:
    """TLS: when writing is paused differs, and so does an exception's type."""
    kept: list[str] = []
    for line in lines:
        if FLOW.match(line):
            continue
        if line.startswith("data ") and kept and kept[-1].startswith("data "):
            kept.pop()
        kept.append(line.replace("SendfileNotAvailableError", "RuntimeError"))
    return kept


# What asyncio says where it has not looked ahead; what it should do instead nobody has said.
ACCIDENTS = (
    # In each iteration, once resume_writing() has raised KeyboardInterrupt.
    "AssertionError(Data should not be empty)",
    # A TLS transport closed twice, or a datagram transport that is lost.
    "AttributeError('NoneType' object has no",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",  # docs/differences.md
    # Two at a time.
    "sendfile: KeyError(",
    # A sendfile() that has ended, and a connection that is lost.
    "InvalidStateError(invalid state)",
)


def accident(program: Program, stock: Log) -> bool:
    """Whether asyncio stumbled, so that nothing can be compared."""
    if any(step.op == "behind" for step in program.steps) and "EBADF" in str(stock):
        return True  # its selector and its transport each find out, sometimes in another callback
    return any(text in line for lines in stock.values() for line in lines for text in ACCIDENTS)


def judge(program: Program, candidates: tuple[str, ...] = CANDIDATES) -> Verdict:
    """Run a program on asyncio and on each candidate."""
    stock = once(program, "asyncio")
    if accident(program, stock):
        return Verdict()
    for form in candidates:
        ours = once(program, form)
        if ours == stock:
            continue
        theirs, mine = [stock], [ours]
        for _ in range(AGAIN - 1):
            theirs.append(once(program, "asyncio"))
            mine.append(once(program, form))
        if FORMS[form].debug:
            theirs.append(once(program, "asyncio debug"))
        if not any(a == b for a in theirs for b in mine):
            return Verdict(form, stock, ours)
    return Verdict()
