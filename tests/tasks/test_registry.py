"""current_task, all_tasks and get_running_loop see every task and loop, whoever imported them."""

import _asyncio
import asyncio
import contextvars
import gc
import sys
import threading
import weakref

import pytest

STOCK_FUTURE, STOCK_TASK = _asyncio.Future, _asyncio.Task


async def nothing():
    pass


async def waits(fut):
    return await fut


def test_current_task_inside_and_outside(loop, run):
    async def main():
        return asyncio.current_task(), asyncio.current_task(loop)

    task = loop.create_task(main())
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.current_task()))
    assert run(task) == (task, task)
    assert seen == [None]
    assert asyncio.current_task(loop) is None


def test_current_task_outside_a_loop_raises():
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        asyncio.current_task()
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        asyncio.get_running_loop()


def test_current_task_follows_the_steps(loop, run):
    async def body():
        me = asyncio.current_task()
        for _ in range(5):
            await asyncio.sleep(0)
            assert asyncio.current_task() is me
        return me

    async def main():
        tasks = [loop.create_task(body()) for _ in range(5)]
        assert await asyncio.gather(*tasks) == tasks

    run(main())


def test_current_task_in_callbacks_between_steps_is_none(loop, run):
    seen = []

    async def main():
        for _ in range(3):
            loop.call_soon(lambda: seen.append(asyncio.current_task()))
            await asyncio.sleep(0)

    run(main())
    assert seen == [None, None, None]


def test_current_task_after_a_step_that_raised(loop, run):
    async def fails():
        raise ValueError

    async def main():
        task = loop.create_task(fails())
        seen = []
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        await asyncio.sleep(0)
        with pytest.raises(ValueError):
            await task
        assert seen == [None]
        assert asyncio.current_task() is not None

    run(main())


def test_current_task_after_an_exit(loop):
    async def leave():
        raise SystemExit

    with pytest.raises(SystemExit):
        loop.run_until_complete(leave())
    assert asyncio.current_task(loop) is None
    assert asyncio._get_running_loop() is None


def test_current_task_in_done_callbacks_is_none(loop, run):
    seen = []
    task = loop.create_task(nothing())
    task.add_done_callback(lambda t: seen.append(asyncio.current_task()))
    run(task)
    loop.stop()
    loop.run_forever()
    assert seen == [None]


def test_task_is_registered_on_creation_and_forgotten_when_done(loop, run):
    task = loop.create_task(nothing())
    assert asyncio.all_tasks(loop) == {task}
    run(task)
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_inside(loop, run):
    async def main():
        fut = loop.create_future()
        tasks = {loop.create_task(waits(fut)) for _ in range(10)}
        assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
        fut.set_result(None)
        await asyncio.wait(tasks)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_all_tasks_outside_a_loop_raises():
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        asyncio.all_tasks()


def test_all_tasks_is_per_loop(impl, loop, run):
    other = impl.new_event_loop()
    mine, theirs = loop.create_task(nothing()), other.create_task(nothing())
    assert asyncio.all_tasks(loop) == {mine}
    assert asyncio.all_tasks(other) == {theirs}
    run(mine)
    other.run_until_complete(theirs)
    other.close()


def test_stock_tasks_and_ours_are_listed_together(impl, loop, run):
    stock, ours = asyncio.Task(nothing(), loop=loop), impl.Task(nothing(), loop=loop)
    assert asyncio.all_tasks(loop) == {stock, ours}
    run(asyncio.gather(stock, ours))


def test_tasks_are_held_weakly(loop, turn, reports):
    task = loop.create_task(waits(loop.create_future()))
    turn()
    ref = weakref.ref(task)
    task._log_destroy_pending = False
    assert asyncio.all_tasks(loop) == {task}
    del task
    gc.collect()
    assert ref() is None
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_from_another_thread(loop, run):
    seen = []

    async def main():
        fut = loop.create_future()
        tasks = {loop.create_task(waits(fut), name=f"t{n}") for n in range(50)}
        await asyncio.sleep(0)
        thread = threading.Thread(target=lambda: seen.append(asyncio.all_tasks(loop)))
        thread.start()
        thread.join()
        assert seen.pop() == tasks | {asyncio.current_task()}
        fut.set_result(None)
        await asyncio.wait(tasks)

    run(main())


def test_all_tasks_from_another_thread_while_tasks_come_and_go(loop, run):
    stop = threading.Event()
    counts = []

    def watch():
        while not stop.is_set():
            counts.append(len(asyncio.all_tasks(loop)))

    async def main():
        for _ in range(100):
            await asyncio.gather(*(nothing() for _ in range(20)))

    thread = threading.Thread(target=watch)
    thread.start()
    run(main())
    stop.set()
    thread.join()
    assert max(counts, default=0) <= 40


