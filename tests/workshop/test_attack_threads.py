"""The attack `threads` and tools/tsan: they find what is planted, and nothing in what is right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from helpers.checkout import ROOT

pytestmark = [pytest.mark.ctask_only, pytest.mark.slow]

PLANTED = """
import asyncio, os, sys, threading, time
import ctask
from ctask import _ctask
from attacks.threads import histories

histories.HANG_SECONDS = 4.0
base = ctask.EventLoop
stock_call = base.call_soon_threadsafe
stock_close = base.close
calls = 0

def turn_of(many):
    global calls
    calls += 1
    return calls % many == 0

class Planted(base):
    {fault}

ctask.EventLoop = ctask.new_event_loop = Planted
asyncio.new_event_loop = Planted
"""

FAULTS = {
    "lost": (
        "calls",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        if turn_of(10) and args:
            return asyncio.Handle(callback, args, self)
        return stock_call(self, callback, *args, context=context)
    """,
        "not run",
    ),
    "twice": (
        "calls",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        if turn_of(10) and args:
            stock_call(self, callback, *args, context=context)
        return stock_call(self, callback, *args, context=context)
    """,
        "not in order, or not once",
    ),
    "overtaken": (
        "calls",
        """
    held = None

    def call_soon_threadsafe(self, callback, *args, context=None):
        before, self.held = self.held, None
        if args and before is None and turn_of(4):
            self.held = callback, args
            return asyncio.Handle(callback, args, self)
        handle = stock_call(self, callback, *args, context=context)
        if before is not None:
            stock_call(self, before[0], *before[1])
        return handle
    """,
        "not in order, or not once",
    ),
    "not_woken": (
        "calls",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        return self.call_soon(callback, *args, context=context)
    """,
        "the loop sleeps although it was called",
    ),
    "refused_otherwise": (
        "calls",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        if self.is_closed():
            raise ValueError("no loop")
        return stock_call(self, callback, *args, context=context)
    """,
        "ValueError: no loop",
    ),
    "taken_when_closed": (
        "calls",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        if self.is_closed():
            return asyncio.Handle(callback, args, self)
        return stock_call(self, callback, *args, context=context)
    """,
        "a closed loop takes a call",
    ),
    "leaks": (
        "loops",
        """
    def close(self):
        if not self.is_closed():
            os.dup(0)
        stock_close(self)
    """,
        "descriptors are left",
    ),
    "deadlock": (
        "loops",
        """
    def close(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    """,
        "hangs or crashes",
    ),
    "signals_not_seen": (
        "signals",
        """
    def _write_to_self(self):
        pass
    def add_signal_handler(self, number, callback, *args):
        import signal
        signal.signal(number, lambda *args: None)
    """,
        "the loop sleeps although a signal came",
    ),
    "wrong_in_a_child": (
        "forks",
        """
    home = os.getpid()
    def run_until_complete(self, future):
        return base.run_until_complete(self, future) + (os.getpid() != self.home)
    """,
        "a child ends with",
    ),
    "wrong_all_tasks": (
        "objects",
        """
    pass

asyncio.all_tasks = lambda loop=None: set()

class Same(base):
    pass
    """,
        "all_tasks() of another thread",
    ),
}

COUNTS = {"deadlock": 1, "lost": 5, "not_woken": 4, "overtaken": 6, "signals_not_seen": 2}

# In a copy of the source: where, what, what for it, and the functions on both sides of the race.
RACES = {
    "a loop that goes to sleep says so without the lock: a call in between wakes nobody": (
        "src/loop/poll_epoll.c",
        "loop->sleeping = 1;\n        poll->asking = 1;\n        Py_BEGIN_ALLOW_THREADS n =",
        "poll->asking = 1;\n        Py_BEGIN_ALLOW_THREADS loop->sleeping = 1; n =",
        {"poll_wait", "wake_if_sleeping"},
    ),
    "interpreters share a variable": (
        "src/loop/iterate.c",
        "int status = run_iteration(loop, ts);",
        "static long turns;\n    turns++;\n    int status = run_iteration(loop, ts);",
        {"run_once"},
    ),
}


@pytest.fixture
def attack(monkeypatch, tmp_path, capfd):
    """Run histories of a kind, perhaps with this in a class of loops; faults and the output."""
    monkeypatch.syspath_prepend(str(ROOT))
    from attacks import threads

    def attack(kind, fault=None, count=12):
        options = ["--kind", kind]
        if fault is not None:
            (tmp_path / "planted.py").write_text(PLANTED.replace("{fault}", fault))
            options += ["--file", str(tmp_path / "planted.py"), "--seconds", "10"]
        return threads.run(1, count, options), capfd.readouterr().out

    return attack


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(attack, name):
    kind, fault, told = FAULTS[name]
    found, out = attack(kind, fault, COUNTS.get(name, 12))
    assert found > 0, out
    assert told in out


@pytest.mark.parametrize("kind", ["calls", "forks", "signals", "loops", "objects", "imports"])
def test_what_is_right_is_no_fault(attack, kind):
    found, out = attack(kind, count=4)
    assert found == 0, out
    assert f"in 4 {kind}," in out


@pytest.mark.skipif(shutil.which("gcc") is None, reason="ThreadSanitizer comes with gcc")
def test_planted_races_are_found(tmp_path):
    tree = tmp_path / "tree"
    subprocess.run([ROOT / "tools" / "copy-tree", tree], check=True)
    for path, old, new, _ in RACES.values():
        text = (tree / path).read_text()
        assert old in text
        (tree / path).write_text(text.replace(old, new))
    kinds = ["--kind", "calls", "--kind", "interpreters"]
    done = subprocess.run(
        [tree / "tools" / "tsan", sys.executable, "--seed", "1", "--count", "8", *kinds],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    expected = [sides for *_, sides in RACES.values()]
    if sys.version_info < (3, 13):
        expected.remove({"run_once"})  # no interpreters are played
    # A report names the function that came second.
    reported = {line.split()[-1] for line in told.splitlines() if line.startswith("SUMMARY: ")}
    assert all(reported & sides for sides in expected), told
    assert reported <= set.union(*expected), told
