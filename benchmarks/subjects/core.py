"""The core scenarios: tasks, futures, timers, callbacks and synchronisation, without any input
or output.

Each scenario is `async def name(n)`, performs n operations, and says in its docstring what one
operation is. A scenario uses only asyncio's public API and looks every name up on `asyncio` when
it runs, so that the same program runs on every contender. Nothing here measures; worker.py does.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Run = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    name: str  # as given to --scenario
    title: str  # as printed
    run: Run
    n: int  # operations when time is measured: 0.1 to 0.2 s of CPU on asyncio
    small: int  # operations when instructions are counted, which is some 50 times slower
    batch: int  # n is a multiple of it

    @property
    def operation(self) -> str:
        """What one operation is: the scenario's docstring, on one line."""
        return " ".join((self.run.__doc__ or "").split())

    def rounded(self, n: int) -> int:
        return max(1, n // self.batch) * self.batch


SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, *, n: int, small: int, batch: int = 1) -> Callable[[Run], Run]:
    if n % batch or small % batch:
        raise ValueError(f"{title}: n and small must be multiples of {batch}")

    def register(run: Run) -> Run:
        name = run.__name__
        SCENARIOS[name] = Scenario(name, title, run, n, small, batch)
        return run

    return register


def nothing(*_: object) -> None:
    """A callback that costs only its call."""


async def noop() -> None:
    """A coroutine that ends at its first step."""


@scenario("create + await a task", n=10_000, small=400)
async def create_task(n: int) -> None:
    """Create a task that ends at its first step, and await it."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.create_task(noop())


@scenario("gather of 1000", n=40_000, small=1000, batch=1000)
async def gather(n: int) -> None:
    """One of 1000 coroutines handed to `asyncio.gather`, each ending at its first step."""
    for _ in range(n // 1000):
        await asyncio.gather(*[noop() for _ in range(1000)])


@scenario("TaskGroup of 100", n=30_000, small=1000, batch=100)
async def task_group(n: int) -> None:
    """One of 100 tasks of an `asyncio.TaskGroup`, each ending at its first step."""
    for _ in range(n // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(noop())


@scenario("sleep(0), one task", n=20_000, small=500)
async def sleep_one(n: int) -> None:
    """`await asyncio.sleep(0)` with nothing else to run: one turn of the loop."""
    for _ in range(n):
        await asyncio.sleep(0)


@scenario("sleep(0), 100 tasks", n=100_000, small=3000, batch=100)
async def sleep_many(n: int) -> None:
    """One `await asyncio.sleep(0)` in one of 100 tasks; a turn of the loop steps all of them."""

    async def sleeper(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    await asyncio.gather(*[sleeper(n // 100) for _ in range(100)])


@scenario("futures' ping-pong", n=20_000, small=500, batch=2)
async def ping_pong(n: int) -> None:
    """Create a future, set the other task's future, wait for one's own: one wake-up of one of two
    tasks.
    """
    loop = asyncio.get_running_loop()
    balls = [loop.create_future(), loop.create_future()]

    async def player(me: int, other: int) -> None:
        for _ in itertools.repeat(None, n // 2):
            await balls[me]
            balls[me] = loop.create_future()
            balls[other].set_result(None)

    players = asyncio.gather(player(0, 1), player(1, 0))
    balls[0].set_result(None)
    await players


@scenario("Queue hand-over", n=30_000, small=1000)
async def queue_handover(n: int) -> None:
    """One item through an `asyncio.Queue(10)`, from a task that puts to a task that gets."""
    items: asyncio.Queue[int] = asyncio.Queue(10)

    async def producer() -> None:
        for i in range(n):
            await items.put(i)

    async def consumer() -> None:
        for _ in range(n):
            await items.get()

    await asyncio.gather(producer(), consumer())


@scenario("Lock", n=20_000, small=500, batch=10)
async def lock(n: int) -> None:
    """`async with lock` by one of 10 tasks that want it, with `asyncio.sleep(0)` inside."""
    shared = asyncio.Lock()

    async def worker() -> None:
        for _ in range(n // 10):
            async with shared:
                await asyncio.sleep(0)

    await asyncio.gather(*[worker() for _ in range(10)])


@scenario("Event", n=20_000, small=1000, batch=100)
async def event(n: int) -> None:
    """One of 100 new tasks that wait for an `asyncio.Event`, which then is set."""
    for _ in range(n // 100):
        ready = asyncio.Event()
        waiters = [asyncio.create_task(ready.wait()) for _ in range(100)]
        await asyncio.sleep(0)
        ready.set()
        await asyncio.gather(*waiters)


@scenario("asyncio.timeout", n=10_000, small=500)
async def timeout(n: int) -> None:
    """`async with asyncio.timeout(60)` around an `asyncio.sleep(0)`; the timeout never strikes."""
    for _ in range(n):
        async with asyncio.timeout(60):
            await asyncio.sleep(0)


@scenario("wait_for", n=10_000, small=500)
async def wait_for(n: int) -> None:
    """`asyncio.wait_for(future, 60)` on a future that a callback sets at the next turn."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await asyncio.wait_for(future, 60)


