"""The attacked interpreter: warm, with wrap.c preloaded, it forks a process for each case.

Started by `run()` of the package, which gives it a plan (JSON) and reads a line (JSON) for each
scenario and each fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import random
import resource
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from typing import Any

from .._interpreter import planned
from . import calls, scenarios

NOTHING = -1
SECONDS = 8  # for a case, then it hangs
PATIENCE = 1.5  # seconds after something was told of; accepting goes on after one
CPU = 1.0  # seconds above ten times the usual, then it is busy

Case = dict[str, Any]
Outcome = dict[str, Any]


class Library:
    """wrap.c, which is in this process already."""

    def __init__(self, part: str | None, memory: bool) -> None:
        self._c = ctypes.CDLL(None)
        self._c.faults_count.restype = ctypes.c_long
        self._c.faults_plan.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long] + [
            ctypes.c_int
        ] * 3
        if self._c.faults_prepare(part.encode() if part else None, memory):
            raise SystemExit(f"no {part} is loaded")
        self.numbers = {name: self._c.faults_call(name.encode()) for name in calls.ERRORS}
        assert NOTHING not in self.numbers.values(), self.numbers

    def plan(self, case: Case) -> None:
        number = self.numbers[case["call"]] if case["call"] else NOTHING
        how = calls.number(case["how"])
        kind = case["kind"]
        self._c.faults_plan(
            number, case["n"], case["times"], how, kind == "memory", kind == "malloc"
        )

    @contextlib.contextmanager
    def armed(self) -> Any:
        self._c.faults_arm(1)
        try:
            yield
        finally:
            self._c.faults_arm(0)

    def fired(self) -> int:
        fired: int = self._c.faults_fired()
        return fired

    def where(self) -> list[int]:
        """Who called what failed: offsets in ctask's extension."""
        offsets = (ctypes.c_size_t * 8)()
        return list(offsets[: self._c.faults_where(offsets, 8)])

    def compiled(self) -> bool:
        """Was it the interpreter's compiler, called by ctask, that called what failed?"""
        return bool(self._c.faults_compiled())

    def counts(self) -> dict[str, int]:
        found = {name: self._c.faults_count(number) for name, number in self.numbers.items()}
        return {name: count for name, count in found.items() if count}


# ---- in the forked process ----


class GivenUp(BaseException):
    """What was told may have been what the scenario waits for: it is not waited for."""


class Notes:
    """Whatever was raised, and where somebody could hear of it."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, str, bool]] = []
        self.given_up = False

    def take(self, where: str, error: BaseException | None, text: str = "") -> None:
        if not self.raised:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                self.take(where, part, text)
        elif error is None:
            self.raised.append((where, text[:200], True))
        else:
            sensible = isinstance(error, (OSError, EOFError, MemoryError, asyncio.TimeoutError))
            sensible |= isinstance(error, asyncio.SendfileNotAvailableError)
            sensible |= isinstance(error, (asyncio.CancelledError, GivenUp)) and self.given_up
            where_from = traceback.extract_tb(error.__traceback__)[-3:]
            place = " < ".join(
                f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(where_from)
            )
            self.raised.append(
                (where, f"{type(error).__name__}: {error} ({text}) {place}"[:400], sensible)
            )


class Noted(logging.Handler):
    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.ERROR)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.take("logged", record.exc_info[1] if record.exc_info else None, record.msg)


def descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


async def still_works() -> None:
    """A timer, a thread, a socket: this loop still hears of all of them."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0.001)
    future = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, None))
    thread.start()
    await future
    thread.join()
    one, other = socket.socketpair()
    with one, other:
        reader, writer = await asyncio.open_connection(sock=one)
        other.send(b"line\n")
        assert await reader.readline() == b"line\n"
        writer.write(b"back")
        await writer.drain()
        assert other.recv(10) == b"back"
        writer.close()
        await writer.wait_closed()


def on_loop(main: scenarios.Main, library: Library, notes: Notes, step: Any) -> object:
    loop = asyncio.new_event_loop()
    result: object = None
    asyncio.set_event_loop(loop)

    def told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        notes.take("told", context.get("exception"), context["message"])

    loop.set_exception_handler(told)
    try:
        with library.armed():
            result = loop.run_until_complete(main())
    except BaseException as error:
        notes.take("raised", error)
    step("cancelling")
    for _ in range(3):  # what was left ready, which may be to stop
        loop.call_soon(loop.stop)
        loop.run_forever()
    for _ in range(3):
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        for task in left:
            if not task.cancelled() and task.exception() is not None:
                notes.take("left", task.exception())
    left = set()
    step("checking that the loop works")
    loop.run_until_complete(still_works())
    step("closing")

    def end_generators() -> None:
        loop.run_until_complete(loop.shutdown_asyncgens())

    def end_threads() -> None:
        loop.run_until_complete(loop.shutdown_default_executor())

    for close in (end_generators, end_threads, loop.close):
        try:
            with library.armed():
                close()
        except BaseException as error:
            notes.take("raised at the end", error)
            close()
    loop.close()
    asyncio.set_event_loop(None)
    return result


