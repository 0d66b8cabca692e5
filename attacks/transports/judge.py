"""What asyncio and ctask made of a program, and whether that is the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .program import DATAGRAMS, SOCKS, Program
from .stage import Log, perform
from .stock import make_loop

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
            for (left, right), rows in itertools.groupby(itertools.zip_longest(a, b, fillvalue="")):
                line = f"    {' ' if left == right else '>'} {left:<44} | {right}"
                count = len(list(rows))
                lines += [line] * min(count, 3)
                if count > 3:
                    lines.append(f"      ({count} times)")
        return "\n".join(lines)


def once(program: Program, form: str) -> Log:
    """Run it, and take out what need not be alike."""
    how = FORMS[form]
    make = how.make_loop
    if make is make_loop and any(conn.subclass for conn in program.conns):
        make = (
            asyncio.SelectorEventLoop
        )  # ctask's transports of such sockets are asyncio's own, too
    with how.enter():
        log = perform(program, make, debug=how.debug)
    return normal(program, log, stock="asyncio" in form)


def broken(log: Log) -> bool:
    """Is there what nobody may do, whatever asyncio does?"""
    return any(line.startswith("BROKEN") for line in log["loop"])


AMOUNT = re.compile(r"^(peer has )?\d+( ECONNRESET| EOF)?$")
LOST = re.compile(r"lost (second )?\w+\(")
EXIT = re.compile(r"(raise|signal) raises (KeyboardInterrupt|SystemExit)")
UNDER_WAY = re.compile(
    r"write\w* raises RuntimeError\(unable to write\w*; sendfile is in progress\)"
)
BY_WRITE = re.compile(r"(?<=Cannot call )writelines|(?<=unable to )writelines")  # which it calls
RESETTING = {"sendall", "reset", "close"}
RESET = re.compile(r"^(recv|recv_into|sendall): (0|ConnectionResetError.*|BrokenPipeError.*)$")
SENT = re.compile(RESET.pattern.replace("(0|", "(0|None|"))
FLOW = re.compile(r"(pause|resume)\b(?! ->| raises)")


def normal(program: Program, log: Log, stock: bool) -> Log:
    """The log without what asyncio does not promise, and what docs/differences.md names."""
    changed: Log = {}
    ops = {step.op for step in program.steps}
    for name, lines in log.items():
        kind = program.conns["ab".index(name[0])].kind if name != "loop" else ""
        tls = kind.startswith("tls") or any(
            step.op == "start_tls" and name != "loop" and step.conn == "ab".index(name[0])
            for step in program.steps
        )
        if tls:
            lines = tls_lines(lines, stock)
            lost = any(LOST.match(line) for line in lines)
            if lost or "abort" in ops:
                lines = [AMOUNT.sub("?", line) for line in lines]  # what of a record had left
            if lost and any(EXIT.match(line) for line in lines):
                # How much of what that left unread is still delivered once all is lost.
                lines = [line for line in lines if not line.startswith("data ")]
        if sys.version_info < (3, 12):
            lines = [BY_WRITE.sub("write", line) for line in lines]
        if any(line.startswith("lost ") for line in lines):
            # A sendfile() that was lost while it waited for its turn is under way for ever.
            lines = [line for line in lines if not UNDER_WAY.match(line)]
        if kind in ("tcp", "server") and "peer's end: ECONNRESET" in lines:
            lines = [AMOUNT.sub("?", line) for line in lines]  # what TCP had taken
        if kind in SOCKS and {"sendall"} < ops & RESETTING:
            # Of a reset the kernel tells once, whoever asks first. And TCP may take the second time
            # what it does not announce, or tell of a reset; ctask asks it at once.
            ends = SENT if kind == "tcpsocks" else RESET
            lines = [
                ends.sub(r"\1 ?", line)
                for line in lines
                if line != "recv raises ConnectionResetError(ECONNRESET)"
            ]
            if kind == "tcpsocks":
                lines = [line for line in lines if line != "sendall ?"]
        if name == "loop" and any(conn.kind in DATAGRAMS for conn in program.conns):
            lines = [line for line in lines if line != "logged socket.send() raised exception."]
        changed[name] = lines
    return changed


def tls_lines(lines: list[str], stock: bool) -> list[str]:
    """TLS: when writing is paused differs; and ctask raises the exception that is documented."""
    kept: list[str] = []
    for line in lines:
        if FLOW.match(line):
            continue
        if line.startswith("data ") and kept and kept[-1].startswith("data "):
            kept.pop()
        if stock and line.startswith("sendfile: RuntimeError(fallback is disabled"):
            line = line.replace("RuntimeError", "SendfileNotAvailableError")
        kept.append(line)
    return kept


# What asyncio says where it has not looked ahead; what it should do instead nobody has said.
ACCIDENTS = (
    # TLS in TLS up to 3.12.1 at least, whenever the inner connection fails.
    "SSLProtocol._abort() takes 1 positional argument",
    # In each iteration, once resume_writing() has raised KeyboardInterrupt.
    "AssertionError(Data should not be empty)",
    # A TLS transport closed twice, or a datagram transport that is lost.
    "AttributeError('NoneType' object has no",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",  # docs/differences.md
    # Two at a time.
    "sendfile: KeyError(",
    # A socket that is closed while one receives from it and another sends.
    "callback: OSError(EBADF)",
    # A sendfile() that has ended, and a connection that is lost.
    "InvalidStateError(invalid state)",
)


def accident(program: Program, stock: Log) -> bool:
    """Whether asyncio stumbled, so that nothing can be compared."""
    if any(step.op in ("behind", "usurp") for step in program.steps) and re.search(
        "EBADF|ENOENT|EPERM", str(stock)
    ):
        return True  # its selector and its transport each find out, sometimes in another callback
    if "hangs" in stock["loop"] and any("raised " in line for line in stock["loop"]):
        return True  # who waits for a TLS connection never gets it: docs/differences.md
    return any(text in line for lines in stock.values() for line in lines for text in ACCIDENTS)


def judge(program: Program, candidates: tuple[str, ...] = CANDIDATES) -> Verdict:
    """Run a program on asyncio and on each candidate."""
    stock = once(program, "asyncio")
    stumbled = accident(program, stock)
    if stumbled and all(step.op != "usurp" for step in program.steps):
        return Verdict()
    for form in candidates:
        ours = once(program, form)
        if broken(ours) and all(broken(once(program, form)) for _ in range(AGAIN - 1)):
            return Verdict(form, stock, ours, "what nobody may do:")
        if stumbled or ours == stock:
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
