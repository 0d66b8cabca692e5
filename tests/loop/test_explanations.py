"""What the loop's messages say beyond asyncio's."""

from __future__ import annotations

import asyncio
import gc
import re
import time

import pytest

import ctask

pytestmark = pytest.mark.ctask_only


async def fetch(event):
    await event.wait()  # waits here


async def worker():
    await fetch(asyncio.Event())  # and there


async def fails():
    raise ValueError("on purpose")


def line_of(function, n=1):
    return function.__code__.co_firstlineno + n


def run(main, logs, *, debug, n=1):
    ctask.run(main(), debug=debug)
    gc.collect()
    texts = [record.getMessage() for record in logs.take()]
    texts = [text for text in texts if not text.startswith("Executing")]
    assert len(texts) == n
    return texts[0]


async def lose():
    asyncio.create_task(worker())  # created here
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    gc.collect()  # 3.15 may keep what it has finalized until the next one


def test_a_lost_task_says_in_debug_mode_where_it_was_created_and_waits(logs):
    text = run(lose, logs, debug=True)
    assert text.startswith("Task was destroyed but it is pending!\n")
    created = (
        f'task_created: at\n  File "{__file__}", line {line_of(lose)}, in lose\n    asyncio.create'
    )
    assert created in text
    assert (
        "\nwaits: for Event, at (most recent call last):\n"
        f'  File "{__file__}", line {line_of(worker)}, in worker\n'
        "    await fetch(asyncio.Event())  # and there\n"
        f'  File "{__file__}", line {line_of(fetch)}, in fetch\n'
        "    await event.wait()  # waits here"
    ) in text
    assert f"coro=<worker() running at {__file__}:{line_of(worker)}>" in text


def test_a_lost_task_says_otherwise_what_asyncio_says(logs):
    text = run(lose, logs, debug=False)
    assert "created" not in text


@pytest.mark.parametrize("debug", [False, True])
def test_an_exception_that_nobody_retrieves(logs, debug):
    async def main():
        asyncio.create_task(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    text = run(main, logs, debug=debug)
    assert text.startswith("Task exception was never retrieved\nfuture: <Task finished ")
    place = f'\nfuture_created: at\n  File "{__file__}", line {line_of(main)}, in main\n'
    assert (place in text) is debug
    assert ("created" in text) is debug
    assert "waits: " not in text


def test_a_future_says_where_it_was_created(logs):
    async def main():
        asyncio.get_running_loop().create_future().set_exception(ValueError())

    text = run(main, logs, debug=True)
    assert text.startswith("Future exception was never retrieved\nfuture: <Future finished ")
    assert "\nfuture_created: at\n" in text
    assert f"line {line_of(main)}, in main\n" in text


def test_a_task_that_never_ran(loop, logs, unraisable):
    loop.create_task(worker())
    loop.close()
    gc.collect()
    (record,) = logs.take()
    text = record.getMessage()
    assert text.startswith("Task was destroyed but it is pending!\n")
    assert text.endswith("\nwaits: for its first turn")
    assert unraisable.take() == [(RuntimeWarning, "coroutine 'worker' was never awaited")]


def test_a_slow_step_says_where_its_task_is_now(loop, logs):
    async def slow():
        time.sleep(0.02)
        await asyncio.sleep(0)  # now here

    async def outer():
        await slow()

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.run_until_complete(outer())
    texts = [record.getMessage() for record in logs.take()]
    (text,) = [text for text in texts if f":{line_of(slow, 2)} in " in text]
    assert re.match("Executing <Task pending .*outer", text)
    assert re.search(r"> took \d\.\d{3} seconds$", text)
    assert f" now at {__file__}:{line_of(slow, 2)} in " in text


def test_a_handler_of_the_programs_is_given_what_asyncio_gives(loop, logs):
    given = []
    loop.set_exception_handler(lambda loop, context: given.append(sorted(context)))
    loop.run_until_complete(lose())
    assert given == [["message", "task"]]


def test_what_the_program_says_itself_is_kept(loop, logs):
    future = loop.create_future()
    loop.default_exception_handler({"message": "m", "future": future, "future_created": 3})
    loop.default_exception_handler({"message": "m", "task": 3, "future": 4})
    loop.default_exception_handler({})
    assert [record.getMessage() for record in logs.take()] == [
        f"m\nfuture: {future!r}\nfuture_created: 3",
        "m\nfuture: 4\ntask: 3",
        "Unhandled exception in event loop",
    ]


def test_a_collection_while_the_module_is_imported(script):
    done = script(
        """
        import asyncio, ctask, gc

        async def worker():
            await asyncio.Event().wait()

        async def fails():
            raise ValueError

        async def main():
            gc.set_threshold(1, 1, 1)
            for _ in range(3):
                asyncio.create_task(worker())
            asyncio.create_task(fails())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()

        ctask.run(main(), debug=True)
        """,
        bare=True,
    )
    assert done.err.count("waits: for Event, at") == 3, done.err
