"""What a type checker makes of code that uses ctask; checked by test_typing.py, never run."""

import asyncio
from typing import Any, assert_type

import ctask


async def number() -> int:
    return 1


async def main() -> str:
    task = ctask.Task(number(), name="n")
    assert_type(task, ctask.Task[int])
    assert_type(await task, int)
    assert_type(task.result(), int)

    def done(task: ctask.Task[int]) -> None:
        task.cancel(msg="late")

    task.add_done_callback(done)

    future: ctask.Future[int] = ctask.Future()
    future.set_result(1)
    assert_type(await future, int)
    as_stock: asyncio.Future[int] = future
    also_stock: asyncio.Task[int] = task
    assert_type(await asyncio.gather(as_stock, also_stock), tuple[int, int])

    loop = ctask.new_event_loop()
    assert_type(loop, ctask.EventLoop)
    assert_type(await loop.create_task(number()), int)
    assert_type(loop.create_future(), ctask.Future[Any])
    assert_type(loop.call_soon(print, "now"), ctask.Handle)
    assert_type(loop.call_later(1, print, "later"), ctask.TimerHandle)
    assert_type(loop.call_at(loop.time() + 1, print).when(), float)
    loop.call_soon(int, "1", 2, 3)  # type: ignore[arg-type]
    loop.close()
    return "done"


assert_type(ctask.run(main(), debug=True), str)
assert_type(ctask.run(main(), loop_factory=asyncio.SelectorEventLoop), str)
with ctask.Runner(loop_factory=ctask.new_event_loop) as runner:
    assert_type(runner.run(main()), str)
with asyncio.Runner(loop_factory=ctask.EventLoop) as stock_runner:
    assert_type(stock_runner.run(main()), str)
assert_type(ctask.install(), None)
assert_type(ctask.uninstall(), None)
ctask.run(1)  # type: ignore[arg-type]
