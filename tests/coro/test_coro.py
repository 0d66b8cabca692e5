"""Coroutines in C: who sends to them twice, late, or from inside finds what Python's do."""

import asyncio
import gc
import inspect
import sys
import warnings

import pytest

pytestmark = [
    pytest.mark.usefixtures("installed"),
    pytest.mark.filterwarnings("ignore:the .type, exc, tb. signature:DeprecationWarning"),
]

# In 3.11 wait_for() runs a task of its own.
IN_PLACE = sys.version_info >= (3, 12)
in_place = pytest.mark.skipif(not IN_PLACE, reason="wait_for() runs a task of its own")


class Things:
    """What the coroutines below belong to: each waits for ever."""

    def __init__(self):
        self.locked = asyncio.Lock()
        self.condition = asyncio.Condition()
        self.semaphore = asyncio.Semaphore(0)
        self.queue = asyncio.Queue()
        self.full = asyncio.Queue(1)
        self.full.put_nowait(1)
        self.reader = asyncio.StreamReader()
        self.fut = asyncio.get_running_loop().create_future()

    async def begin(self):
        await self.locked.acquire()
        await self.condition.acquire()
        return self

    async def end(self):
        self.fut.cancel()
        self.condition.release()
        self.locked.release()
        await asyncio.sleep(0)


async def wait_in_python(things):
    await things.fut


KINDS = {
    "sleep": lambda t: asyncio.sleep(3600),
    "sleep(0)": lambda t: asyncio.sleep(0),
    "event": lambda t: asyncio.Event().wait(),
    "lock": lambda t: t.locked.acquire(),
    "async with lock": lambda t: t.locked.__aenter__(),
    "condition": lambda t: t.condition.wait(),
    "semaphore": lambda t: t.semaphore.acquire(),
    "queue.get": lambda t: t.queue.get(),
    "queue.put": lambda t: t.full.put(2),
    "queue.join": lambda t: t.full.join(),
    "read": lambda t: t.reader.read(1),
    "readline": lambda t: t.reader.readline(),
    "readuntil": lambda t: t.reader.readuntil(b"x"),
    "readexactly": lambda t: t.reader.readexactly(5),
    "wait_for": lambda t: asyncio.wait_for(t.fut, 3600),
    "wait_for coroutine": lambda t: asyncio.wait_for(wait_in_python(t), 3600),
    "wait": lambda t: asyncio.wait([t.fut]),
    "python": wait_in_python,
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


async def waits(coro):
    return await coro


def test_the_second_to_await_is_refused(run, kind):
    async def main():
        things = await Things().begin()
        coro = kind(things)
        first = asyncio.create_task(waits(coro))
        second = asyncio.create_task(waits(coro))
        others = [second]
        if IN_PLACE:
            others.append(asyncio.create_task(asyncio.wait_for(waits(coro), 10)))
            others.append(asyncio.create_task(asyncio.wait_for(coro, 10)))
        # In one turn: sleep(0) ends after the next.
        await asyncio.sleep(0)
        if not second.done():
            await asyncio.sleep(0)
        for task in others:
            for _ in range(3):
                if not task.done():
                    await asyncio.sleep(0)
            assert task.done() and "await" in str(task.exception())
        second.cancel()
        await asyncio.sleep(0)
        if not first.done():
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        await things.end()

    run(main())


def test_one_that_is_awaited_refuses_wait_for(run):
    async def main():
        event = asyncio.Event()
        coro = event.wait()
        first = asyncio.create_task(waits(coro))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await coro
        if IN_PLACE:
            with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
                await asyncio.wait_for(coro, 10)
        event.set()
        assert await first is True

    run(main())


@in_place
def test_wait_for_refuses_a_coroutine_in_python_that_is_awaited(run):
    async def main():
        fut = asyncio.get_running_loop().create_future()
        coro = waits(fut)
        later = asyncio.wait_for(coro, 10)  # it is nobody's yet
        first = asyncio.create_task(waits(coro))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await later
        fut.set_result(5)
        assert await first == 5

    run(main())


def test_its_await_method_asks_nothing(run, kind):
    async def main():
        things = await Things().begin()
        coro = kind(things)
        iterator = coro.__await__()
        next(iterator)
        again = coro.__await__()
        again.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            coro.send(None)
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            coro.throw(ValueError())
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coro
        coro.close()
        await things.end()

    run(main())


@in_place
def test_from_inside_it_is_executing(run):
    calls = []

    class Evil(asyncio.Future):
        def __await__(self):
            for call in (
                lambda: coro.send(None),
                lambda: coro.throw(ValueError()),
                coro.close,
                lambda: next(coro.__await__()),
            ):
                try:
                    call()
                except BaseException as exc:
                    calls.append((type(exc), str(exc)))
            assert inspect.getcoroutinestate(coro) == "CORO_RUNNING"
            return (yield from super().__await__())

    async def main():
        nonlocal coro
        fut = Evil()
        coro = asyncio.wait_for(fut, 10)
        fut.set_result(7)
        assert await coro == 7

    coro = None
    run(main())
    assert calls == [(ValueError, "coroutine already executing")] * 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="throw() with three arguments does not warn")
