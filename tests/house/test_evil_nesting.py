"""Chains of any length end with RecursionError or in order, never with a crash.

Which of the two: from 3.14 on that depends on what the machine's stack holds.
"""

import sys

import pytest

DEBUG_BUILD = hasattr(sys, "gettotalrefcount")  # which is slow
DEPTH = 50_000 if DEBUG_BUILD else 200_000
LONG = 100_000 if DEBUG_BUILD else 1_000_000

# asyncio's own coroutines, nested so deeply, end with a crash of the interpreter.
own = pytest.mark.ctask_only


def nested(script, body):
    return script("warnings.simplefilter('ignore')\nif not STOCK: impl.install()\n", body)


def test_cancelling_nested_gathers(script):
    done = nested(
        script,
        f"""
        async def main():
            outer = asyncio.get_running_loop().create_future()
            for _ in range({DEPTH}):
                outer = asyncio.gather(outer)
            try:
                assert outer.cancel()
            except RecursionError:
                pass
            print("ended")

        impl.run(main())
        """,
    )
    assert done.out == "ended\n"


@own
@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio's own wait_for()")
@pytest.mark.parametrize("what", ["awaited", "dropped", "cancelled", "closed"])
def test_nested_wait_fors(script, what):
    done = nested(
        script,
        f"""
        what = {what!r}

        async def main():
            coro = asyncio.sleep(0, 7)
            for _ in range({DEPTH}):
                coro = asyncio.wait_for(coro, 100)
            if what == "awaited":
                try:
                    assert await coro == 7
                except RecursionError:
                    pass
            coro = None
            print("ended")

        async def deep():
            # As deep as it goes, and then down again.
            loop = asyncio.get_running_loop()
            depth = 1
            while depth < 12_000:
                coro = asyncio.wait_for(loop.create_future(), 100)
                for _ in range(depth):
                    coro = asyncio.wait_for(coro, 100)
                task = loop.create_task(coro)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if task.done():
                    assert isinstance(task.exception(), RecursionError)
                    break
                if what == "closed":
                    coro.close()
                task.cancel()
                try:
                    await task
                except (asyncio.CancelledError, RecursionError, RuntimeError):
                    pass
                coro = None
                depth = depth * 5 // 4 + 1
            print("ended")

        impl.run(main() if what in ("awaited", "dropped") else deep())
        """,
    )
    assert done.out == "ended\n"


@own
def test_a_chain_of_results(script):
    done = nested(
        script,
        f"""
        loop = impl.new_event_loop()
        fut = None
        for _ in range({LONG}):
            result, fut = fut, loop.create_future()
            fut.set_result(result)
        result = fut = None
        loop.close()
        print("ended")
        """,
    )
    assert done.out == "ended\n"


@own
@pytest.mark.parametrize(
    "link",
    [
        "fut = loop.create_future(); fut.cancel(msg=last)",
        "fut = loop.create_future(); fut.add_done_callback(last)",
        "fut = asyncio.sleep(0, last)",
        "fut = asyncio.gather(last) if last else loop.create_future()",
        "fut = asyncio.tasks._GatheringFuture([last], loop=loop)",
        pytest.param(
            "fut = asyncio.as_completed([]); fut.last = last",
            marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="a generator"),
        ),
    ],
)
def test_a_chain_of(script, link):
    done = nested(
        script,
        f"""
        async def main():
            loop = asyncio.get_running_loop()
            last = None
            for _ in range({LONG} // 4):
                {link}
                last = fut
            fut = last = None
            gc.collect()
            print("ended")

        impl.run(main())
        """,
    )
    assert done.out == "ended\n"


@own
@pytest.mark.parametrize("slot", ["_callback", "_loop", "_repr"])
@pytest.mark.parametrize(
    "how", ["call_soon(print)", "call_later(9, print)", "call_soon_threadsafe(print)"]
)
def test_a_chain_of_handles(script, slot, how):
    done = nested(
        script,
        f"""
        loop = impl.new_event_loop()
        gc.disable()
        last = None
        for i in range({LONG} // 3):
            handle = loop.{how}
            handle.cancel()
            handle.{slot}, last = last, handle
            if i % 100 == 0:
                loop._ready.clear()
                loop._scheduled.clear()
        handle = last = None
        loop._ready.clear()
        loop._scheduled.clear()
        loop.close()
        print("ended")
        """,
    )
    assert done.out == "ended\n"


@own
def test_a_chain_of_tasks(script):
    done = nested(
        script,
        f"""
        async def returns(value):
            return value

        async def main():
            last = None
            for _ in range({LONG} // 10):
                last = asyncio.create_task(returns(last))
                if _ % 1000 == 0:
                    await asyncio.sleep(0)
            await last
            last = None
            print("ended")

        impl.run(main())
        """,
    )
    assert done.out == "ended\n"


def test_writer_that_is_its_own_transport(script):
    done = script(
        """
        loop = impl.new_event_loop()
        writer = impl.StreamWriter.__new__(impl.StreamWriter)
        vars(writer).update(_transport=writer, _protocol=None, _reader=None, _loop=loop)
        for name, *args in (("is_closing",), ("write", b""), ("can_write_eof",), ("write_eof",)):
            try:
                getattr(writer, name)(*args)
            except RecursionError:
                print(name)
        writer._transport = None
        loop.close()
        """,
    )
    assert done.out.split() == ["is_closing", "write", "can_write_eof", "write_eof"]
