"""What threads do with loops at random moments, and the rule.

A call that call_soon_threadsafe() has taken is run once, in the order of the thread that called,
and a loop that sleeps wakes for it within a second; or RuntimeError says that the loop is closed,
and nothing is run. Nothing else is raised, nobody waits for ever, no descriptor is left.

What is taken and not yet run when a loop is closed is dropped, as by asyncio: then it is all that
this thread called after something.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # now: a child hangs if it imports what a thread was importing
import contextlib
import contextvars
import functools
import gc
import os
import queue
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from .._interpreter import ROOT

try:
    import _interpreters
except ImportError:  # before 3.13: no interpreters, or such as crash without ctask
    _interpreters = None  # type: ignore[assignment]

CERTS = ROOT / "tests" / "certs"
WAKE_SECONDS = 1.0
HANG_SECONDS = 25.0
# What a loop sleeps in: epoll_pwait() and epoll_pwait2(); x86-64 has epoll_wait(), too.
SLEEPS_IN = ("232", "281", "441") if os.uname().machine == "x86_64" else ("22", "441")
CLOSED = "Event loop is closed"
# It cannot count the threads of a child whose parent has several, and ends such a child.
UNDER_TSAN = "libtsan" in os.environ.get("LD_PRELOAD", "")
DROPPED = (
    "Task was destroyed but it is pending!",
    "exception calling callback",  # an executor's future, whose loop was closed just then
)

Number = contextvars.ContextVar[int]("Number")


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # listdir's own
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def sleeps_in_kernel(tid: int) -> bool:
    """Does this thread wait for events, and has nobody woken it yet?"""
    try:
        return Path(f"/proc/self/task/{tid}/syscall").read_text().split()[0] in SLEEPS_IN
    except OSError:
        return False


class Failed(Exception):
    """The rule was broken so that the thread cannot go on."""


class History:
    """Some threads, what they found wrong, and how many calls they made."""

    closed_early = False  # on purpose: what was dropped may be told of

    def __init__(self, random: Random, plan: dict[str, Any]) -> None:
        self.random = random
        self.plan = plan
        self.faults: list[str] = []
        self.calls = 0
        self.threads: list[threading.Thread] = []

    def play(self) -> None:
        raise NotImplementedError

    def start(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*args)
            except BaseException as exc:
                self.faults.append("".join(traceback.format_exception(exc)[-4:]).strip())

        thread = threading.Thread(target=guarded)
        self.threads.append(thread)
        thread.start()
        return thread

    def join(self, threads: list[threading.Thread] | None = None) -> None:
        for thread in self.threads if threads is None else threads:
            thread.join()

    def pause(self, random: Random) -> None:
        seconds = random.choice((None, None, None, None, 0, 0, 1e-5, 1e-4, 1e-3))
        if seconds is not None:
            time.sleep(seconds)


class Caller:
    """A thread that calls: what the loop took, in order, and what was cancelled."""

    def __init__(self, number: int, random: Random) -> None:
        self.number = number
        self.random = random
        self.next = 0
        self.taken: list[int] = []
        self.cancelled: set[int] = set()
        self.handles: list[tuple[int, asyncio.Handle]] = []


class Calls(History):
    """One loop in a thread, stopped and run on; others call it, and it may be closed under them."""

    forking = False

    def __init__(self, random: Random, plan: dict[str, Any]) -> None:
        super().__init__(random, plan)
        self.loop = asyncio.new_event_loop()
        self.ran: list[tuple[int, int]] = []
        self.futures: list[tuple[concurrent.futures.Future[int], int]] = []
        self.worked: list[int] = []
        self.to_work = 0
        self.callers = [Caller(n, Random(random.random())) for n in range(random.randint(1, 4))]
        self.closed_early = random.random() < 0.4
        self.ending = False
        self.over = threading.Event()
        self.seen: list[int] = []
        self.tid = 0

    # the loop's thread

    def ride(self) -> None:
        self.tid = threading.get_native_id()
        random = Random(self.random.random())
        try:
            while True:
                self.loop.run_forever()
                if self.ending:
                    break
                self.pause(random)  # calls are taken while it does not run
            # What was taken by now is behind other stops, and is run before the end.
            self.seen = [len(caller.taken) for caller in self.callers]
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if not self.closed_early:
                self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            executor = self.loop._default_executor  # type: ignore[attr-defined]
            self.loop.close()
            self.over.set()
            if executor is not None:
                executor.shutdown()  # its threads may still tell the closed loop

    def end(self) -> None:
        self.ending = True
        self.loop.call_soon_threadsafe(self.loop.stop)

    # threads that call

    def call(self, caller: Caller, callback: Callable[..., Any], *args: Any) -> asyncio.Handle:
        """Raises Closed if the loop is closed."""
        self.calls += 1
        over = self.over.is_set()
        context = contextvars.copy_context() if caller.random.random() < 0.2 else None
        try:
            handle = self.loop.call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError as exc:
            if str(exc) != CLOSED or not self.closed_early:
                raise Failed(f"a call is refused: {exc}") from exc
            raise Closed from exc
        if over:
            raise Failed("a closed loop takes a call")
        return handle

    def record(self, caller: Caller) -> None:
        number = caller.next
        caller.next += 1
        handle = self.call(caller, self.ran.append, (caller.number, number))
        caller.taken.append(number)
        if caller.random.random() < 0.3:
            caller.handles.append((number, handle))

    def cancel(self, caller: Caller) -> None:
        if caller.handles:
            number, handle = caller.handles.pop(caller.random.randrange(len(caller.handles)))
            if not handle.cancelled():
                caller.cancelled.add(number)
                handle.cancel()
            if not handle.cancelled():
                self.faults.append("a handle that was cancelled is not")

    def wake(self, caller: Caller) -> None:
        """The loop is left to fall asleep, and has to wake."""
        if caller.random.random() < 0.5:
            time.sleep(caller.random.random() * 2e-3)
        done = threading.Event()
        self.call(caller, done.set)
        self.wait_for(done)

    def wait_for(self, done: threading.Event) -> None:
        """In time, or the loop sleeps on: a thread that has been woken and waits for a processor
        is not taken for one that sleeps."""
        if done.wait(WAKE_SECONDS):
            return
        asleep, limit = 0, time.monotonic() + HANG_SECONDS
        while not done.wait(0.05):
            if self.over.is_set():
                return  # it was dropped
            asleep = asleep + 1 if sleeps_in_kernel(self.tid) else 0
            if asleep == 5:
                self.ending = True
                self.loop._write_to_self()  # type: ignore[attr-defined]
                raise Failed("the loop sleeps although it was called")
            if time.monotonic() > limit:
                self.ending = True
                raise Failed(f"a call is not run within {HANG_SECONDS:.0f} s")

    def stop(self, caller: Caller) -> None:
        self.call(caller, self.loop.stop)

    def coroutine(self, caller: Caller) -> None:
        coro = answer(caller.random.randint(0, 3), number := caller.random.randint(0, 99))
        self.calls += 1
        try:
            future = asyncio.run_coroutine_threadsafe(coro, self.loop)
        except RuntimeError as exc:
            coro.close()
            if str(exc) != CLOSED or not self.closed_early:
                raise Failed(f"a coroutine is refused: {exc}") from exc
            raise Closed from exc
        self.futures.append((future, number))
        if caller.random.random() < 0.1:
            future.cancel()

    def work(self, caller: Caller) -> None:
        number = caller.random.randint(0, 99)

        def start() -> None:
            future = self.loop.run_in_executor(None, int, number)
            self.to_work += 1
            future.add_done_callback(lambda future: self.worked.append(future.result() == number))

        self.call(caller, start)

    def look(self, caller: Caller) -> None:
        what = caller.random.randrange(6)
        if what == 0:
            for task in asyncio.all_tasks(self.loop):
                repr(task), task.get_name(), task.get_stack(limit=1), task.done()
        elif what == 1:
            repr(self.loop), self.loop.is_running(), self.loop.is_closed(), self.loop.get_debug()
        elif what == 2:
            gc.collect(0)
        elif what == 3:
            self.loop.stop()  # which wakes nobody, and may come too late
        elif what == 4:
            self.loop.time()
        else:
            handle = self.call(caller, int)
            repr(handle), handle.cancelled()

    def thread(self, caller: Caller) -> None:
        does = [self.record] * 8 + [self.cancel] * 2 + [self.stop, self.coroutine, self.work]
        does += [self.look, self.wake]
        if self.forking:
            does += [self.fork, self.fork_in_loop] if caller.number == 0 else []
        try:
            for _ in range(caller.random.randint(5, 60)):
                caller.random.choice(does)(caller)
                self.pause(caller.random)
            if self.closed_early:
                self.over.wait(HANG_SECONDS)
                self.record(caller)  # which is refused
        except Closed:
            for _ in range(3):  # it stays closed
                with contextlib.suppress(Closed):
                    self.call(caller, self.faults.append, "a call of a closed loop is run")

    # forks

    def fork(self, caller: Caller) -> None:
        self.calls += 1
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = self.in_child()
            finally:
                os._exit(status)
        limit = time.monotonic() + HANG_SECONDS
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > limit:
                os.kill(pid, signal.SIGABRT)  # it tells where it is
                os.waitpid(pid, 0)
                raise Failed("a child hangs")
            time.sleep(1e-3)
        if ended[1] != 0:
            raise Failed(f"a child ends with {ended[1]}")

    def fork_in_loop(self, caller: Caller) -> None:
        done = threading.Event()

        def fork() -> None:
            try:
                self.fork(caller)
            finally:
                done.set()

        self.call(caller, fork)
        limit = time.monotonic() + HANG_SECONDS
        while not done.wait(0.05) and not self.over.is_set():
            if time.monotonic() > limit:
                raise Failed("a fork by the loop's thread does not end")

    def in_child(self) -> int:
        """The parent's loop takes calls and wakes nobody; one of the child's own works."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(int)
        loop = asyncio.new_event_loop()
        result = loop.run_until_complete(answer(2, 7))
        if not UNDER_TSAN:
            result += loop.run_until_complete(loop.run_in_executor(None, int, 8))
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        return 0 if result in (7, 15) else 3

    # the verdict

    def play(self) -> None:
        rider = self.start(self.ride)
        callers = [self.start(self.thread, caller) for caller in self.callers]
        if self.closed_early:
            time.sleep(self.random.random() * 0.02)
            self.end()
            self.join(callers)
        else:
            self.join(callers)
            if not self.faults:
                self.finish()
            if not self.over.is_set():
                self.end()
        self.join([rider])
        for caller in self.callers:
            self.judge(caller)

    def finish(self) -> None:
        """All that is under way comes to its end."""
        for future, number in self.futures:
            try:
                if future.result(HANG_SECONDS) != number:
                    self.faults.append("a coroutine has another's result")
            except concurrent.futures.CancelledError:
                if not future.cancelled():
                    self.faults.append("a coroutine is cancelled, and its future is not")
            except TimeoutError:
                self.faults.append("a coroutine does not end")
        limit = time.monotonic() + HANG_SECONDS
        asked = threading.Event()
        self.loop.call_soon_threadsafe(asked.set)
        self.wait_for(asked)
        while len(self.worked) < self.to_work and time.monotonic() < limit:
            time.sleep(1e-3)
        if self.worked != [True] * self.to_work:
            self.faults.append(f"{self.worked.count(True)} of {self.to_work} works have a result")

    def judge(self, caller: Caller) -> None:
        ran = [number for who, number in self.ran if who == caller.number]
        taken, told = set(caller.taken), f"caller {caller.number}"
        if ran != sorted(set(ran)):
            self.faults.append(f"{told}: not in order, or not once: {ran[:60]}")
        if not set(ran) <= taken:
            self.faults.append(f"{told}: run and not taken: {set(ran) - taken}")
        missing = sorted(taken - set(ran) - caller.cancelled)
        if not self.closed_early:
            if missing and not self.faults:
                self.faults.append(f"{told}: not run: {missing}")
            return
        must = set(caller.taken[: self.seen[caller.number]] if self.seen else ())
        if must & set(missing):
            self.faults.append(f"{told}: not run before the end: {sorted(must & set(missing))}")
        if missing and ran and missing[0] < ran[-1]:
            self.faults.append(f"{told}: passed over: {missing[0]}, though {ran[-1]} was run")


