"""Runs one test module in child processes, and gathers its results.

A crash or a test that takes too long ends the child; the module goes on in a new one.  What
never got a result counts against the candidate.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The child takes its own sys.path from the request; the package itself comes from here.
BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from conformance.child import main; sys.exit(main(sys.argv[2]))"
)

Results = dict[str, dict[str, Any]]  # by the test's id: status, message, ...

STOP: list[int] = []  # not empty: the parent was told to end


def stop(signum: int, frame: object) -> None:
    STOP.append(signum)
    raise SystemExit(128 + signum)


@dataclass
class ModuleRun:
    """The results of one test module, gathered over one or more children."""

    layer: str
    name: str
    results: Results = field(default_factory=dict)
    plan: list[str] | None = None
    excluded: dict[str, str] = field(default_factory=dict)
    fixtures: list[dict[str, Any]] = field(default_factory=list)  # setUpClass and the like
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    isolated: bool = False
    seconds: float = 0.0
    cannot: str | None = None

    def record(
        self,
        ident: str,
        status: str,
        message: str = "",
        seconds: float = 0.0,
        made: int | None = None,
    ) -> None:
        self.results[ident] = {
            "status": status,
            "message": message,
            "seconds": seconds,
            "made": made,
        }


class CannotList(Exception):
    """The tests of stock asyncio could not be listed."""


@dataclass
class ChildEnd:
    events: list[dict[str, Any]]
    timed_out: bool
    code: int
    tail: str  # of its output

    @property
    def dump(self) -> str:
        """The faulthandler part of the output."""
        for mark in ("Timeout (", "Fatal Python error"):
            at = self.tail.rfind(mark)
            if at >= 0:
                return self.tail[at : at + 5000]
        return self.tail[-2000:]


def kill_group(proc: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(proc.pid, signum)  # its own session: started by us


def wait_child(proc: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end without reaping; whether the time was over before it."""
    # WNOWAIT: the process group's number stays ours until kill_group() is done.
    while not os.waitid(os.P_PID, proc.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if STOP:
            return True
        if time.monotonic() > deadline:
            kill_group(proc, signal.SIGABRT)  # faulthandler's dump
            time.sleep(1)
            return True
        time.sleep(0.05)
    return False


def read_events(filename: str) -> list[dict[str, Any]]:
    events = []
    with open(filename) as f:
        for line in f:
            with contextlib.suppress(ValueError):  # cut off by a crash
                events.append(json.loads(line))
    return events


class Runner:
    """What is the same for all test modules of a layer."""

    def __init__(
        self, options: argparse.Namespace, layer: str, workdir: str, api: dict[str, str]
    ) -> None:
        self.options = options
        self.layer = layer
        self.workdir = workdir
        self.api = api

    def run_child(
        self, name: str, done: set[str], only: list[str] | None, deadline: float
    ) -> ChildEnd:
        options = self.options
        fd, out = tempfile.mkstemp(suffix=".jsonl", dir=self.workdir)
        os.close(fd)
        request = {
            "candidate": options.candidate,
            "layer": self.layer,
            "module": name,
            "patterns": options.patterns,
            "done": sorted(done),
            "out": out,
            "only": only,
            "api": self.api,
            "no_exclusions": options.no_exclusions,
            "test_timeout": options.test_timeout,
            "path": options.path,
            "netns": not options.no_netns,
        }
        request_file, logname = out + ".req", out + ".log"
        with open(request_file, "w") as f:
            json.dump(request, f)
        with open(logname, "wb") as log:
            proc = subprocess.Popen(
                [sys.executable, "-c", BOOT, ROOT, request_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=tempfile.mkdtemp(dir=self.workdir),
                start_new_session=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            try:
                timed_out = wait_child(proc, deadline)
            finally:
                kill_group(proc, signal.SIGKILL)
                code = proc.wait()
        with open(logname, "rb") as logged:
            logged.seek(max(0, os.path.getsize(logname) - 20000))
            tail = logged.read().decode("utf-8", "replace")
        if options.keep_logs:
            os.makedirs(options.keep_logs, exist_ok=True)
            kept = os.path.join(options.keep_logs, f"{self.layer}-{name}.log")
            with open(kept, "ab") as dst, open(logname, "rb") as src:
                dst.write(src.read())
        return ChildEnd(read_events(out), timed_out, code, tail)

    def list_modules(self, names: list[str]) -> dict[str, list[str]]:
        """Which tests each module has with stock asyncio, without those that are left out."""
        request = {
            "layer": self.layer,
            "modules": names,
            "patterns": self.options.patterns,
            "only": None,
            "done": [],
            "no_exclusions": self.options.no_exclusions,
            "path": self.options.path,
        }
        fd, out = tempfile.mkstemp(suffix=".jsonl", dir=self.workdir)
        os.close(fd)
        with open(out + ".req", "w") as f:
            json.dump({**request, "out": out}, f)
        done = subprocess.run(
            [sys.executable, "-c", BOOT, ROOT, out + ".req"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tempfile.mkdtemp(dir=self.workdir),
            timeout=self.options.timeout,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        plans = {ev["module"]: ev["ids"] for ev in read_events(out)}
        if plans.keys() != set(names):
            raise CannotList("stock asyncio's tests: " + done.stdout.decode(errors="replace"))
        return plans

    def run_module(self, name: str, only: list[str] | None = None) -> ModuleRun:
        run = ModuleRun(self.layer, name)
        started = time.monotonic()
        deadline = started + self.options.timeout
        while True:
            end = self.run_child(name, set(run.results), only, deadline)
            if not self.gather(run, end):
                break
        fill_in(run, self.options.timeout)
        run.seconds = time.monotonic() - started
        return run

    def gather(self, run: ModuleRun, end: ChildEnd) -> bool:
        """Take over a child's results; whether another child must go on."""
        running: str | None = None
        finished = progress = False
        for ev in end.events:
            kind = ev["ev"]
            if kind == "install":
                if ev["ok"]:
                    run.info, run.isolated = ev["info"], ev["isolated"]
                else:
                    run.cannot = ev["error"]
            elif kind == "plan":
                run.plan, run.excluded = ev["ids"], ev["excluded"]
                if "import_error" in ev:
                    run.plan = [run.name + ".(import)"]
                    run.record(run.name + ".(import)", "error", ev["import_error"])
                if "skipped_module" in ev:
                    run.notes.append("module skipped: " + ev["skipped_module"])
            elif kind == "start":
                running = ev["id"]
            elif kind == "result":
                progress = True
                running = None
                run.record(ev["id"], ev["status"], ev["message"], ev["seconds"], ev["made"])
            elif kind == "fixture":
                run.fixtures.append(ev)
            elif kind == "end":
                finished = True

        if run.cannot:
            return False
        if run.plan is None:
            run.cannot = f"no test was reached (exit {end.code})\n" + end.tail
            return False
        exit_id = run.name + ".(exit)"
        if finished or end.timed_out:
            if running:
                limit = f"module time limit of {self.options.timeout} s\n"
                run.record(running, "timeout", limit + end.dump)
            if finished and not end.timed_out and end.code < 0:
                run.plan.append(exit_id)
                what = f"exit code {end.code} when the interpreter ended\n"
                run.record(exit_id, "crash", what + end.dump)
            elif finished and end.code != 0:
                run.notes.append(
                    "the process did not end by itself after its last test (left-over threads?)"
                )
            return False
        # The child died in the middle.
        if running:
            if end.dump.startswith("Timeout ("):
                limit = f"no end after {self.options.test_timeout} s\n"
                run.record(running, "timeout", limit + end.dump)
            else:
                run.record(running, "crash", f"exit code {end.code}\n" + end.dump)
        elif not progress:
            run.notes.append(f"the process died between tests ({end.code})")
            return False
        if set(run.plan) <= set(run.results):
            if not running:
                run.notes.append(f"the process died after its last test ({end.code})")
                run.record(exit_id, "crash", f"exit code {end.code}\n" + end.dump)
                run.plan.append(exit_id)
            return False
        return True


def fill_in(run: ModuleRun, timeout: float) -> None:
    """Record the planned tests that have no result, and fixtures that failed after them."""
    for ident in run.plan or ():
        if ident in run.results:
            continue
        cls = ident.rsplit(".", 1)[0].rsplit(".", 1)[-1]
        skip = why = None
        for fixture in run.fixtures:
            if re.search(rf"\b{re.escape(cls)}\b", fixture["id"]) or "Module" in fixture["id"]:
                if fixture["status"] == "skip":
                    skip = fixture["message"]
                else:
                    why = fixture["id"] + "\n" + fixture["message"]
        if skip is not None and why is None:
            run.record(ident, "skip", skip)
        else:
            why = why or f"not reached: the module exceeded {timeout} s or died"
            run.record(ident, "notrun", why)
    for fixture in run.fixtures:
        if fixture["status"] == "error" and "tearDown" in fixture["id"]:
            ident = f"{run.name}.({fixture['id']})"
            if run.plan is not None:
                run.plan.append(ident)
            run.record(ident, "error", fixture["message"])
