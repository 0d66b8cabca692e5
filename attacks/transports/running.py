"""Many programs, in processes of their own.  What differs is made smaller and printed."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from .judge import CANDIDATES, FORMS, Verdict, judge
from .program import Program, generate

BATCH = 50
SECONDS = 40  # for one program


def in_child(work: Callable[[Callable[[Any], None]], None], seconds: float) -> Iterator[Any]:
    """Do work in a child; what it tells, then how it died: None if it did not."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a watchdog's thread, which has no locks
        pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with os.fdopen(writing, "wb", 0) as file:
                # Should who asks be gone, this ends as well.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(seconds) + 20)

                def tell(what: Any) -> None:
                    signal.alarm(int(seconds) + 20)
                    data = pickle.dumps(what)
                    file.write(len(data).to_bytes(8, "big") + data)

                work(tell)
            status = 0
        except BrokenPipeError:
            pass  # who asked has gone
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writing)
    died: str | None = None
    with os.fdopen(reading, "rb", 0) as file:
        buffered = b""
        until = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([file], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                os.kill(pid, signal.SIGABRT if faulthandler.is_enabled() else signal.SIGKILL)
                died = "hangs"
                break
            data = file.read(1 << 16)
            if not data:
                break
            buffered += data
            while len(buffered) >= 8 and len(buffered) >= 8 + int.from_bytes(buffered[:8], "big"):
                end = 8 + int.from_bytes(buffered[:8], "big")
                told, buffered = pickle.loads(buffered[8:end]), buffered[end:]
                until = time.monotonic() + seconds
                yield told
    _, status = os.waitpid(pid, 0)
    if died is None and status:
        died = f"ends with {os.waitstatus_to_exitcode(status)}"
    yield died


def judged(program: Program, candidates: tuple[str, ...]) -> Verdict:
    """judge() in a child."""

    def work(tell: Callable[[Any], None]) -> None:
        tell(judge(program, candidates))

    *told, died = in_child(work, SECONDS)
    if died is not None:
        return Verdict("crash", why=f"the process {died}")
    verdict: Verdict = told[0]
    return verdict


def shrink(
    program: Program, candidates: tuple[str, ...], seconds: float
) -> tuple[Program, Verdict]:
    """The smallest program found that still differs."""
    verdict = judged(program, candidates)
    until = time.monotonic() + seconds
    if not verdict:
        return program, verdict
    found = True
    while found and time.monotonic() < until:
        found = False
        for smaller in program.smaller():
            if time.monotonic() > until:
                break
            new = judged(smaller, candidates)
            if new and new.form == verdict.form:
                program, verdict, found = smaller, new, True
                break
    return replace(program, form=verdict.form), verdict


def show(program: Program, form: str = "loop") -> None:
    """Print what asyncio and ctask make of a program."""
    print(judged(program, (form,) if form in FORMS else CANDIDATES))


def report(number: int, name: str, program: Program, verdict: Verdict) -> None:
    """A fault, with what is needed to see it again."""
    print(f"\n---- {number}: program {name}, {verdict.form or verdict.why}")
    print(program.code())
    print(verdict, flush=True)


def run(seed: int, count: int, options: list[str]) -> int:
    """The attack."""
    parser = argparse.ArgumentParser(prog="python -m attacks transports")
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument(
        "--form", action="append", choices=sorted(FORMS), help="instead of all of ctask's"
    )
    parser.add_argument("--faults", type=int, default=10, help="end after so many")
    parser.add_argument("--shrink", type=float, default=30, help="seconds for making one smaller")
    parser.add_argument(
        "--planted",
        action="store_true",
        help="faults in asyncio's own transports: which are found?",
    )
    parser.add_argument("--only", help="programs with this kind of connection")
    args = parser.parse_args(options)
    if args.planted:
        from .planted import measure

        return measure(seed, count)
    candidates = tuple(args.form or CANDIDATES)
    faults = 0
    for name, program, verdict in differing(seed, args.first, count, candidates, args.only):
        faults += 1
        less, again = shrink(program, candidates, args.shrink)
        if again:
            report(faults, name, less, again)
        else:
            report(faults, name, program, verdict)
            print("  (not by itself, or not each time)", flush=True)
        if faults >= args.faults:
            break
    return faults


def differing(
    seed: int, first: int, count: int, candidates: tuple[str, ...], only: str | None = None
) -> Iterator[tuple[str, Program, Verdict]]:
    """The programs that differ."""
    with contextlib.suppress(ValueError, OSError):
        faulthandler.enable()
    gc.collect()
    gc.freeze()
    at, last = first, first + count
    while at < last:
        upto = min(at + BATCH, last)

        def work(tell: Callable[[Any], None], at: int = at, upto: int = upto) -> None:
            for number in range(at, upto):
                program = generate(f"{seed}-{number}")
                if only and all(conn.kind != only for conn in program.conns):
                    continue
                tell((number, None))
                tell((number, judge(program, candidates)))

        begun = at
        done = upto
        for told in in_child(work, SECONDS):
            if isinstance(told, tuple):
                begun = told[0]
                if told[1]:
                    name = f"{seed}-{begun}"
                    yield name, generate(name), told[1]
            elif told is not None:
                name = f"{seed}-{begun}"
                yield name, generate(name), Verdict("crash", why=f"the process {told}")
                done = begun + 1
        at = done


def sampled(seed: int, count: int) -> list[Program]:
    """Programs, for tests."""
    rng = Random(seed)
    return [generate(f"{rng.random()}") for _ in range(count)]