class Closed(Exception):
    """The loop said that it is closed."""


class Forks(Calls):
    """The same, and the process forks, in a thread that calls and in the loop's."""

    forking = True


async def answer(turns: int, number: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return number


class Signals(History):
    """The main thread's loop sleeps; signals come from a thread, to the process or a thread."""

    def play(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tid = threading.get_native_id()
        self.told = threading.Event()
        self.main = threading.get_ident()
        loop = self.loop
        before = signal.signal(signal.SIGUSR2, self.plain)
        try:
            loop.add_signal_handler(signal.SIGUSR1, self.told.set)
            self.start(self.send, Random(self.random.random()))
            loop.run_forever()
            self.join()
            loop.remove_signal_handler(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR2, before)
            loop.close()

    def plain(self, *args: Any) -> None:
        """A handler of the program's own, which calls the loop."""
        self.loop.call_soon_threadsafe(self.told.set)

    def send(self, random: Random) -> None:
        try:
            for _ in range(random.randint(3, 30)):
                self.calls += 1
                number = random.choice((signal.SIGUSR1, signal.SIGUSR2))
                who = random.choice(("process", "main", "here"))
                if who == "process":
                    os.kill(os.getpid(), number)
                else:
                    here = threading.get_ident()
                    signal.pthread_kill(self.main if who == "main" else here, number)
                self.await_telling(f"{number.name} to {who}")
                self.told.clear()
                if random.random() < 0.5:
                    time.sleep(random.random() * 1e-3)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def await_telling(self, what: str) -> None:
        if self.told.wait(WAKE_SECONDS):
            return
        asleep, limit = 0, time.monotonic() + HANG_SECONDS
        while not self.told.wait(0.05):
            asleep = asleep + 1 if sleeps_in_kernel(self.tid) else 0
            if asleep == 5 or time.monotonic() > limit:
                raise Failed(f"the loop sleeps although a signal came: {what}")


class Loops(History):
    """Loops in threads of their own, which come and go; tokens go from one to the other."""

    HOPS = 40

    def play(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop | None] = [None] * self.random.randint(2, 5)
        self.queues: list[Any] = [None] * len(self.loops)
        self.ready = threading.Barrier(len(self.loops))
        self.hops = [0] * len(self.loops)
        self.left = threading.Barrier(len(self.loops))
        for number in range(len(self.loops)):
            self.start(self.ride, number, Random(self.random.random()))
        self.join()
        if not self.faults and sum(self.hops) != len(self.loops) * (self.HOPS + 1):
            self.faults.append(f"tokens were lost or doubled: {self.hops}")

    def ride(self, number: int, random: Random) -> None:
        for _ in range(random.randint(0, 3)):  # loops that only come and go, beside others that run
            loop = asyncio.new_event_loop()
            loop.run_until_complete(answer(random.randint(0, 5), 1))
            loop.close()
        loop = asyncio.new_event_loop()
        Number.set(number)
        try:
            loop.run_until_complete(self.station(number, random))
        finally:
            self.left.wait(HANG_SECONDS)  # nobody calls it any more
            loop.close()

    async def station(self, number: int, random: Random) -> None:
        self.loops[number] = asyncio.get_running_loop()
        queue = self.queues[number] = asyncio.Queue()
        self.ready.wait(HANG_SECONDS)
        self.pass_on(random.randrange(len(self.loops)), self.HOPS)
        others = [asyncio.create_task(self.turn(number, random)) for _ in range(3)]
        ended = 0
        while ended < len(self.loops):
            async with asyncio.timeout(HANG_SECONDS):
                token = await queue.get()
            if token is None:
                ended += 1
                continue
            self.hops[number] += 1
            if token > 0:
                self.pass_on(random.randrange(len(self.loops)), token - 1)
            else:
                for other in range(len(self.loops)):
                    self.pass_on(other, None)
            if Number.get() != number:
                self.faults.append(f"loop {number} has the context of {Number.get()}")
            if asyncio.get_running_loop() is not self.loops[number]:
                self.faults.append(f"loop {number} has another for the one that runs")
        for task in others:
            task.cancel()
        await asyncio.wait(others)

    def pass_on(self, number: int, token: int | None) -> None:
        self.calls += 1
        loop = self.loops[number]
        assert loop is not None
        loop.call_soon_threadsafe(self.queues[number].put_nowait, token)

    async def turn(self, number: int, random: Random) -> None:
        while True:
            await asyncio.gather(*(answer(1, n) for n in range(3)))
            try:
                async with asyncio.timeout(random.choice((0, 1e-4))):
                    await asyncio.sleep(random.choice((0, 1e-4, 10)))
            except TimeoutError:
                pass
            task = asyncio.current_task()
            if task not in asyncio.all_tasks() or Number.get() != number:
                self.faults.append("a task is not itself")


def hold(last: Last, future: asyncio.Future[Any]) -> None:
    """A callback that has it."""


class Last:
    """Calls the loop when its last reference goes, in whichever thread that is."""

    def __init__(self, history: Objects, number: int) -> None:
        self.history, self.number = history, number
        self.me = self if number % 3 == 0 else None  # for the collector

    def __del__(self) -> None:
        try:
            self.history.loop.call_soon_threadsafe(self.history.gone.append, self.number)
            self.history.called.append(self.number)
        except RuntimeError as exc:
            self.history.faults.append(f"a finalizer is refused: {exc}")


class Objects(History):
    """A loop makes tasks, futures and handles; other threads look at them, and drop the last
    reference to them: by themselves, or by the collector."""

    def play(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.gone: list[int] = []
        self.called: list[int] = []
        self.given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.weak = weakref.WeakSet[Any]()
        self.number = 0
        self.sleeping: set[asyncio.Task[None]] = set()
        self.sleep = threading.Event()
        takers = [
            self.start(self.take, Random(self.random.random()))
            for _ in range(self.random.randint(1, 3))
        ]
        sleeper = self.start(self.watch, Random(self.random.random()))
        try:
            self.loop.run_until_complete(self.make(self.random))
            for _ in takers:
                self.given.put(None)
            self.join([*takers, sleeper])
            gc.collect()
            self.loop.run_until_complete(answer(2, 1))
        finally:
            self.loop.close()
        if sorted(self.gone) != sorted(self.called) or len(self.gone) != self.number:
            self.faults.append(
                f"of {self.number} objects {len(self.called)} called, {len(self.gone)} were heard"
            )

    def last(self) -> Last:
        self.number += 1
        return Last(self, self.number)

    async def make(self, random: Random) -> None:
        self.sleeping = {asyncio.create_task(asyncio.sleep(60)) for _ in range(3)}
        self.sleep.set()
        for _ in range(random.randint(10, 60)):
            self.calls += 1
            made: Any
            match random.randrange(7):
                case 0:
                    made = asyncio.create_task(self.end_with(self.last()))
                case 1:
                    made = self.loop.create_future()
                    made.set_result(self.last())
                case 2:
                    made = self.loop.call_soon(int, "0")
                case 3:
                    made = self.loop.call_later(1e-4, repr, self.last())
                case 4:
                    made = self.loop.create_future()
                    made.add_done_callback(functools.partial(hold, self.last()))
                    self.loop.call_soon(made.cancel)
                case 5:
                    made = asyncio.gather(self.end_with(self.last()), answer(2, 1))
                case _:
                    made = self.loop.call_soon_threadsafe(int)
            if isinstance(made, asyncio.Future):
                self.weak.add(made)
            self.given.put(made)
            del made
            if random.random() < 0.5:
                await answer(random.randint(1, 3), 1)
        await asyncio.sleep(1e-3)
        await answer(5, 1)
        sleeping, self.sleeping = self.sleeping, set()
        for task in sleeping:
            task.cancel()
        await asyncio.wait(sleeping)

    async def end_with(self, last: Last) -> Last:
        await asyncio.sleep(0)
        return last

    def take(self, random: Random) -> None:
        kept: list[Any] = []
        while (made := self.given.get()) is not None:
            kept.append(made)
            repr(made)
            if isinstance(made, asyncio.Task):
                made.get_stack(limit=2), made.get_coro(), made.get_name()
            if isinstance(made, asyncio.Future) and made.done() and not made.cancelled():
                made.exception(), made.result()
            made = None
            if random.random() < 0.4:
                kept.clear()
            if random.random() < 0.1:
                gc.collect(random.randrange(3))
            self.pause(random)

    def watch(self, random: Random) -> None:
        self.sleep.wait()
        for _ in range(20):
            missing = self.sleeping - asyncio.all_tasks(self.loop)
            if missing & self.sleeping:
                self.faults.append("all_tasks() of another thread does not have them all")
            with contextlib.suppress(RuntimeError):  # it grew meanwhile
                list(self.weak)
            self.pause(random)


IMPORTS = """
import asyncio, sys, threading
barrier = threading.Barrier({threads})
found, failed = [], []
def load(number):
    barrier.wait()
    try:
        if number % 2:
            import ctask
        else:
            from ctask import _ctask
            import ctask
        ctask.install()
        found.append((ctask, ctask._ctask, ctask.run(asyncio.sleep(0, 5))))
    except BaseException as exc:
        failed.append(repr(exc))
sys.setswitchinterval({interval})
threads = [threading.Thread(target=load, args=(n,)) for n in range({threads})]
for thread in threads: thread.start()
for thread in threads: thread.join()
if failed or len(set(found)) != 1 or found[0][2] != 5:
    sys.exit(f"{{failed}} {{found}}")
"""


class Imports(History):
    """Threads import ctask at the same time, install it and run it."""

    def play(self) -> None:
        threads, interval = self.random.randint(2, 5), self.random.choice((1e-6, 1e-5, 5e-3))
        self.calls += threads
        code = textwrap.dedent(IMPORTS).format(threads=threads, interval=interval)
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", code],
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS * 2,
        )
        if done.returncode:
            self.faults.append(f"ended with {done.returncode}: {done.stderr[-1000:]}")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Served(History):
    """A round trip through TLS: for interpreters that first ask for OpenSSL at the same time."""

    def play(self) -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(self.visit())
        loop.close()

    async def visit(self) -> None:
        loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS / "server.pem")
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
        address = server.sockets[0].getsockname()
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address, ssl=trusting)
            writer.write(b"x" * 50_000)
            if await reader.readexactly(50_000) != b"x" * 50_000:
                self.faults.append("an echo is not what was sent")
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()


