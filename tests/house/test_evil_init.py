"""A future that `_asyncio`'s own __init__() starts anew, in vain, has no loop: the next says so."""

import sys

import pytest

pytestmark = [
    pytest.mark.ctask_only,  # asyncio's own crash
    pytest.mark.skipif(sys.version_info >= (3, 15), reason="refused from 3.15 on"),
]

INIT = """
import _asyncio

asyncio.set_event_loop(None)
loop = impl.new_event_loop()
refused = []

def in_vain(obj, *args):
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        (_asyncio.Task if isinstance(obj, impl.Task) else _asyncio.Future).__init__(obj, *args)
    except RuntimeError:
        refused.append(obj)
    asyncio._set_running_loop(running)

async def other(): pass

def again(task):
    coroutine = other()
    coroutine.close()
    in_vain(task, coroutine)

reported = []
loop.set_exception_handler(lambda loop, context: reported.append(repr(context["exception"])))

def run(coroutine, **more):
    task = impl.Task(coroutine, loop=loop, **more)
    for _ in range(4):
        loop.call_soon(loop.stop)
        loop.run_forever()
    return task
"""

ENDS = """
loop.close()
print(len(refused) > 0, *sorted(set(reported)))
"""

SAID = "True RuntimeError('Future object is not initialized.')\n"


@pytest.mark.parametrize("how", ["set_result(1)", "set_exception(OSError())", "cancel()"])
def test_call_soon_that_takes_the_futures_loop(script, how):
    done = script(
        INIT,
        f"""
        class Loop:
            def get_debug(self): return False
            def call_soon(self, *args, **more): in_vain(future)

        future = impl.Future(loop=Loop())
        for _ in range(3):
            future.add_done_callback(print)
        try:
            future.{how}
        except RuntimeError as error:
            reported.append(repr(error))
        """,
        ENDS,
    )
    assert done.out == SAID


@pytest.mark.parametrize(
    "then", ["await asyncio.sleep(0)", "await waited", "await Asked()", "await Bare()"]
)
def test_coroutine_that_takes_its_tasks_loop(script, then):
    done = script(
        INIT,
        f"""
        class Bare:
            def __await__(self):
                waited._asyncio_future_blocking = True
                in_vain(waited)
                waited._asyncio_future_blocking = True
                yield waited

        class Asked:
            def __await__(self):
                yield self
            @property
            def _asyncio_future_blocking(self):
                again(task)

        waited = loop.create_future()
        took = {then!r} == "await Asked()"

        async def play():
            global task
            task = asyncio.current_task(loop)
            if not took:
                again(task)
            {then}

        run(play())
        """,
        ENDS,
    )
    assert done.out == SAID


@pytest.mark.parametrize("eager", [False, True])
def test_name_and_loop_that_take_the_tasks_loop(script, eager):
    if eager and sys.version_info < (3, 12):
        pytest.skip("no eager start")
    done = script(
        INIT,
        f"""
        class Task(impl.Task):
            def __init__(self, coroutine, **more):
                global task
                task = self
                super().__init__(coroutine, **more)

        class Name:
            def __str__(self):
                again(task)
                return "name"

        class Loop:
            asked = 0
            def get_debug(self): return False
            def call_soon(self, *args, **more): pass
            def is_running(self):
                again(task)
                return True

        more = dict(eager_start=True) if {eager} else dict()
        for given in (dict(loop=loop, name=Name()), dict(loop=Loop())):
            coroutine = other()
            try:
                Task(coroutine, **given, **more)
            except RuntimeError as error:
                reported.append(repr(error))
            coroutine.close()
        """,
        ENDS,
    )
    assert done.out == SAID
