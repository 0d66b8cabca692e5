"""install() and uninstall(): everything of asyncio is ctask's, and then asyncio's own again."""

import asyncio
import sys
import threading
from asyncio import futures, tasks, unix_events

import pytest

import ctask
from ctask import _install

pytestmark = pytest.mark.ctask_only

get_policy = _install._get_policy
set_policy = _install._set_policy
MODULES = (asyncio, futures, tasks, unix_events)


@pytest.fixture
def before():
    """Names and policy as they were; whatever a test does, they are so again afterwards."""
    names = {module: dict(vars(module)) for module in MODULES}
    policy = get_policy()
    yield names, policy
    ctask.uninstall()
    set_policy(policy)
    for module in MODULES:
        vars(module).update(names[module])


@pytest.fixture
def is_as_before(before):
    def is_as_before():
        names, policy = before
        return get_policy() is policy and all(vars(module) == names[module] for module in MODULES)

    assert is_as_before()
    return is_as_before


@pytest.fixture
def installed(before):
    ctask.install()


async def kinds():
    return type(asyncio.get_running_loop()), type(asyncio.current_task())


CTASK = ctask.EventLoop, ctask.Task


def test_asyncio_run_uses_ctask(installed):
    assert asyncio.run(kinds()) == CTASK


def test_asyncio_runner_uses_ctask(installed):
    with asyncio.Runner() as runner:
        assert runner.run(kinds()) == CTASK


def test_new_event_loop_is_ctasks(installed):
    loop = asyncio.new_event_loop()
    assert type(loop) is ctask.EventLoop
    loop.close()


def test_run_in_another_thread_uses_ctask(installed):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(kinds())))
    thread.start()
    thread.join()
    assert seen == [CTASK]


def test_asyncios_own_loop_gets_ctasks_tasks_and_futures(installed):
    async def main():
        assert type(asyncio.get_running_loop().create_future()) is ctask.Future
        return await kinds()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == (asyncio.SelectorEventLoop, ctask.Task)


def test_names_are_ctasks(installed):
    assert asyncio.Task is tasks.Task is ctask.Task
    assert asyncio.Future is futures.Future is ctask.Future
    assert isinstance(get_policy(), ctask.EventLoopPolicy)
    if sys.version_info >= (3, 13):
        assert asyncio.EventLoop is ctask.EventLoop


def test_what_asyncio_makes_is_an_instance_of_its_names(installed):
    async def main():
        gathered = asyncio.gather(asyncio.sleep(0), asyncio.sleep(0, 1))
        shielded = asyncio.shield(asyncio.sleep(0))
        task = asyncio.ensure_future(asyncio.sleep(0))
        executed = asyncio.get_running_loop().run_in_executor(None, int)
        for future in (gathered, shielded, task, executed):
            assert isinstance(future, asyncio.Future)
            await future
        assert isinstance(task, asyncio.Task)
        return gathered.result()

    assert asyncio.run(main()) == [None, 1]


def test_gather_can_be_cancelled(installed):
    async def main():
        children = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(2)]
        gathered = asyncio.gather(*children)
        await asyncio.sleep(0)
        assert gathered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathered
        return all(child.cancelled() for child in children)

    assert asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_task_factory_makes_ctasks_tasks(installed):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(kinds())
        return task.done(), type(task), await task

    assert asyncio.run(main()) == (True, ctask.Task, CTASK)


def test_names_imported_before_keep_working(before):
    Future, Task, current_task = asyncio.Future, asyncio.Task, asyncio.current_task  # noqa: N806
    ctask.install()

    async def main():
        assert isinstance(current_task(), Task)
        future = Future()
        asyncio.get_running_loop().call_soon(future.set_result, 1)
        return await future + await Task(asyncio.sleep(0, 2))

    assert asyncio.run(main()) == 3


def test_default_policy_stays_ctasks_when_it_is_set_anew(installed):
    set_policy(None)
    assert asyncio.run(kinds()) == CTASK


# ---- uninstall ----


def test_uninstall_puts_everything_back(is_as_before):
    ctask.install()
    assert not is_as_before()
    ctask.uninstall()
    assert is_as_before()
    loop = asyncio.new_event_loop()
    assert type(loop) is asyncio.SelectorEventLoop
    loop.close()


def test_twice_is_harmless(is_as_before):
    ctask.install()
    policy = get_policy()
    ctask.install()
    assert get_policy() is policy
    ctask.uninstall()
    assert is_as_before()
    ctask.uninstall()
    assert is_as_before()


def test_install_after_uninstall(is_as_before):
    for _ in range(2):
        ctask.install()
        assert asyncio.run(kinds()) == CTASK
        ctask.uninstall()
        assert is_as_before()


def test_uninstall_after_the_default_policy_was_set_anew(is_as_before):
    ctask.install()
    set_policy(None)
    get_policy()
    ctask.uninstall()
    assert is_as_before()


@pytest.mark.parametrize("kind", [ctask.EventLoopPolicy, _install._StockPolicy])
def test_policy_that_somebody_set_in_between_stays(installed, kind):
    policy = kind()
    set_policy(policy)
    ctask.uninstall()
    assert get_policy() is policy
    assert asyncio.Task is not ctask.Task


def test_name_that_somebody_replaced_in_between_stays(installed):
    class Task(ctask.Task):
        pass

    asyncio.Task = Task
    ctask.uninstall()
    assert asyncio.Task is Task
    assert tasks.Task is not ctask.Task


# ---- refusals and failures ----


@pytest.mark.parametrize(
    ("function", "factory"),
    [
        (ctask.install, asyncio.SelectorEventLoop),
        (ctask.uninstall, asyncio.SelectorEventLoop),
        (ctask.uninstall, ctask.new_event_loop),  # install() works there: test_which.py
    ],
)
def test_refused_while_a_loop_runs(is_as_before, function, factory):
    async def main():
        with pytest.raises(
            RuntimeError, match=rf"^ctask\.{function.__name__}\(\) .*loop is running"
        ):
            function()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert is_as_before()


def test_failure_half_way_leaves_nothing_installed(is_as_before, monkeypatch):
    def fail(policy):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(_install, "_set_policy", fail)
        with pytest.raises(MemoryError):
            ctask.install()
    assert is_as_before()
    ctask.install()
    assert asyncio.run(kinds()) == CTASK


def test_from_several_threads_at_once(is_as_before):
    def work():
        barrier.wait()
        ctask.install()

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.Task is ctask.Task
    ctask.uninstall()
    assert is_as_before()


# ---- in whichever order ----


@pytest.mark.parametrize("imports", ["import asyncio, ctask", "import ctask, asyncio"])
def test_order_of_imports_does_not_matter(script, imports):
    script(
        f"""
        {imports}
        import _asyncio
        assert asyncio.Task is _asyncio.Task
        ctask.install()
        async def main():
            async with asyncio.timeout(10):
                task = asyncio.current_task()
                return type(task), asyncio.all_tasks() == {{task}}
        assert asyncio.run(main()) == (ctask.Task, True)
        """,
        bare=True,
    )


def test_nobody_is_warned(script):
    source = """
        import warnings
        warnings.simplefilter("error")
        import ctask, asyncio
        ctask.install()
        ctask.install()
        asyncio.run(asyncio.sleep(0))
        ctask.uninstall()
        asyncio.run(asyncio.sleep(0))
        """
    assert script(source, bare=True).err == ""
