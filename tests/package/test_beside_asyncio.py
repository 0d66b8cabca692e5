"""Living beside asyncio: tasks, futures and loops of both kinds, and asyncio's primitives."""

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import io
import socket
import sys
import threading
import unittest

import pytest


async def nothing():
    pass


async def returns(value):
    await asyncio.sleep(0)
    return value


async def waits(fut):
    return await fut


# --- Our tasks and futures on other loops


class MockLoop:
    """The least that a task needs of a loop: a queue, and call_soon() that fills it."""

    def __init__(self):
        self.ready = collections.deque()
        self.contexts = []
        self.reports = []

    def get_debug(self):
        return False

    def call_soon(self, callback, *args, context=None):
        self.contexts.append(context)
        self.ready.append((callback, args, context))

    def call_exception_handler(self, context):
        self.reports.append(context)

    def is_running(self):
        return True

    def run(self):
        asyncio._set_running_loop(self)
        try:
            while self.ready:
                callback, args, context = self.ready.popleft()
                context.run(callback, *args)
        finally:
            asyncio._set_running_loop(None)


def test_task_on_a_mock_loop(impl):
    loop = MockLoop()
    fut = impl.Future(loop=loop)
    seen = []

    async def body():
        seen.append(asyncio.current_task())
        seen.append(await fut)
        await asyncio.sleep(0)
        return "done"

    task = impl.Task(body(), loop=loop)
    loop.run()
    assert seen == [task]
    fut.set_result("result")
    loop.run()
    assert seen == [task, "result"]
    assert task.result() == "done"
    assert all(isinstance(context, contextvars.Context) for context in loop.contexts)
    assert len(loop.contexts) == 3


def test_cancel_on_a_mock_loop(impl):
    loop = MockLoop()
    task = impl.Task(waits(impl.Future(loop=loop)), loop=loop)
    loop.run()
    task.cancel("m")
    loop.run()
    assert task.cancelled()


@pytest.fixture(scope="module", autouse=True)
def process_wide_descriptors():
    """uvloop's first loop opens a pair of descriptors that it keeps."""
    with contextlib.suppress(ImportError):
        import uvloop

        loop = uvloop.new_event_loop()
        loop.run_until_complete(nothing())
        loop.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def other(request):
    """A loop that is not ours."""
    if request.param == "uvloop":
        loop = pytest.importorskip("uvloop").new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def test_our_task_on_another_loop(impl, other):
    async def body():
        assert asyncio.get_running_loop() is other
        assert asyncio.current_task() is task
        assert task in asyncio.all_tasks()
        fut = impl.Future(loop=other)
        other.call_soon(fut.set_result, 1)
        assert await fut == 1
        stock = asyncio.Future(loop=other)
        other.call_soon(stock.set_result, 2)
        assert await stock == 2
        await asyncio.sleep(0.001)
        return 3

    task = impl.Task(body(), loop=other)
    assert other.run_until_complete(task) == 3
    assert asyncio.all_tasks(other) == set()


def test_our_task_as_the_task_factory_of_another_loop(impl, other):
    other.set_task_factory(lambda loop, coro, **kw: impl.Task(coro, loop=loop, **kw))

    async def main():
        assert type(asyncio.current_task()) is impl.Task
        async with asyncio.timeout(10):
            results = await asyncio.gather(*(returns(n) for n in range(10)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.create_future(), 0.001)
        return results

    assert other.run_until_complete(main()) == list(range(10))


def test_our_cancelled_and_failing_tasks_on_another_loop(impl, other):
    async def fails():
        raise ValueError("why")

    async def main():
        task = impl.Task(waits(other.create_future()), loop=other)
        await asyncio.sleep(0)
        task.cancel("m")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="why"):
            await impl.Task(fails(), loop=other)

    other.run_until_complete(main())


def test_our_future_completed_from_a_thread_on_another_loop(impl, other):
    async def main():
        fut = impl.Future(loop=other)
        thread = threading.Thread(target=other.call_soon_threadsafe, args=(fut.set_result, 5))
        thread.start()
        result = await fut
        thread.join()
        return result

    assert other.run_until_complete(main()) == 5


