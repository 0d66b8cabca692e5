"""Runs one test module in this process, and writes each event as a line of JSON.

Started by runner.py.  Imports nothing that imports asyncio until the candidate is in place.
"""

import faulthandler
import fnmatch
import importlib
import json
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from conformance import candidate as cand
from conformance.selection import excluded, full_module, short_id

Emit = Callable[..., None]


def isolate(netns: bool) -> bool:
    """Die with the parent; leave no network but loopback (if root).

    Tests that mock the socket module do not hold back a loop that makes its own system calls:
    it would go out to 1.2.3.4 or python.org in earnest.
    """
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if not netns or libc.unshare(0x40000000):  # CLONE_NEWNET
            return False
        import fcntl
        import socket
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # SIOCSIFFLAGS: lo IFF_UP
            fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))
        return True
    except (ImportError, AttributeError, OSError):
        return False


def flatten(suite: unittest.TestSuite) -> Iterator[Any]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


class Result(unittest.TestResult):
    """Emits one event when a test starts and one with its outcome."""

    SEVERITY = ("pass", "skip", "fail", "error")

    def __init__(self, emit: Emit, test_timeout: float) -> None:
        super().__init__()
        self.emit = emit
        self.test_timeout = test_timeout
        self.current: Any = None

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.current = test
        self.status, self.message = "pass", ""
        self.made = cand.LoopCounter.made
        self.t0 = time.perf_counter()
        self.emit(ev="start", id=short_id(test.id()))
        faulthandler.dump_traceback_later(self.test_timeout, exit=True)

    def worse(self, status: str, err: Any, where: str = "") -> None:
        if self.SEVERITY.index(status) > self.SEVERITY.index(self.status):
            self.status = status
        if err is not None:
            text = "".join(traceback.format_exception(*err))
            self.message += (where + text)[-6000:]

    def stopTest(self, test: Any) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.emit(
            ev="result",
            id=short_id(test.id()),
            status=self.status,
            message=self.message[-12000:],
            seconds=round(time.perf_counter() - self.t0, 4),
            made=cand.LoopCounter.made - self.made,
        )
        self.current = None
        super().stopTest(test)

    def addSkip(self, test: Any, reason: str) -> None:
        if not hasattr(test, "_testMethodName"):  # a class or module
            self.emit(ev="fixture", id=str(test), status="skip", message=reason)
        elif self.current is None:  # 3.12.1: skipped unstarted
            self.emit(
                ev="result",
                id=short_id(test.id()),
                status="skip",
                message=reason,
                seconds=0.0,
                made=0,
            )
        else:
            if self.status == "pass":
                self.status = "skip"
            self.message += reason

    def addError(self, test: Any, err: Any) -> None:
        if not hasattr(test, "_testMethodName") and not hasattr(test, "test_case"):
            # setUpClass, tearDownModule, ...: an _ErrorHolder
            text = "".join(traceback.format_exception(*err))
            self.emit(ev="fixture", id=str(test), status="error", message=text)
        else:
            self.worse("error", err)

    def addFailure(self, test: Any, err: Any) -> None:
        self.worse("fail", err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            kind = "fail" if issubclass(err[0], test.failureException) else "error"
            self.worse(kind, err, where=f"[{subtest}]\n")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        pass

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.worse("fail", None)
        self.message += "unexpected success"


def install(request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    layer, factory = request["layer"], None
    info: dict[str, Any] = {}
    if layer in ("tasks", "both", "installed"):
        info["tasks"] = cand.install_tasks(request["candidate"], request["api"])
    elif request["candidate"] == "pure":
        sys.modules["_asyncio"] = None  # type: ignore[assignment]
    if layer in ("loop", "both"):
        info["loop"], factory = cand.install_loop(request["candidate"])
    if layer == "installed":
        cand.call_install(request["candidate"])
    return info, factory


def select(module: Any, request: dict[str, Any], emit: Emit) -> list[Any]:
    """Emit the plan of this module; the tests of it that are still to be run."""
    patterns, only, done = request["patterns"], request["only"], set(request["done"])
    ids: list[str] = []
    left_out: dict[str, str] = {}
    todo: list[Any] = []
    for test in flatten(unittest.TestLoader().loadTestsFromModule(module)):
        ident = short_id(test.id())
        if patterns and not any(
            fnmatch.fnmatchcase(ident, p) if "*" in p else p in ident for p in patterns
        ):
            continue
        if only is not None and ident not in only:
            continue
        reason = None if request["no_exclusions"] else excluded(request["layer"], ident)
        if reason:
            left_out[ident] = reason
            continue
        ids.append(ident)
        if ident not in done:
            todo.append(test)
    emit(ev="plan", ids=ids, excluded=left_out)
    return todo


def list_tests(request: dict[str, Any], emit: Emit) -> int:
    """Emit the plan of each module as stock asyncio has it."""
    for name in request["modules"]:

        def told(name: str = name, **event: Any) -> None:
            emit(module=name, **event)

        try:
            module = importlib.import_module(full_module(name))
        except unittest.SkipTest:
            told(ids=[])
        else:
            select(module, request, told)
    return 0


def run(request: dict[str, Any], emit: Emit) -> int:
    isolated = isolate(request["netns"])
    # A shell may have started us with these ignored (nohup, &).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    faulthandler.enable()
    try:
        info, factory = install(request)
    except cand.CannotInstall as exc:
        emit(ev="install", ok=False, error=str(exc))
        return 3
    emit(ev="install", ok=True, info=info, isolated=isolated)

    support: Any = importlib.import_module("test.support")
    support.verbose = 0
    # All but those that would leave this machine or want a screen.
    support.use_resources = [
        "audio",
        "console",
        "cpu",
        "curses",
        "decimal",
        "extralargefile",
        "largefile",
        "subprocess",
        "tzdata",
        "walltime",
    ]
    try:
        module = importlib.import_module(full_module(request["module"]))
    except unittest.SkipTest as exc:
        emit(ev="plan", ids=[], excluded={}, skipped_module=str(exc))
        emit(ev="end")
        return 0
    except BaseException:
        emit(ev="plan", ids=[], excluded={}, import_error=traceback.format_exc())
        emit(ev="end")
        return 0
    if request["layer"] != "tasks":
        cand.set_no_event_loop(request["module"])
    if factory is not None:
        cand.adapt_test_module(request["module"], module, factory)

    suite = unittest.TestSuite(select(module, request, emit))
    result = Result(emit, request["test_timeout"])
    result._previousTestClass = None  # type: ignore[attr-defined]  # class fixtures need it
    suite.run(result)
    emit(ev="end")
    return 0


def main(request_file: str) -> int:
    with open(request_file) as f:
        request = json.load(f)
    sys.path[:] = request["path"]
    with open(request["out"], "a", buffering=1) as out:

        def emit(**event: Any) -> None:
            out.write(json.dumps(event) + "\n")
            out.flush()

        code = list_tests(request, emit) if "modules" in request else run(request, emit)
    # Threads that a failed test left behind may keep the process alive.
    faulthandler.dump_traceback_later(10, exit=True)
    return code
