"""ctask.run() and ctask.Runner stand for asyncio.run() and asyncio.Runner."""

import asyncio
import inspect
import signal
import sys

import pytest

FACTORY = {"loop_factory": asyncio.SelectorEventLoop}


def current_loop():
    """The loop that is set for the thread, or None."""
    try:
        return asyncio.get_event_loop()
    except RuntimeError:
        return None


async def loop_and_task():
    return asyncio.get_running_loop(), asyncio.current_task()


def test_run_returns_the_result_and_closes_the_loop(impl):
    loop, task = impl.run(loop_and_task())
    assert type(loop) is impl.EventLoop
    assert type(task) is impl.Task
    assert loop.is_closed()
    assert task.done()


def test_run_raises_what_the_coroutine_raises(impl):
    async def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        impl.run(main())


@pytest.mark.parametrize("debug", [True, False])
def test_debug(impl, debug):
    loop, _ = impl.run(loop_and_task(), debug=debug)
    assert loop.get_debug() is debug


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run() has it from 3.12 on")
def test_run_with_a_loop_factory(impl):
    loop, _ = impl.run(loop_and_task(), **FACTORY)
    assert type(loop) is asyncio.SelectorEventLoop


@pytest.mark.ctask_only
def test_run_has_a_loop_factory_on_every_version(impl):
    loop, _ = impl.run(loop_and_task(), **FACTORY)
    assert type(loop) is asyncio.SelectorEventLoop
    assert list(inspect.signature(impl.run).parameters) == ["main", "debug", "loop_factory"]


def test_run_is_refused_while_a_loop_runs(impl):
    name = impl.name

    async def main():
        coro = loop_and_task()
        with pytest.raises(RuntimeError, match=rf"^{name}\.run\(\) cannot be called from a"):
            impl.run(coro)
        coro.close()

    impl.run(main())


def test_run_is_refused_for_what_is_no_coroutine(impl):
    expected = TypeError if sys.version_info >= (3, 14) else ValueError
    with pytest.raises(expected):
        impl.run(1)


def test_loop_of_run_is_the_current_one_until_it_ends(impl):
    async def main():
        policy = asyncio.events._event_loop_policy
        return policy.get_event_loop() is asyncio.get_running_loop()

    assert impl.run(main())
    assert current_loop() is None


def test_loop_of_a_factory_is_not_made_the_current_one(impl):
    other = impl.new_event_loop()
    asyncio.set_event_loop(other)
    with impl.Runner(**FACTORY) as runner:
        runner.run(loop_and_task())
        assert current_loop() is other
    assert current_loop() is other
    asyncio.set_event_loop(None)
    other.close()


def test_runner_that_never_ran_touches_nothing(impl):
    other = impl.new_event_loop()
    asyncio.set_event_loop(other)
    impl.Runner().close()
    assert current_loop() is other
    asyncio.set_event_loop(None)
    other.close()


def test_runner_runs_several_coroutines_on_one_loop(impl):
    with impl.Runner() as runner:
        loops = {runner.run(loop_and_task())[0] for _ in range(3)}
        assert loops == {runner.get_loop()}
    assert runner.__class__ is impl.Runner
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()


def test_runner_can_be_closed_twice(impl):
    runner = impl.Runner()
    runner.get_loop()
    runner.close()
    other = impl.new_event_loop()
    asyncio.set_event_loop(other)
    runner.close()
    assert current_loop() is other
    asyncio.set_event_loop(None)
    other.close()


def test_runner_is_asyncios(impl):
    assert issubclass(impl.Runner, asyncio.Runner)


def test_close_cancels_tasks_and_ends_generators(impl):
    seen = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("task")

    async def generate():
        try:
            yield
        finally:
            await asyncio.sleep(0)
            seen.append("generator")

    async def main():
        task = asyncio.create_task(forever())
        generator = generate()
        await anext(generator)
        await asyncio.sleep(0)
        return task, generator

    task, generator = impl.run(main())
    assert task.cancelled()
    assert seen == ["task", "generator"]
    del generator


def test_interrupt_cancels_the_main_task(impl):
    seen = []

    async def main():
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        impl.run(main())
    assert seen == ["cancelled"]