@scenario("timers fired", n=30_000, small=2000, batch=1000)
async def timers_fired(n: int) -> None:
    """One of 1000 timers set with `call_later`, due after 1 to 4 ms in mixed order, which then
    fires.
    """
    loop = asyncio.get_running_loop()
    # Whole milliseconds: a loop with a finer clock must not have to wake up more often.
    delays = [0.001 * (1 + i * 7 % 4) for i in range(1000)]
    for _ in range(n // 1000):
        done = loop.create_future()
        left = 1000

        def fire(done: asyncio.Future[None] = done) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        for delay in delays:
            loop.call_later(delay, fire)
        await done


@scenario("timers cancelled", n=40_000, small=2000, batch=100)
async def timers_cancelled(n: int) -> None:
    """Set a timer a minute ahead and cancel it; the loop turns after every 100."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for _ in range(100):
            loop.call_later(60, nothing).cancel()
        await asyncio.sleep(0)


@scenario("cancel 100 waiting tasks", n=15_000, small=1000, batch=100)
async def cancel(n: int) -> None:
    """One of 100 new tasks, each waiting for a future of its own, cancelled and awaited."""
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.create_future()

    for _ in range(n // 100):
        tasks = [asyncio.create_task(wait()) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@scenario("call_soon, chained", n=20_000, small=1000)
async def call_soon_chained(n: int) -> None:
    """One callback that schedules the next with `call_soon`: one turn of the loop."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    turns = itertools.repeat(None, n - 1)
    call_soon = loop.call_soon

    def step() -> None:
        for _ in turns:
            call_soon(step)
            return
        done.set_result(None)

    call_soon(step)
    await done


@scenario("call_soon, 1000 at once", n=200_000, small=5000, batch=1000)
async def call_soon_batched(n: int) -> None:
    """One of 1000 callbacks scheduled with `call_soon` and run in the same turn."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 1000):
        for _ in range(1000):
            loop.call_soon(nothing)
        await asyncio.sleep(0)


@scenario("call_soon_threadsafe", n=4000, small=300)
async def call_soon_threadsafe(n: int) -> None:
    """Hand a future to a waiting thread, which wakes the idle loop with
    `call_soon_threadsafe(future.set_result)`.
    """
    loop = asyncio.get_running_loop()
    requests: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()

    def answer() -> None:
        while (future := requests.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(n):
        future = loop.create_future()
        requests.put(future)
        await future
    requests.put(None)
    thread.join()


@scenario("done callbacks", n=60_000, small=2000, batch=100)
async def done_callbacks(n: int) -> None:
    """One of 100 futures: created, given a done callback, its result set; its callback runs at the
    next turn.
    """
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for _ in range(100):
            future = loop.create_future()
            future.add_done_callback(nothing)
            future.set_result(None)
        await asyncio.sleep(0)


@scenario("await chain, 50 deep", n=10_000, small=500)
async def await_chain(n: int) -> None:
    """Call 50 coroutines nested in one another, with `asyncio.sleep(0)` in the innermost. Mostly
    the interpreter's own.
    """

    async def below(depth: int) -> None:
        if depth:
            await below(depth - 1)
        else:
            await asyncio.sleep(0)

    for _ in range(n):
        await below(49)