INSIDE = """
import sys
sys.path.append({root!r})
from attacks.threads import child
child.inside({plan!r})
"""


class Interpreters(History):
    """Interpreters with locks of their own, truly at the same time, each with its histories."""

    def play(self) -> None:
        kinds = self.random.choice((INNER, ("served",)))
        for number in range(self.random.randint(2, 3)):
            self.start(self.one, number, self.random.random(), kinds)
        self.join()

    def one(self, number: int, seed: float, kinds: tuple[str, ...]) -> None:
        inner = {"seed": seed, "numbers": [number, number + 10], "kinds": kinds}
        code = INSIDE.format(root=str(ROOT), plan={**self.plan, **inner})
        interpreter = _interpreters.create("isolated")
        try:
            failed: Any = _interpreters.run_string(interpreter, code)  # type: ignore[func-returns-value]
        finally:
            _interpreters.destroy(interpreter)
        if failed is not None:
            self.faults.append(failed.formatted)


KINDS: dict[str, type[History]] = {
    "calls": Calls,
    "forks": Forks,
    "signals": Signals,
    "loops": Loops,
    "objects": Objects,
    "imports": Imports,
    "interpreters": Interpreters,
    "served": Served,
}
INNER = ("calls", "loops", "objects", "served")


def can_play(kind: str, candidate: str) -> bool:
    if kind == "imports":
        return candidate == "ctask"
    return kind != "interpreters" or _interpreters is not None
