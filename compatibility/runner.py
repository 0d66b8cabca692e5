"""Runs a library's suite on one side, in processes of their own, and gathers the outcomes.

A test that crashes, or takes too long, ends its process; the others go on in a new one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from compatibility.environments import python_of
from compatibility.libraries import Library
from compatibility.sources import CannotRun, unpack

CELL = Path(__file__).resolve().parent / "inside" / "cell.py"
USER = "nobody"
NAMESPACES = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
# Variables that tests, or what they use, look at.
FOREIGN = ("PYTHON", "PYTEST", "PG", "REDIS", "SSL", "CTASK", "COMPATIBILITY", "VIRTUAL_ENV")


@cache
def namespace() -> tuple[str, ...]:
    """The command that gives a process a network and processes of its own; empty if none can.

    All of them end with the thread that has started it.
    """
    user = ["--user", "--map-current-user", "--keep-caps"] if os.geteuid() else []
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *user, *NAMESPACES]
    if not all(map(shutil.which, ("setpriv", "unshare", "ip", "mount"))):
        return ()
    return () if subprocess.run([*command, "true"]).returncode else tuple(command)


def without_root() -> list[str]:
    """The command that stops being root; still able to read what only root may."""
    if os.geteuid():
        return []
    capability = "+dac_read_search"
    groups = ["--reuid", USER, "--regid", "nogroup", "--clear-groups"]
    return ["setpriv", *groups, "--inh-caps", capability, "--ambient-caps", capability]


@dataclass
class SuiteRun:
    outcomes: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    loops: dict[str, list[str]] = field(default_factory=dict)  # of each test, their types
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def record(self, ident: str, outcome: str, message: str = "") -> None:
        self.outcomes[ident] = outcome
        if message:
            self.messages[ident] = message

    def on_ctask(self) -> int:
        """How many tests ran a loop of ctask's."""
        return sum("ctask" in loops for loops in self.loops.values())


def read_events(path: Path) -> list[dict[str, Any]]:
    events = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:  # cut off by a crash
                break
    return events


def gather(run: SuiteRun, events: list[dict[str, Any]], status: int, tail: str) -> bool:
    """Take a process's events over; whether the rest of the suite needs another process."""
    running: str | None = None
    planned: list[str] = []
    progress = finished = False
    for event in events:
        match event["event"]:
            case "collection":
                run.record(event["id"] + " (collection)", "error", event["message"])
            case "plan":
                planned = event["ids"]
            case "start":
                running = event["id"]
            case "result":
                running, progress = None, True
                run.record(event["id"], event["outcome"], event["message"])
                run.loops[event["id"]] = event["loops"]
            case "end":
                finished = True
    if running:
        slow = "Timeout (" in tail
        run.record(running, "timeout" if slow else "crash", f"status {status}\n{tail}")
    elif not progress and not finished:
        run.notes.append(f"ended with {status} outside of any test:\n{tail}")
        return False
    elif finished and status not in (0, 1, 2, 5):
        run.notes.append(f"ended with {status} after its last test:\n{tail}")
    return not finished and any(ident not in run.outcomes for ident in planned)


@dataclass
class Suite:
    """One library's suite, with all that its runs have in common."""

    library: Library
    archive: Path
    environment: Path
    work: Path
    python_options: tuple[str, ...] = ()
    expression: str | None = None  # pytest's -k
    test_timeout: float = 60.0
    suite_timeout: float = 3600.0

    def variables(self, side: str, request: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        return {
            **kept,
            "PATH": f"{python_of(self.environment).parent}:{os.environ.get('PATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COMPATIBILITY_SIDE": side,
            "COMPATIBILITY_REQUEST": str(request),
            **self.library.environment,
        }

    def command(self, tests: list[str]) -> list[str]:
        pytest = [str(python_of(self.environment)), "-m", "pytest", "-q", "--rootdir", "."]
        plugins = ["-p", "compatibility_recorder", "-p", "no:cacheprovider"]
        keep_on = ["--continue-on-collection-errors", "--tb=short"]
        chosen = ["-k", self.expression] if self.expression else []
        chosen += [f"--ignore-glob={path}" for path in self.library.ignore]
        root = without_root() if not self.library.as_root else []
        return [*root, *pytest, *plugins, *keep_on, *self.library.options, *chosen, *tests]

    def run(self, side: str, only: list[str] | None = None) -> SuiteRun:
        """The whole suite, or these tests, on this side, with a fresh copy of the source."""
        run = SuiteRun()
        started = time.monotonic()
        directory = self.work / "run"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        source = directory / "source"
        unpack(self.archive, source)
        for hidden in self.library.hidden:
            shutil.rmtree(source / hidden)
        if self.library.conftest:
            (source / "conftest.py").write_text(self.library.conftest)
        if not self.library.as_root and not os.geteuid():
            subprocess.run(["chown", "-R", f"{USER}:nogroup", directory], check=True)
        while self.go_on(run, side, only, source, started + self.suite_timeout):
            pass
        run.seconds = time.monotonic() - started
        return run

    def go_on(
        self,
        run: SuiteRun,
        side: str,
        only: list[str] | None,
        source: Path,
        deadline: float,
    ) -> bool:
        request, results = source.parent / "request.json", source.parent / "results.jsonl"
        results.unlink(missing_ok=True)
        results.touch()
        results.chmod(0o666)
        left = None if only is None else [i for i in only if i not in run.outcomes]
        orders = {
            "only": left,
            "done": sorted(run.outcomes),
            "exclude": list(self.library.exclude),
            "test_timeout": self.test_timeout,
            "results": str(results),
        }
        request.write_text(json.dumps(orders))
        tests = list(self.library.tests)
        if left is not None:
            tests = sorted({ident.split("::")[0] for ident in left})
        cell = {
            "isolated": bool(namespace()),
            "servers": self.library.servers,
            "command": self.command(tests),
            "directory": str(source),
            "environment": self.variables(side, request),
        }
        orders_file = source.parent / "cell.json"
        orders_file.write_text(json.dumps(cell))
        log = self.work / f"{side}{'' if only is None else '-again'}.log"
        with log.open("wb" if not run.outcomes else "ab") as stream:
            process = subprocess.Popen(
                [*namespace(), sys.executable, "-I", CELL, orders_file],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                run.notes.append(f"the suite took more than {self.suite_timeout} s")
                status = -signal.SIGKILL
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        tail = log.read_text(errors="replace")[-6000:]
        more = gather(run, read_events(results), status, tail)
        return more and time.monotonic() < deadline


def prove(run: SuiteRun, side: str) -> None:
    """Refuse a run that was not about its side's loop."""
    if not run.outcomes:
        raise CannotRun("no test was found\n" + "\n".join(run.notes))
    if side == "ctask" and not run.on_ctask():
        raise CannotRun("no loop of ctask's ran in any test")
    if side == "asyncio" and run.on_ctask():
        raise CannotRun("a loop of ctask's ran where asyncio's was to be")