def attack(case: Case, library: Library, report: int, trace: Any) -> None:
    """The whole life of a forked process."""
    notes = Notes()
    outcome: Outcome = {"step": "started"}

    def step(name: str) -> None:
        outcome["step"] = name
        os.pwrite(report, json.dumps(outcome).encode().ljust(20000), 0)

    def out_of_time(*_: object) -> None:
        """What hangs tells what it knows, and dies of it."""
        outcome.update(raised=notes.raised, given_up=notes.given_up)
        outcome.update(fired=library.fired())
        step(outcome["step"])
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        faulthandler.dump_traceback(trace)
        os.abort()

    def give_up(*_: object) -> None:
        if notes.given_up or (outcome["step"] != "running" and case["kind"] != "syscalls"):
            notes.given_up = True
            out_of_time()
        elif outcome["step"] == "running":
            notes.given_up = True
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            raise GivenUp

    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGUSR2, out_of_time)

    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda it: notes.take(
        "unraisable", it.exc_value, str(it.err_msg or "") + type(it.object).__name__
    )
    threading.excepthook = lambda it: notes.take("in a thread", it.exc_value)
    for heard in ("asyncio", "concurrent.futures"):
        logger = logging.getLogger(heard)
        logger.handlers, logger.propagate = [Noted(notes)], False
    gc.collect()
    before = descriptors()
    library.plan(case)
    name = case["scenario"]
    scenarios.heard[:] = [lambda error: notes.take("lost", error)]
    step("running")
    result: object = None
    try:
        if name in scenarios.wholes:
            try:
                with library.armed():
                    result = scenarios.wholes[name]()
            except BaseException as error:
                notes.take("raised", error)
            step("checking that a new loop works")
            asyncio.run(still_works())
        else:
            result = on_loop(scenarios.scenarios[name], library, notes, step)
    except BaseException as error:
        outcome["broken"] = "".join(traceback.format_exception(error))[-1500:]
    outcome["result"] = repr(result)[:500]
    outcome["fired"] = library.fired()
    outcome["counts"] = library.counts()
    outcome["given_up"] = notes.given_up
    result = None
    step("collecting")
    signal.setitimer(signal.ITIMER_REAL, 0)
    for _ in range(3):
        gc.collect()
    outcome["leaked"] = [what for fd, what in descriptors().items() if fd not in before]
    outcome["raised"] = notes.raised
    step("done")


# ---- in the warm one ----