@pytest.mark.parametrize("started", [False, True])
def test_sending_while_throw_warns(run, started):
    async def main():
        event = asyncio.Event()
        coro = event.wait()
        caught = []
        if started:
            coro.send(None)

        def show(*args, **kwargs):
            try:
                coro.send(None)
            except BaseException as exc:
                caught.append(type(exc))

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            # asyncio's has ended then, if it was waiting.
            with pytest.raises((KeyError, RuntimeError)):
                coro.throw(KeyError, KeyError(1), None)
        gc.collect()
        event.set()
        assert len(caught) <= 1

    run(main())


def test_throw_with_wrong_arguments_changes_nothing(run):
    async def main():
        event = asyncio.Event()
        coro = event.wait()
        with pytest.raises(TypeError):
            coro.throw(5)
        assert inspect.getcoroutinestate(coro) == "CORO_CREATED"
        event.set()
        assert await coro is True

    run(main())


@in_place
def test_it_may_not_ignore_generator_exit(run):
    class Stubborn(asyncio.Future):
        def __await__(self):
            try:
                yield from super().__await__()
            except GeneratorExit:
                yield None

    async def main():
        fut = Stubborn()
        coro = asyncio.wait_for(fut, 10)
        coro.send(None)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            coro.close()
        del coro
        fut.cancel()

    run(main())


@in_place
@pytest.mark.parametrize("returned", [5, None, "coroutine"])
def test_wait_for_what_has_a_wrong_await_method(run, returned):
    class Wrong(asyncio.Future):
        def __await__(self):
            return coro if returned == "coroutine" else returned

    coro = waits(None)

    async def main():
        with pytest.raises(TypeError, match=r"__await__\(\) returned"):
            await asyncio.wait_for(Wrong(), 10)

    run(main())
    coro.close()


def test_one_that_was_never_awaited_warns_in_a_cycle(run):
    async def main():
        cycle = []
        cycle.append(asyncio.sleep(0, cycle))

    with pytest.warns(RuntimeWarning, match="coroutine 'sleep' was never awaited"):
        run(main())
        gc.collect()


def test_asking_what_it_awaits_may_end_it(run):
    class Meta(type):
        def __getattribute__(cls, name):
            if name == "acquire" and armed:
                armed.clear()
                coro.close()
            return super().__getattribute__(name)

    class Lock(asyncio.Lock, metaclass=Meta):
        pass

    armed = []
    coro = None

    async def main():
        nonlocal coro
        lock = Lock()
        await lock.acquire()
        coro = lock.__aenter__()
        coro.send(None)
        armed.append(True)
        awaited = coro.cr_await
        coro.close()
        del awaited

    run(main())
