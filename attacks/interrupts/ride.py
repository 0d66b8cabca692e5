"""The rides: the loop runs, a signal handler raises, the loop is run on.

A handler raises only while iterations run: in the Python code with which run_forever() sets a loop
up and tidies it away, an exception leaves a loop that thinks it runs, asyncio's as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .._interpreter import begin
from .members import MEMBERS, Member

SIGNALS = (signal.SIGINT, signal.SIGALRM, signal.SIGTERM)
SETTLE = 6.0  # seconds for what is left to do after the last signal

SENDER = """
import os, sys, time
for line in sys.stdin:
    wait, number = line.split()
    time.sleep(float(wait))
    os.kill(os.getppid(), int(number))
"""


class Interrupt(Exception):
    """An exception of the program's own."""


KINDS: tuple[type[BaseException], ...] = (KeyboardInterrupt, Interrupt, SystemExit)


def chain(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_iterating(frame: FrameType) -> bool:
    """Is it the one that runs the iterations: asyncio's, or ctask's, which has them in C?"""
    code = frame.f_code
    if code.co_name == "_run_once":
        return True
    return code.co_name == "run_forever" and frame.f_lineno == iterating_line(code)


def iterating_line(code: Any, lines: dict[Any, int] = {}) -> int:  # noqa: B006
    if code not in lines:
        lines[code] = -1
        if "ctask" in code.co_filename:
            with open(code.co_filename) as file:
                for number, line in enumerate(file, 1):
                    if line.strip() == "self._run()":
                        lines[code] = number
    return lines[code]


class Ride:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.random = random.Random(plan["seed"])
        self.before = set(os.listdir("/proc/self/fd"))
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self.report)
        self.faults: list[str] = []
        self.places = Counter[str]()
        self.raised: list[BaseException] = []
        self.where: dict[BaseException, str] = {}
        self.owed: list[BaseException] = []  # has to leave the loop
        self.late: set[BaseException] = set()  # once what a TaskGroup waits for has ended
        self.hit_tasks: set[Any] = set()
        self.riding = self.handling = False
        self.kinds = dict(zip(SIGNALS, KINDS, strict=True))
        self.members: list[Member] = []
        self.child: subprocess.Popen[str] | None = None
        self.orders: list[tuple[float, int]] = []
        self.order = threading.Condition()
        self.carried: asyncio.Task[int] | None = None
        self.carried_number = 0

    # what the program is told

    def report(self, loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if not isinstance(exc, KINDS) or exc not in self.raised:
            text = context["message"]
            if exc is not None:
                text += ": " + "".join(traceback.format_exception(exc))
            self.faults.append(f"reported: {text}")

    def unraisable(self, what: Any) -> None:
        if what.exc_value in self.owed:
            self.owed.remove(what.exc_value)
            self.faults.append(f"not raised: {what.exc_value!r} in {self.where[what.exc_value]}")
        elif not isinstance(what.exc_value, KINDS):
            self.faults.append(f"unraisable: {what.exc_value!r} in {what.object!r}")

    def handler(self, number: int, frame: FrameType | None) -> None:
        frames = list(chain(frame))
        # What a handler was at that is hit itself is hit.
        nested = [n for n, one in enumerate(frames) if one.f_code is Ride.handler.__code__]
        frames = frames[nested[-1] + 1 :] if nested else frames
        # An exception in the hook for what cannot be raised is lost with what it was told of.
        hook = any(one.f_code is Ride.unraisable.__code__ for one in frames)
        # Where a warning is made a destructor may have warned, from which nothing can be raised.
        hook = hook or any(one.f_code.co_filename == warnings.__file__ for one in frames)
        if hook or self.handling or not self.riding or not any(map(is_iterating, frames)):
            return  # too late, or too early
        self.handling = True
        try:
            self.aim(number, frames)
        finally:
            self.handling = False

    def aim(self, number: int, frames: list[FrameType]) -> None:
        exc = self.kinds[signal.Signals(number)](f"signal {number}")
        top = frames[0].f_code
        name = os.path.basename(top.co_filename)
        self.places["the loop" if is_iterating(frames[0]) else f"{name}:{top.co_name}"] += 1
        for one in frames:
            if is_iterating(one):
                break
            for member in self.members:
                if one.f_code in member.late:
                    self.late.add(exc)
                if one.f_code in member.codes:
                    member.hits += 1
                    member.hit(one, exc)
        task = asyncio.current_task(self.loop)
        if task is not None:
            self.hit_tasks.add(task)
        self.raised.append(exc)
        self.where[exc] = " < ".join(f"{one.f_code.co_name}:{one.f_lineno}" for one in frames[:6])
        if not isinstance(exc, Exception):
            self.owed.append(exc)
        elif sys.exception() in self.late:  # its place is taken by one that stays in its task
            self.take(sys.exception())
        raise exc

    # who sends

    def send_by_thread(self) -> None:
        while True:
            with self.order:
                while not self.orders:
                    self.order.wait()
                wait, number = self.orders.pop()
            if wait < 0:
                return
            time.sleep(wait)
            os.kill(os.getpid(), number)

    def arm(self) -> None:
        wait = self.random.choice((1e-6, 1e-4, 1e-3, 2e-3)) * (self.random.random() + 0.01)
        sender = self.random.choice(self.plan["senders"])
        kinds = self.random.sample(KINDS, len(KINDS))
        self.kinds = dict(zip(SIGNALS, kinds, strict=True))
        number = self.random.choice(SIGNALS)
        if sender == "timer":
            signal.setitimer(signal.ITIMER_REAL, max(wait, 2e-6))
        elif sender == "thread":
            with self.order:
                self.orders.append((wait, number))
                self.order.notify()
        elif self.child is not None and self.child.stdin is not None:
            self.child.stdin.write(f"{wait} {int(number)}\n")
            self.child.stdin.flush()

    # the rides

    def once(self) -> None:
        stops = [self.loop.call_later(wait, self.loop.stop) for wait in (0.004, 0.1, 1.0)]
        waits = self.random.random() < 0.3
        if waits and self.carried is None:
            self.carried_number += 1
            wait = asyncio.sleep(self.random.random() * 0.003, self.carried_number)
            self.carried = self.loop.create_task(wait)
        self.riding = True
        left: BaseException | None = None
        self.arm()
        try:
            if waits and self.carried is not None:
                self.loop.run_until_complete(self.carried)
            else:
                self.loop.run_forever()
        except BaseException as exc:
            left = exc
        self.riding = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        for stop in stops:
            stop.cancel()
        self.look_at(left)
        if asyncio._get_running_loop() is not None or self.loop.is_running():
            self.faults.append("a loop that was left thinks it runs")
            raise SystemExit(1)

    def look_at(self, left: BaseException | None) -> None:
        """Did what was raised come out, and nothing else?"""
        self.take(left)
        self.tell_swallowed([exc for exc in self.owed if exc not in self.late], left)
        known = isinstance(left, KINDS) or "stopped before Future completed" in str(left)
        if left is not None and not known:
            self.faults.append("left by " + "".join(traceback.format_exception(left)))
        for one in self.raised[-3:]:
            one.__traceback__ = None  # it keeps connections alive
        if self.carried is not None and self.carried.done():
            self.carried_ended()

    def take(self, left: BaseException | None) -> None:
        exc = left
        while exc is not None:
            if exc in self.owed:
                self.owed.remove(exc)
            exc = exc.__context__

    def tell_swallowed(self, lost: list[BaseException], left: BaseException | None) -> None:
        if lost:
            at = [f"{exc!r} in {self.where[exc]}" for exc in lost]
            self.faults.append(f"swallowed: {', '.join(at)}; the loop ended with {left!r}")
            self.owed = [exc for exc in self.owed if exc not in lost]

    def carried_ended(self) -> None:
        task, self.carried = self.carried, None
        assert task is not None
        if task.cancelled():
            self.faults.append("the task of run_until_complete() was cancelled")
        elif task in self.hit_tasks:
            task.exception()
        elif task.exception() is not None or task.result() != self.carried_number:
            self.faults.append(f"the task of run_until_complete() ended as {task!r}")

    async def until(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while [member for member in self.members if not member.done()]:  # each goes on by it
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.01)
        return True

    def quietly(self, coro: Any) -> Any:
        """Run it without signals."""
        task = self.loop.create_task(coro)
        while not task.done():
            try:
                self.loop.run_until_complete(task)
            except RuntimeError:  # a stop() that was late
                pass
            except BaseException as exc:
                if exc not in self.late:
                    raise
                self.take(exc)
        return task.result()

    def settle(self) -> None:
        if self.carried is not None:
            self.quietly(asyncio.wait([self.carried], timeout=5))
            if self.carried.done():
                self.carried_ended()
            else:
                self.faults.append("the task of run_until_complete() is stuck")
        for member in self.members:
            member.stop()
        if not self.quietly(self.until(SETTLE)):
            for member in self.members:
                if not member.done() and member.hits:
                    member.nudge()
            gc.collect()
            self.quietly(self.until(SETTLE / 2))

    def play(self) -> None:
        if "child" in self.plan["senders"]:
            command = [sys.executable, "-S", "-c", SENDER]
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        thread = threading.Thread(target=self.send_by_thread, daemon=True)
        thread.start()
        sys.unraisablehook = self.unraisable
        for number in SIGNALS:
            signal.signal(number, self.handler)
        names = self.plan["members"] or list(MEMBERS)
        self.members = [MEMBERS[name](self) for name in names]
        for member in self.members:
            member.open()
        end = time.monotonic() + self.plan["seconds"]
        while len(self.raised) < self.plan["signals"] and time.monotonic() < end:
            for member in self.members:
                member.push()
            self.once()
        with self.order:
            self.orders.insert(0, (-1.0, 0))
            self.order.notify()
        thread.join()
        if self.child is not None:
            assert self.child.stdin
            self.child.stdin.close()
            self.child.wait()
        self.settle()
        self.tell_swallowed(self.owed, None)
        for member in self.members:
            for fault in member.faults():
                self.faults.append(f"{type(member).__name__.lower()}: {fault}")
        for member in self.members:
            member.close()
        self.quietly(asyncio.sleep(0.02))
        self.members.clear()
        self.hit_tasks.clear()
        gc.collect()
        self.quietly(asyncio.sleep(0))
        self.loop.close()
        for exc in self.raised:
            exc.__traceback__ = exc.__context__ = None
        gc.collect()
        left = set(os.listdir("/proc/self/fd")) - self.before
        names = [os.readlink(f"/proc/self/fd/{one}") for one in left if is_open(one)]
        if names:
            self.faults.append(f"descriptors are left: {' '.join(sorted(names))}")


def is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def main() -> None:
    plan = begin()
    loop = asyncio.new_event_loop()  # what is imported and opened once
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    ride = Ride(plan)
    with contextlib.suppress(SystemExit):
        ride.play()
    told = {
        "raised": len(ride.raised),
        "places": dict(ride.places),
        "faults": list(dict.fromkeys(ride.faults)),
    }
    print(json.dumps(told), flush=True)
    os._exit(0)