def test_current_task_of_another_threads_loop(loop, run):
    seen = []

    async def main():
        thread = threading.Thread(target=lambda: seen.append(asyncio.current_task(loop)))
        thread.start()
        thread.join()
        return asyncio.current_task()

    task = run(main())
    # 3.14 looks for the current task of other threads; before, it is a dictionary of the process
    assert seen == [task] or sys.version_info >= (3, 14) and seen == [None]


def test_two_loops_in_two_threads_do_not_mix(impl):
    barrier = threading.Barrier(2)
    errors = []

    def body():
        loop = impl.new_event_loop()

        async def main():
            children = {loop.create_task(waits(loop.create_future())) for _ in range(5)}
            await asyncio.sleep(0)
            barrier.wait()
            assert asyncio.all_tasks() == children | {asyncio.current_task()}
            assert asyncio.current_task().get_loop() is loop
            assert asyncio.get_running_loop() is loop
            barrier.wait()
            for child in children:
                child.cancel()
            await asyncio.wait(children)

        try:
            loop.run_until_complete(main())
        except BaseException as exc:
            errors.append(repr(exc))
            barrier.abort()
        finally:
            loop.close()

    threads = [threading.Thread(target=body) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_enter_and_leave_by_hand(loop, run):
    seen = []

    def body():
        asyncio.tasks._enter_task(loop, task)
        seen.append(asyncio.current_task(loop))
        asyncio.tasks._leave_task(loop, task)
        seen.append(asyncio.current_task(loop))

    loop.call_soon(body)
    task = loop.create_task(nothing())
    run(task)
    assert seen == [task, None]


def test_enter_while_another_is_current_is_refused(loop, run):
    async def main():
        other = loop.create_task(nothing())
        with pytest.raises(RuntimeError, match="^Cannot enter into task <Task "):
            asyncio.tasks._enter_task(loop, other)
        with pytest.raises(RuntimeError, match="^(Leaving task|Invalid attempt to) "):
            asyncio.tasks._leave_task(loop, other)
        await other

    run(main())


CHECK = """
import gc

async def child(fut):
    await fut

async def main():
    loop = get_running_loop()
    me = current_task()
    assert type(loop) is ctask.EventLoop, loop
    assert type(me) is ctask.Task, me
    assert asyncio.get_running_loop() is asyncio.events.get_running_loop() is loop
    assert asyncio.current_task() is asyncio.tasks.current_task() is me
    assert asyncio._get_running_loop() is loop
    fut = loop.create_future()
    ours = loop.create_task(child(fut))
    stock = StockTask(child(fut), loop=loop)
    assert type(fut) is ctask.Future
    assert all_tasks() == asyncio.all_tasks() == asyncio.tasks.all_tasks() == {me, ours, stock}
    assert all_tasks(loop) == {me, ours, stock}
    await asyncio.sleep(0)
    assert current_task() is me
    assert isinstance(ours, StockTask) and isinstance(fut, StockFuture)
    assert isinstance(ours, asyncio.Task) and isinstance(fut, asyncio.Future)
    assert asyncio.isfuture(fut) and asyncio.isfuture(ours)
    fut.set_result(1)
    await asyncio.gather(ours, stock)
    assert all_tasks() == {me}
    return "done"
"""

BY_NAME = """
from asyncio import all_tasks, current_task, get_running_loop
"""


@pytest.mark.ctask_only
@pytest.mark.parametrize("names_first", [True, False])
@pytest.mark.parametrize("stock_types_first", [True, False])
@pytest.mark.parametrize("install", ["no", "before", "after", "undone"])
def test_whichever_way_and_order_things_are_imported(
    script, names_first, stock_types_first, install
):
    types = "import asyncio\nStockTask, StockFuture = asyncio.Task, asyncio.Future\n"
    lines = []
    if stock_types_first:
        lines.append(types)
    if names_first:
        lines.append(BY_NAME)
    lines.append("import ctask\n")
    if install == "before":
        lines.append("ctask.install()\n")
    if not stock_types_first:
        lines.append("import _asyncio, asyncio\n")
        lines.append("StockTask, StockFuture = _asyncio.Task, _asyncio.Future\n")
    if not names_first:
        lines.append(BY_NAME)
    if install == "after":
        lines.append("ctask.install()\n")
    if install == "undone":
        lines.append("ctask.install()\nctask.uninstall()\n")
    run = "asyncio.run" if install in ("before", "after") else "ctask.run"
    source = "".join(lines) + CHECK + f"\nprint({run}(main()))\n"
    assert script(source, bare=True).out == "done\n"


@pytest.mark.ctask_only
def test_install_makes_asyncio_run_ctask_and_uninstall_undoes_it(script):
    out = script(
        """
        import asyncio, warnings
        warnings.simplefilter("error")
        before = (asyncio.Task, asyncio.Future, asyncio.tasks.Task, asyncio.futures.Future)
        import ctask
        async def kinds():
            task = asyncio.create_task(asyncio.sleep(0))
            fut = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()
            await task
            kinds = ctask.EventLoop, ctask.Task, ctask.Future
            return tuple(type(o) is kind for o, kind in zip((loop, task, fut), kinds))
        assert asyncio.run(kinds()) == (False, False, False)
        ctask.install(); ctask.install()
        assert asyncio.run(kinds()) == (True, True, True)
        with asyncio.Runner() as runner:
            assert runner.run(kinds()) == (True, True, True)
        assert asyncio.Task is ctask.Task and asyncio.Future is ctask.Future
        loop = asyncio.new_event_loop()
        assert type(loop) is ctask.EventLoop
        loop.close()
        ctask.uninstall(); ctask.uninstall()
        assert asyncio.run(kinds()) == (False, False, False)
        assert before == (asyncio.Task, asyncio.Future, asyncio.tasks.Task, asyncio.futures.Future)
        async def running():
            for f in (ctask.install, ctask.uninstall):
                try:
                    f()
                except RuntimeError as exc:
                    assert "running" in str(exc)
                else:
                    raise AssertionError(f)
        asyncio.run(running())
        print("done")
    """,
        bare=True,
    )
    assert out.out == "done\n"


@pytest.mark.ctask_only
def test_importing_ctask_alone_changes_nothing_of_asyncio(script):
    out = script(
        """
        import asyncio
        names = [n for n in dir(asyncio) if n[0].isupper()] + ["run", "current_task", "all_tasks"]
        before = {n: getattr(asyncio, n) for n in names}
        import ctask
        after = {n: getattr(asyncio, n) for n in before}
        assert before == after, [n for n in before if before[n] is not after[n]]
        print("done")
    """,
        bare=True,
    )
    assert out.out == "done\n"


class Asks:
    """Notes the current task in its finalizer."""

    def __init__(self, seen):
        self.seen = seen

    def __del__(self):
        self.seen.append(asyncio.current_task())


@pytest.mark.parametrize("holder", ["result", "context"])
def test_current_task_in_a_finalizer_between_two_steps_is_none(loop, turn, holder):
    seen = []
    var = contextvars.ContextVar("var")

    async def returns():
        return Asks(seen)

    async def sets():
        var.set(Asks(seen))

    async def other():
        await asyncio.sleep(0)

    for _ in range(3):
        loop.create_task(returns() if holder == "result" else sets())
        loop.create_task(other())
    turn(4)
    assert seen == [None] * 3


def test_task_name_in_the_log_of_what_nobody_retrieved_is_none(loop, turn, logs):
    async def fails():
        raise ValueError

    async def other():
        for _ in range(3):
            await asyncio.sleep(0)

    for _ in range(3):
        loop.create_task(fails())
        loop.create_task(other())
    turn(5)
    names = [getattr(record, "taskName", None) for record in logs.take()]
    assert names == [None] * 3


def test_current_task_of_steps_that_follow_each_other_and_a_task_of_asyncios(loop, run):
    """What is left between two steps of ours does not keep asyncio's own task from entering."""

    async def body():
        for _ in range(3):
            await asyncio.sleep(0)
            yield_to.append(asyncio.current_task())

    yield_to = []

    async def main():
        tasks = [loop.create_task(body()), STOCK_TASK(body(), loop=loop), loop.create_task(body())]
        await asyncio.wait(tasks)
        assert yield_to == tasks * 3
        del yield_to[:]

    run(main())


def test_leaving_in_the_place_of_a_step_is_an_error(loop, turn, reports):
    async def leaves():
        asyncio.tasks._leave_task(loop, asyncio.current_task())

    async def other():
        assert asyncio.current_task() is not None

    task = loop.create_task(leaves())
    others = [loop.create_task(other()) for _ in range(2)]
    turn()
    (report,) = reports.take()
    assert isinstance(report["exception"], RuntimeError)
    assert task.done() and all(other.exception() is None for other in others)
    assert asyncio.current_task(loop) is None


def test_a_task_that_somebody_else_ended_is_in_nobodys_list(impl, loop, turn, start, reports):
    async def waits(fut):
        await fut

    for end in (lambda t: STOCK_FUTURE.set_result(t, 1), lambda t: impl.Future.cancel(t)):
        fut = loop.create_future()
        task = start(waits(fut))
        end(task)
        if not hasattr(sys, "gettotalrefcount"):  # asyncio aborts there
            assert task not in asyncio.all_tasks(loop)
        fut.set_result(None)
        turn()
        (report,) = reports.take()
        assert isinstance(report["exception"], asyncio.InvalidStateError)
        assert task not in asyncio.all_tasks(loop)
        seen = weakref.ref(task)
        del task, report, fut
        gc.collect()
        assert seen() is None
        assert asyncio.all_tasks(loop) == set()
