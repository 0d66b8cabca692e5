"""create_task: a coroutine as a task of the running loop; the same on asyncio's own function."""

import asyncio
import contextvars
import gc
import inspect
import types

import pytest
from conftest import primitive

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="before")


create_task = primitive("create_task")


async def value(x):
    await asyncio.sleep(0)
    return x


def test_makes_a_task_of_the_running_loop(impl, loop, run, create_task):
    async def main():
        task = create_task(value(1))
        assert type(task) is impl.Task
        assert task.get_loop() is loop
        assert task.get_name().startswith("Task-")
        return await task

    assert run(main()) == 1


def test_name_and_context(run, create_task):
    async def look():
        return var.get()

    async def main():
        context = contextvars.copy_context()
        context.run(var.set, "given")
        task = create_task(look(), name="named", context=context)
        assert task.get_name() == "named"
        assert await task == "given"
        assert await create_task(look()) == "before"
        assert await create_task(coro=look()) == "before"

    run(main())


def test_without_a_running_loop(create_task):
    coro = value(1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        create_task(coro)
    coro.close()


def test_what_is_no_coroutine(run, create_task):
    async def main():
        with pytest.raises(TypeError, match="a coroutine was expected, got 42"):
            create_task(42)
        with pytest.raises(TypeError):
            create_task()
        with pytest.raises(TypeError):
            create_task(1, 2)

    run(main())


def test_an_overridden_method_is_called(loop, run, create_task, monkeypatch):
    asked = []
    original = loop.create_task

    def spy(coro, **kwargs):
        asked.append(coro)
        return original(coro, **kwargs)

    async def main():
        monkeypatch.setattr(loop, "create_task", spy)
        coro = value(3)
        task = create_task(coro)
        assert asked == [coro]
        return await task

    assert run(main()) == 3


def test_a_task_factory_is_asked(loop, run, impl, create_task):
    class Sub(impl.Task):
        pass

    async def main():
        loop.set_task_factory(lambda loop, coro, **kwargs: Sub(coro, loop=loop, **kwargs))
        task = create_task(value(4))
        assert type(task) is Sub
        return await task

    assert run(main()) == 4


def test_a_coroutine_that_is_refused_is_still_the_callers(create_task):
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        with pytest.raises(RuntimeError):
            create_task(value(1))
        gc.collect()


def test_is_a_function_to_who_asks(create_task):
    assert create_task.__name__ == "create_task"
    assert not inspect.iscoroutinefunction(create_task)
    assert list(inspect.signature(create_task).parameters)[0] == "coro"


ensure_future = primitive("ensure_future")


def test_error_of_the_refused_coroutines_close_has_the_refusal_for_context(
    loop, run, ensure_future
):
    class Closed(BaseException):
        pass

    @types.coroutine
    def pause():
        yield

    async def coroutine():
        try:
            await pause()
        except GeneratorExit:
            raise Closed from None

    def refuse(loop, coro, **kwargs):
        raise RuntimeError

    async def main():
        begun = coroutine()
        begun.send(None)
        loop.set_task_factory(refuse)
        with pytest.raises(Closed) as caught:
            ensure_future(begun)
        loop.set_task_factory(None)
        assert type(caught.value.__context__) is GeneratorExit
        assert type(caught.value.__context__.__context__) is RuntimeError

    run(main())
