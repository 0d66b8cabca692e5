"""A process that forks while it has a loop: what the child may do, and the parent's loop."""

import asyncio
import os
import signal
import socket
import sys
import threading
import traceback
import warnings

import pytest


def in_child(function):
    """Calls `function()` in a forked child; fails with its traceback if it raised."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # "This process is multi-threaded": the time limit has a thread, which never matters here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(100)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            function()
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    assert (status, text) == (0, ""), text


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_no_loop_runs_in_the_child(loop):
    def child():
        with pytest.raises(RuntimeError, match="^no running event loop$"):
            asyncio.get_running_loop()
        with pytest.raises(RuntimeError):
            asyncio.current_task()
        # The object still says what it knew.
        assert loop.is_running()
        with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
            loop.close()
        with pytest.raises(RuntimeError, match="^This event loop is already running$"):
            loop.run_forever()

    async def main():
        in_child(child)
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())


def test_child_of_a_task_can_run_a_loop_of_its_own(impl, loop):
    async def in_the_child():
        assert asyncio.current_task() in asyncio.all_tasks()
        assert len(asyncio.all_tasks()) == 1
        ours, theirs = socket.socketpair()
        theirs.send(b"y")
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(b"x")
        await writer.drain()
        assert await reader.readexactly(1) == b"y"
        assert theirs.recv(1) == b"x"
        writer.close()
        return 42

    def child():
        assert impl.run(in_the_child()) == 42

    async def main():
        in_child(child)
        await asyncio.sleep(0)
        return asyncio.current_task() in asyncio.all_tasks()

    assert loop.run_until_complete(main())


# asyncio's child would take the self-pipe out of the epoll set that it shares: the parent hangs.
@pytest.mark.ctask_only
def test_loop_that_does_not_run_can_be_run_by_parent_and_child(loop):
    async def main():
        await asyncio.sleep(0.001)
        return await loop.run_in_executor(None, lambda: 1)

    def child():
        assert loop.run_until_complete(main()) == 1
        loop.close()

    in_child(child)
    assert loop.run_until_complete(main()) == 1
    loop.run_until_complete(loop.shutdown_default_executor())


@pytest.mark.ctask_only  # asyncio's loop shares its epoll set with the child's
def test_readers_of_the_parent_are_not_the_childs_to_change(loop, pair):
    ours, theirs = pair
    seen = []

    def read():
        seen.append(ours.recv(10))
        loop.stop()

    loop.add_reader(ours, read)
    theirs.send(b"1")
    loop.run_forever()
    assert seen == [b"1"]

    def remove_and_add():
        a, b = socket.socketpair()
        assert loop.remove_reader(ours) is True
        loop.add_reader(a, lambda: None)
        loop.add_writer(ours, lambda: None)

    def run():
        # What the parent had watched is watched in the child as well.
        theirs.send(b"child")
        loop.run_forever()
        assert seen == [b"1", b"child"]

    def remove_in_a_run():
        loop.call_soon(loop.remove_reader, ours)
        loop.call_soon(loop.stop)
        loop.run_forever()

    for child in (remove_and_add, run, remove_in_a_run, loop.close):
        in_child(child)
        theirs.send(b"parent")
        loop.run_forever()
        assert seen.pop() == b"parent"
        assert seen == [b"1"]
    # ... and while it runs
    loop.call_soon(in_child, remove_and_add)
    loop.call_soon(theirs.send, b"2")
    loop.run_forever()
    assert seen == [b"1", b"2"]
    assert loop.remove_reader(ours) is True


@pytest.mark.ctask_only
def test_child_sees_only_what_it_watches_itself(loop, pair):
    ours, theirs = pair
    loop.add_reader(ours, lambda: None)

    def child():
        seen = []
        a, b = socket.socketpair()
        assert loop.remove_reader(ours) is True
        theirs.send(b"x")  # nobody waits for it here
        loop.add_reader(a, lambda: (seen.append(a.recv(1)), loop.stop()))
        b.send(b"y")
        loop.run_forever()
        assert seen == [b"y"]

    in_child(child)
    assert loop.remove_reader(ours) is True


@pytest.mark.ctask_only  # asyncio's self-pipe is shared
def test_child_does_not_wake_the_parent(impl, later_thread):
    iterations = []

    class Counting(impl.EventLoop):
        def _run_once(self):
            iterations.append(1)
            super()._run_once()

    loop = Counting()

    def other():
        # The loop sleeps in the kernel, without the interpreter lock.
        in_child(lambda: [loop.call_soon_threadsafe(print) for _ in range(5)])
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(later_thread(other))
    loop.run_forever()
    loop.close()
    assert len(iterations) == 2


@pytest.fixture
def later_thread():
    """Calls a function in another thread once the main thread is blocked in the poll."""
    from test_signal import blocked_in_epoll

    threads = []

    def later(function):
        go = threading.Event()

        def wait():
            go.wait()
            while not blocked_in_epoll():
                pass
            function()

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        return go.set

    yield later
    for thread in threads:
        thread.join()


def test_signal_for_the_child_is_not_the_parents(impl, loop, turn):
    if impl.name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("up to 3.11 asyncio's child shares the signals' socket with its parent")
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    in_child(lambda: signal.raise_signal(signal.SIGUSR1))
    turn(3)
    assert seen == []
    signal.raise_signal(signal.SIGUSR1)
    turn(3)
    assert seen == [1]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_child_of_a_child(impl, loop):
    async def main():
        await asyncio.sleep(0)
        return 3

    def grandchild():
        assert loop.run_until_complete(main()) == 3
        loop.close()

    def child():
        assert loop.run_until_complete(main()) == 3
        in_child(grandchild)
        assert loop.run_until_complete(main()) == 3
        loop.close()

    in_child(child)
    assert loop.run_until_complete(main()) == 3


@pytest.mark.ctask_only  # asyncio's loop would never sleep again
def test_descriptor_closed_before_it_is_removed_does_not_keep_the_loop_awake(impl):
    iterations = []

    class Counting(impl.EventLoop):
        def _run_once(self):
            iterations.append(1)
            super()._run_once()

    loop = Counting()
    reading, writing = os.pipe()
    duplicate = os.dup(reading)  # as a child that was forked meanwhile may have one
    loop.add_reader(reading, print)
    os.close(reading)
    loop.remove_reader(reading)
    os.write(writing, b"x")
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    loop.close()
    os.close(duplicate)
    os.close(writing)
    assert len(iterations) <= 6  # not thousands


MULTIPROCESSING = """
    import concurrent.futures, multiprocessing, os

    def work(n):
        return impl.run(double(n))

    async def double(n):
        await asyncio.sleep(0)
        return 2 * n

    def send(connection):
        connection.send(work(4))
        connection.close()

    async def main(method):
        context = multiprocessing.get_context(method)
        loop = asyncio.get_running_loop()
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            jobs = [loop.run_in_executor(pool, work, n) for n in range(5)]
            print(await asyncio.gather(*jobs))
        ours, theirs = context.Pipe()
        process = context.Process(target=send, args=(theirs,))
        process.start()
        theirs.close()
        readable = asyncio.Event()
        loop.add_reader(ours.fileno(), readable.set)
        await readable.wait()
        loop.remove_reader(ours.fileno())
        print(ours.recv())
        process.join()
        print(process.exitcode)

    if __name__ == "__main__":
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        impl.run(main(METHOD))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(script, method):
    out = script(f"METHOD = {method!r}\n", MULTIPROCESSING)
    assert out.out == "[0, 2, 4, 6, 8]\n8\n0\n"
    assert out.err == ""


@pytest.mark.ctask_only  # asyncio's child takes the self-pipe out of the epoll set that it shares
def test_child_that_exits_within_the_loop_tidies_up_only_its_own(script):
    out = script("""
        import os, signal
        warnings.simplefilter("ignore", DeprecationWarning)

        async def serve(reader, writer):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
            writer.close()

        async def other():
            try:
                await asyncio.sleep(30)
            finally:
                print("cancelled in", "child" if os.getpid() != parent else "parent", flush=True)

        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, print, "signal")
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            task = asyncio.create_task(other())
            await asyncio.sleep(0)
            pid = os.fork()
            if pid == 0:
                sys.exit(3)  # the runner cancels the tasks and closes the loop, in the child
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            writer.write(b"still there\\n")
            print(await reader.readline())
            print(await loop.run_in_executor(None, int, "7"))
            os.kill(parent, signal.SIGUSR1)
            await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
            server.close()
            task.cancel()
            await asyncio.wait([task])

        parent = os.getpid()
        impl.run(main())
    """)
    assert out.out.splitlines() == [
        "cancelled in child",
        "b'still there\\n'",
        "7",
        "signal",
        "cancelled in parent",
    ]