# --- Stock tasks and futures on our loop


def test_stock_task_and_future_on_our_loop(loop, run):
    async def body():
        assert asyncio.current_task() is task
        fut = asyncio.Future(loop=loop)
        loop.call_soon(fut.set_result, 1)
        return await fut

    task = asyncio.Task(body(), loop=loop)
    assert run(task) == 1


def test_python_task_and_future_on_our_loop(loop, run):
    # The pure Python classes, as tools that patch asyncio use them.
    async def body():
        fut = asyncio.futures._PyFuture(loop=loop)
        loop.call_soon(fut.set_result, 1)
        ours = loop.create_future()
        loop.call_soon(ours.set_result, 2)
        return await fut + await ours

    async def main():
        return await asyncio.tasks._PyTask(body(), loop=loop)

    assert run(main()) == 3


@pytest.mark.parametrize("outer", ["stock", "ours", "python"])
@pytest.mark.parametrize("inner", ["stock", "ours", "python"])
def test_tasks_of_every_kind_await_each_other(impl, loop, run, outer, inner):
    kinds = {"stock": asyncio.Task, "ours": impl.Task, "python": asyncio.tasks._PyTask}

    async def main():
        a = kinds[inner](returns(7), loop=loop)
        b = kinds[outer](waits(a), loop=loop)
        assert await b == 7
        a = kinds[inner](waits(loop.create_future()), loop=loop)
        b = kinds[outer](waits(a), loop=loop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        b.cancel("m")
        with pytest.raises(asyncio.CancelledError):
            await b
        assert a.cancelled() and b.cancelled()

    run(main())


def test_isinstance_and_issubclass_hold_both_ways_that_matter(impl, loop):
    stock = asyncio.Future(loop=loop)
    ours = loop.create_future()
    assert isinstance(ours, asyncio.Future)
    assert asyncio.isfuture(stock) and asyncio.isfuture(ours)
    assert issubclass(impl.Task, asyncio.Future)
    assert issubclass(impl.Task, impl.Future)
    assert issubclass(impl.TimerHandle, asyncio.Handle)
    assert issubclass(impl.EventLoop, asyncio.AbstractEventLoop)


@pytest.mark.ctask_only
def test_stock_objects_are_not_ours(impl, loop, run):
    assert not isinstance(asyncio.Future(loop=loop), impl.Future)
    task = asyncio.Task(nothing(), loop=loop)
    assert not isinstance(task, impl.Task)
    run(task)


# --- asyncio's primitives on our loop, with tasks of both kinds


@pytest.fixture(params=["ours", "stock", "mixed"])
def spawn(request, impl, loop):
    """Starts a task of the implementation, of asyncio, or of each in turn."""
    kinds = {"ours": [impl.Task], "stock": [asyncio.Task], "mixed": [impl.Task, asyncio.Task]}
    count = 0

    def spawn(coro):
        nonlocal count
        count += 1
        return kinds[request.param][count % len(kinds[request.param])](coro, loop=loop)

    return spawn


def test_gather(loop, run, spawn):
    async def fails():
        raise ValueError("why")

    async def main():
        assert await asyncio.gather(*(spawn(returns(n)) for n in range(10))) == list(range(10))
        results = await asyncio.gather(spawn(fails()), spawn(returns(1)), return_exceptions=True)
        assert type(results[0]) is ValueError and results[1] == 1
        children = [spawn(waits(loop.create_future())) for _ in range(3)]
        gathered = asyncio.gather(*children)
        await asyncio.sleep(0)
        gathered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathered
        assert all(child.cancelled() for child in children)

    run(main())


def test_wait(loop, run, spawn):
    async def main():
        fut = loop.create_future()
        quick, slow = spawn(returns(1)), spawn(waits(fut))
        done, pending = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})
        done, pending = await asyncio.wait([slow], timeout=0.001)
        assert (done, pending) == (set(), {slow})
        fut.set_result(None)
        assert (await asyncio.wait([quick, slow]))[1] == set()
        order = [await coming for coming in asyncio.as_completed([spawn(returns(5))])]
        assert order == [5]

    run(main())


