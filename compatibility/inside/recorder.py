"""A pytest plugin that writes what becomes of each test as a line of JSON, at once.

A process that crashes has told which test it was in.  A test that takes too long ends the process;
runner.py starts the rest in a new one.  Copied beside side.py, so it imports nothing of ours but
that.
"""

import faulthandler
import fnmatch
import json
import os
from collections.abc import Iterator
from typing import Any

import compatibility_side as side  # type: ignore[import-not-found]
import pytest

STDERR = os.dup(2)  # before pytest captures it

# From best to worst; a test is as good as its worst part.
OUTCOMES = ("passed", "xfailed", "xpassed", "skipped", "failed", "error")


def outcome_of(report: Any) -> str:
    if report.failed:
        return "failed" if report.when == "call" else "error"
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return str(report.outcome)


class Recorder:
    def __init__(self, request: dict[str, Any]) -> None:
        self.only: set[str] | None = set(request["only"]) if request["only"] is not None else None
        self.done: set[str] = set(request["done"])
        self.exclude: list[str] = request["exclude"]
        self.test_timeout: float = request["test_timeout"]
        self.stream = open(request["results"], "a")  # noqa: SIM115
        self.pid = os.getpid()
        self.outcome = "passed"
        self.message = ""

    def emit(self, event: str, **fields: Any) -> None:
        if os.getpid() != self.pid:
            return  # a fork of a test's
        self.stream.write(json.dumps({"event": event, **fields}) + "\n")
        self.stream.flush()

    def is_wanted(self, nodeid: str) -> bool:
        if self.only is not None and nodeid not in self.only:
            return False
        return nodeid not in self.done and not any(
            fnmatch.fnmatchcase(nodeid, pattern) for pattern in self.exclude
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        dropped = [item for item in items if not self.is_wanted(item.nodeid)]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if self.is_wanted(item.nodeid)]

    def pytest_collection_finish(self, session: Any) -> None:
        self.emit("plan", ids=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.emit("collection", id=report.nodeid, message=report.longreprtext)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.outcome, self.message = "passed", ""
        side.ran.clear()
        self.emit("start", id=item.nodeid)
        faulthandler.dump_traceback_later(self.test_timeout, exit=True, file=STDERR)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.emit(
                "result",
                id=item.nodeid,
                outcome=self.outcome,
                message=self.message,
                loops=sorted(side.ran),
            )

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = outcome_of(report)
        if OUTCOMES.index(outcome) > OUTCOMES.index(self.outcome):
            self.outcome = outcome
        if report.failed:
            self.message += report.longreprtext[-20000:] + "\n"

    def pytest_sessionfinish(self, exitstatus: Any) -> None:
        self.emit("end", status=int(exitstatus))


def pytest_configure(config: Any) -> None:
    # pytest's own use of it ends our timer whenever a test fails.
    if config.pluginmanager.has_plugin("faulthandler"):
        config.pluginmanager.unregister(name="faulthandler")
    faulthandler.enable(STDERR)
    with open(os.environ["COMPATIBILITY_REQUEST"]) as stream:
        request = json.load(stream)
    config.pluginmanager.register(Recorder(request), "compatibility")