def ends(process: int, pidfd: int, seconds: float) -> bool:
    """Wait for its end; a pidfd alone is not always told of that of a process with threads."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        select.select([pidfd], [], [], 0.1)
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
    return False


def run_case(case: Case, library: Library) -> Outcome:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as trace:
        begun = time.monotonic()
        process = os.fork()
        if process == 0:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null if fd < 2 or not case.get("aloud") else 2, fd)
                faulthandler.enable(trace)
                resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                attack(case, library, file.fileno(), trace)
            finally:
                os._exit(0)
        hangs = False
        pidfd = os.pidfd_open(process)
        try:
            if not ends(process, pidfd, SECONDS):
                hangs = True
                signal.pidfd_send_signal(pidfd, signal.SIGUSR2)
                if not ends(process, pidfd, 1):
                    signal.pidfd_send_signal(pidfd, signal.SIGABRT)
                if not ends(process, pidfd, 3):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        _, status, usage = os.wait4(process, 0)
        written = os.pread(file.fileno(), 20000, 0).decode().strip()
        outcome: Outcome = json.loads(written) if written else {"step": "none"}
        outcome["where"] = library.where()
        outcome["compiled"] = library.compiled()
        outcome["seconds"] = time.monotonic() - begun
        outcome["cpu"] = usage.ru_utime + usage.ru_stime
        outcome["hangs"] = hangs
        outcome["signal"] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        trace.seek(0)
        outcome["trace"] = trace.read().decode(errors="replace")[:4000]
        return outcome


def judge(case: Case, outcome: Outcome, usual: Outcome) -> list[str]:
    """What is wrong with it.

    Who waits for what failed, and was told of, waits for ever, as with asyncio: that is none.
    """
    if outcome["signal"] == signal.SIGXCPU or (outcome["hangs"] and outcome["cpu"] > SECONDS / 2):
        return [f"busy while {outcome['step']}"]
    if outcome["hangs"] or (outcome["signal"] == signal.SIGABRT and outcome.get("given_up")):
        return [] if outcome.get("given_up") else [f"hangs while {outcome['step']}"]
    if outcome["signal"]:
        return [f"crash (signal {outcome['signal']}) while {outcome['step']}"]
    if outcome["step"] != "done":
        return [f"ended while {outcome['step']}"]
    found = []
    if "broken" in outcome:
        found.append(f"the loop is broken: {outcome['broken'].splitlines()[-1]}")
    if outcome["leaked"]:
        found.append(f"descriptors are left: {', '.join(outcome['leaked'])}")
    if outcome["cpu"] > 10 * usual["cpu"] + CPU:
        found.append(f"busy: {outcome['cpu']:.1f} s of CPU, usually {usual['cpu']:.2f}")
    for where, text, sensible in outcome["raised"]:
        if not sensible:
            found.append(f"strange exception {where}: {text}")
    if outcome["fired"] and outcome["result"] != usual["result"]:
        silent = not outcome["raised"] and "MemoryError" not in outcome["result"]
        if silent and case["call"] in ("memory", "malloc"):
            found.append(f"nothing was raised, and the result is {outcome['result'][:80]}")
    if outcome["fired"] and calls.is_unseen(case["call"], case["how"]):
        if outcome["raised"]:
            found.append(f"not hidden: {outcome['raised'][0][1]}")
        elif outcome["result"] != usual["result"]:
            found.append(f"not hidden: the result is {outcome['result'][:80]}")
    return found


def cases_of(name: str, kind: str, usual: Outcome) -> list[Case]:
    common = {"scenario": name, "kind": kind}
    return [
        {**common, "call": call, "n": n, "how": how, "times": times}
        for call, count in usual["counts"].items()
        if calls.kind(call) == kind
        for n in range(1, count + 1)
        for how in calls.ERRORS[call]
        for times in calls.times(call, how)
    ]


def loop_is_known() -> bool:
    """Can the interpreter's loop be told on the stack?

    From 3.14 on the compiler lays it out in two pieces if it optimises, and one has no name.
    """
    return sys.version_info < (3, 14) or hasattr(sys, "gettotalrefcount")


def main() -> None:
    plan = planned()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    part = path = None
    if plan["candidate"] == "ctask":
        import ctask

        ctask.install()
        part, path = "/_ctask.", ctask._ctask.__file__
    library = Library(None if plan["everybody"] else part, "memory" in plan["kinds"])
    for file in plan["files"]:
        runpy.run_path(file)
    names = plan["scenarios"] or [*scenarios.wholes, *scenarios.scenarios]
    for wanted in plan["cases"]:
        outcome = run_case({**wanted, "aloud": True}, library)
        tell(
            case=wanted,
            found=judge(wanted, outcome, {**outcome, "cpu": 1.0}),
            outcome=outcome,
            library=path,
        )
    if plan["cases"]:
        return
    for kind in plan["kinds"]:
        if kind == "memory" and not plan["everybody"] and not loop_is_known():
            print("memory: not on this build of Python, see README.md", file=sys.stderr)
            continue
        for name in names:
            begun = time.monotonic()
            nothing = {"scenario": name, "kind": kind, "call": "", "n": 0, "times": 0, "how": ""}
            usual = run_case(nothing, library)
            found = judge(nothing, usual, {**usual, "cpu": 1.0})
            if found or usual["raised"]:
                tell(
                    case=nothing,
                    found=found or [usual["raised"][0][1]],
                    outcome=usual,
                    library=path,
                )
                continue
            cases = cases_of(name, kind, usual)
            made = len(cases)
            if plan["count"] and made > plan["count"]:
                chosen = random.Random(f"{plan['seed']} {kind} {name}")
                cases = [cases[n] for n in sorted(chosen.sample(range(made), plan["count"]))]
            fired = given_up = 0
            for case in cases:
                outcome = run_case(case, library)
                fired += outcome.get("fired", 1) > 0
                given_up += outcome.get("given_up", False)
                found = judge(case, outcome, usual)
                if found or outcome.get("given_up"):
                    tell(case=case, found=found, outcome=outcome, library=path)
            seconds = time.monotonic() - begun
            numbers = {
                "cases": len(cases),
                "of": made,
                "fired": fired,
                "given_up": given_up,
                "seconds": seconds,
            }
            tell(done=name, kind=kind, library=path, **numbers)