def test_wait_for_and_timeout_and_shield(loop, run, spawn):
    async def main():
        assert await asyncio.wait_for(spawn(returns(1)), 10) == 1
        stuck = spawn(waits(loop.create_future()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stuck, 0.001)
        assert stuck.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await loop.create_future()
        fut = loop.create_future()
        inner = spawn(waits(fut))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        assert not inner.done()
        fut.set_result(9)
        assert await inner == 9

    run(main())


def test_task_group(loop, run):
    cancelled = []

    async def stuck():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def fails():
        raise ValueError("why")

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(returns(n)) for n in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(stuck())
                group.create_task(stuck())
                group.create_task(fails())
        assert [type(exc) for exc in caught.value.exceptions] == [ValueError]
        assert cancelled == [1, 1]
        if sys.version_info >= (3, 13):
            assert asyncio.current_task().cancelling() == 0

    run(main())


def test_queue_lock_event_semaphore_condition(loop, run, spawn):
    async def producer(queue):
        for n in range(20):
            await queue.put(n)

    async def consumer(queue, seen):
        while True:
            seen.append(await queue.get())
            queue.task_done()

    async def holder(lock, seen, n):
        async with lock:
            seen.append(("in", n))
            await asyncio.sleep(0)
            seen.append(("out", n))

    async def main():
        queue, seen = asyncio.Queue(3), []
        workers = [spawn(consumer(queue, seen)) for _ in range(3)]
        await spawn(producer(queue))
        await queue.join()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert sorted(seen) == list(range(20))

        for lock in (asyncio.Lock(), asyncio.Semaphore(1), asyncio.Condition()):
            seen = []
            await asyncio.gather(*(spawn(holder(lock, seen, n)) for n in range(4)))
            assert seen == [(what, n) for n in range(4) for what in ("in", "out")]

        event = asyncio.Event()
        waiters = [spawn(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        event.set()
        assert await asyncio.gather(*waiters) == [True] * 3
        barrier = asyncio.Barrier(3)
        assert sorted(await asyncio.gather(*(spawn(barrier.wait()) for _ in range(3)))) == [0, 1, 2]

    run(main())


def test_streams(loop, run):
    async def serve(reader, writer):
        while data := await reader.readline():
            writer.write(data.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        for n in range(5):
            writer.write(b"line %d\n" % n)
            assert await reader.readline() == b"LINE %d\n" % n
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        for _ in range(3):
            await asyncio.sleep(0)

    run(main())


def test_sock_methods(loop, run):
    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        receiving = loop.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(b, b"hello")
        assert await receiving == b"hello"
        receiving = loop.create_task(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert loop.remove_reader(a) is False
        a.close()
        b.close()

    run(main())


def test_subprocess(loop, run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "print(input()[::-1]); raise SystemExit(3)",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(b"abc\n")
        assert (out, process.returncode) == (b"cba\n", 3)
        for _ in range(3):
            await asyncio.sleep(0)

    run(main())
    for thread in threading.enumerate():
        if thread.name.startswith(("waitpid-", "asyncio-waitpid-")):
            thread.join()


def test_executors(loop, run):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [loop.run_in_executor(pool, pow, n, 2) for n in range(5)]
            assert await asyncio.gather(*jobs) == [0, 1, 4, 9, 16]
            wrapped = asyncio.wrap_future(pool.submit(int, "5"))
            assert await wrapped == 5

    run(main())


def test_async_generators_and_context_managers(loop, run):
    @contextlib.asynccontextmanager
    async def manager():
        await asyncio.sleep(0)
        yield 1
        await asyncio.sleep(0)

    async def numbers():
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    async def main():
        async with manager() as value:
            assert value == 1
        assert [n async for n in numbers()] == [0, 1, 2]

    run(main())


# --- asyncio's own ways to run a program


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loop_factory came with 3.12")
def test_asyncio_run_with_our_loop_factory(impl):
    async def main():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, impl.EventLoop)
        await asyncio.sleep(0)
        return type(asyncio.current_task())

    assert asyncio.run(main(), loop_factory=impl.new_event_loop) is impl.Task


def test_asyncio_runner_with_our_loop_factory(impl):
    async def main():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        assert issubclass(runner.run(main()), impl.EventLoop)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_isolated_asyncio_test_case_on_our_loop(impl):
    seen = []

    class Case(unittest.IsolatedAsyncioTestCase):
        if sys.version_info >= (3, 13):
            loop_factory = staticmethod(impl.new_event_loop)

        async def asyncSetUp(self):
            seen.append("set up")

        async def test_it(self):
            await asyncio.sleep(0)
            seen.append(isinstance(asyncio.get_running_loop(), impl.EventLoop))

        async def asyncTearDown(self):
            seen.append("torn down")

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self):
            return impl.new_event_loop()

    if sys.version_info < (3, 13):
        asyncio.set_event_loop_policy(Policy())
    try:
        result = unittest.TextTestRunner(stream=io.StringIO()).run(Case("test_it"))
    finally:
        if sys.version_info < (3, 13):
            asyncio.set_event_loop_policy(None)
    assert result.wasSuccessful(), result.errors
    assert seen == ["set up", True, "torn down"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_event_loop_policy_makes_our_loops(impl):
    policy = impl.EventLoopPolicy()
    loop = policy.new_event_loop()
    assert isinstance(loop, impl.EventLoop)
    policy.set_event_loop(loop)
    assert policy.get_event_loop() is loop
    policy.set_event_loop(None)
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_set_event_loop_makes_it_the_current_one(loop):
    asyncio.set_event_loop(loop)
    assert asyncio.get_event_loop() is loop
    fut = asyncio.Future()
    assert fut.get_loop() is loop
    asyncio.set_event_loop(None)


# --- What a program replaces in asyncio


def test_tasks_are_of_the_class_that_asyncio_tasks_has(loop, run, monkeypatch):
    class Mine(asyncio.Task):
        pass

    context = contextvars.copy_context()

    async def made():
        return loop.create_task(returns(1), name="mine", context=context)

    before = run(made())
    assert not isinstance(before, Mine)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.tasks, "Task", Mine)
        task = run(made())
        assert type(task) is Mine
        assert task.get_name() == "mine"
        assert asyncio.all_tasks(loop) == {task}
        other = loop.create_task(returns(2))
        assert type(other) is Mine
    after = loop.create_task(returns(3))
    assert type(after) is type(before)
    assert run(asyncio.gather(before, task, other, after)) == [1, 1, 2, 3]


def test_a_task_class_that_is_gone_is_missed(loop, monkeypatch):
    coro = nothing()
    with monkeypatch.context() as patch:
        patch.delattr(asyncio.tasks, "Task")
        with pytest.raises(AttributeError, match="Task"):
            loop.create_task(coro)
    coro.close()


@pytest.mark.ctask_only  # asyncio's tasks in C do not run then
def test_tasks_run_under_replaced_running_loop_functions(impl, loop, run, monkeypatch):
    # asyncio keeps them in Python as well, in another place than the C functions look at.
    events = asyncio.events
    for module in (asyncio, events):
        monkeypatch.setattr(module, "_get_running_loop", events._py__get_running_loop)
        monkeypatch.setattr(module, "_set_running_loop", events._py__set_running_loop)
        monkeypatch.setattr(module, "get_running_loop", events._py_get_running_loop)

    async def main():
        other = impl.new_event_loop()
        with (
            contextlib.closing(other),
            pytest.raises(RuntimeError, match="another loop is running"),
        ):
            other.run_forever()
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    assert run(main()) is loop
    assert asyncio._get_running_loop() is None
    monkeypatch.undo()
    assert asyncio._get_running_loop() is None
    assert run(returns(1)) == 1
