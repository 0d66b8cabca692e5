"""ctask.stats(): what the loop counts about itself."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import ctask

pytestmark = pytest.mark.ctask_only


async def measure(work):
    """What `work` adds, and what came of it."""
    before = ctask.stats()
    result = await work()
    return ctask.stats() - before, result


def test_iterations_callbacks_and_steps():
    async def main():
        loop = asyncio.get_running_loop()

        async def work():
            for _ in range(5):
                loop.call_soon(int)
            for _ in range(10):
                await asyncio.sleep(0)

        return (await measure(work))[0]

    done = ctask.run(main())
    assert done.iterations == 10
    assert done.callbacks == 15
    assert done.tasks_created == 0
    assert done.polls == done.events == done.wakeups == 0


def test_what_is_there_now():
    async def main():
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(100, int) for _ in range(7)]
        tasks = [asyncio.ensure_future(asyncio.sleep(100)) for _ in range(3)]
        before = ctask.stats()
        await asyncio.sleep(0)
        during = ctask.stats()
        for timer in timers:
            timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return before, during, ctask.stats()

    before, during, after = ctask.run(main())
    assert (before.tasks_pending, before.ready, before.timers) == (4, 3, 7)
    assert (during.tasks_pending, during.ready, during.timers) == (4, 0, 10)
    assert (after.tasks_pending, after.timers) == (1, 0)
    assert (after - before).tasks_created == 0
    assert (after - before).tasks_pending == 1  # now, not a difference


@pytest.mark.parametrize("eager", [False, True])
def test_tasks_are_counted_until_they_are_done(eager):
    if eager and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with 3.12")

    async def main():
        loop = asyncio.get_running_loop()
        if eager:
            loop.set_task_factory(asyncio.create_eager_task_factory(ctask.Task))
        before = ctask.stats()

        async def one(seconds):
            if seconds is not None:
                await asyncio.sleep(seconds)

        tasks = [loop.create_task(one(seconds)) for seconds in (None, 0, 0.001)]
        started = ctask.stats()
        await asyncio.gather(*tasks)
        return started - before, ctask.stats() - before

    started, ended = ctask.run(main())
    assert started.tasks_created == ended.tasks_created == 3
    assert started.tasks_pending == (3 if eager else 4)
    assert ended.tasks_pending == 1


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="3.15 refuses a second __init__()")
def test_a_task_that_becomes_another_loops_is_counted_there():
    async def nothing():
        pass

    first, second = ctask.new_event_loop(), ctask.new_event_loop()
    coro, other = nothing(), nothing()
    task = ctask.Task(coro, loop=first)
    try:
        assert ctask.stats(first).tasks_pending == 1
        task.__init__(other, loop=second)
        assert ctask.stats(first).tasks_pending == 0
        assert ctask.stats(second).tasks_pending == 1
        second.run_until_complete(task)
        assert ctask.stats(second).tasks_pending == 0
    finally:
        coro.close()
        first.close()
        second.close()


def test_busy_and_idle_time():
    async def main():
        async def idle():
            await asyncio.sleep(0.05)

        async def busy():
            time.sleep(0.05)

        return (await measure(idle))[0], (await measure(busy))[0]

    idle, busy = ctask.run(main())
    assert idle.idle >= 0.049
    assert idle.utilization < 0.5
    assert busy.busy >= 0.05
    assert busy.idle == 0
    assert busy.utilization == 1


def test_time_outside_of_a_run_is_neither():
    loop = ctask.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        before = ctask.stats(loop)
        time.sleep(0.02)
        done = ctask.stats(loop) - before
        assert (done.busy, done.idle, done.utilization) == (0, 0, 0)
    finally:
        loop.close()


def test_another_thread_sees_the_wait_that_goes_on():
    async def main():
        loop = asyncio.get_running_loop()
        seen = []

        def look():
            while not ctask.stats(loop).idle > 0.02:
                time.sleep(0.001)
            seen.append(ctask.stats(loop))

        before = ctask.stats()
        await asyncio.get_running_loop().run_in_executor(None, look)
        return seen[0] - before, ctask.stats() - before

    seen, all_of_it = ctask.run(main())
    assert seen.polls == 1  # the one wait, which had not ended
    assert 0.02 < seen.idle <= all_of_it.idle
    assert seen.wakeups == 0
    assert all_of_it.wakeups == 1


def test_a_loop_that_did_not_sleep_was_not_woken():
    async def main():
        loop = asyncio.get_running_loop()

        async def work():
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(int,))
            thread.start()
            thread.join()
            await asyncio.sleep(0)

        return (await measure(work))[0]

    assert ctask.run(main()).wakeups == 0


def received_and_sent(received, sent):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        try:
            for end in a, b:
                end.setblocking(False)
            return (await measure(lambda: received(loop, a)))[0], (
                await measure(lambda: sent(loop, b))
            )[0]
        finally:
            a.close()
            b.close()

    return ctask.run(main())


class Quiet(asyncio.Protocol, asyncio.DatagramProtocol):
    """Counts what it gets."""

    def __init__(self):
        self.got = 0
        self.change = asyncio.Event()

    def data_received(self, data):
        self.got += len(data)
        self.change.set()

    def datagram_received(self, data, addr):
        self.data_received(data)

    async def until(self, size):
        while self.got < size:
            self.change.clear()
            await self.change.wait()


def count_through(connect, size, send):
    """The bytes that were counted while `size` went through a pair of transports."""

    async def main():
        here, there, receiver = await connect(asyncio.get_running_loop())
        try:
            before = ctask.stats()
            await send(there)
            await receiver.until(size)
            return ctask.stats() - before
        finally:
            here.abort()
            there.abort()
            await asyncio.sleep(0)

    return ctask.run(main())


async def connect_streams(loop):
    a, b = socket.socketpair()
    here, receiver = await loop.connect_accepted_socket(Quiet, a)
    there, _ = await loop.connect_accepted_socket(Quiet, b)
    return here, there, receiver


async def connect_datagrams(loop):
    here, receiver = await loop.create_datagram_endpoint(Quiet, ("127.0.0.1", 0))
    there, _ = await loop.create_datagram_endpoint(
        Quiet, remote_addr=here.get_extra_info("sockname")
    )
    return here, there, receiver


def test_bytes_of_a_stream():
    async def send(transport):
        transport.write(b"x" * 100)
        transport.writelines([b"y" * 10, b"z" * 10])
        transport.write(b"a lot" * 1_000_000)  # through the queue

    done = count_through(connect_streams, 5_000_120, send)
    assert done.bytes_sent == done.bytes_received == 5_000_120


def test_bytes_of_datagrams():
    async def send(transport):
        for size in 1, 100, 1000:
            transport.sendto(b"x" * size)

    done = count_through(connect_datagrams, 1101, send)
    assert done.bytes_sent == done.bytes_received == 1101


def test_bytes_of_pipes():
    async def main():
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        reading, receiver = await loop.connect_read_pipe(Quiet, os.fdopen(r, "rb", 0))
        writing, _ = await loop.connect_write_pipe(Quiet, os.fdopen(w, "wb", 0))
        before = ctask.stats()
        writing.write(b"x" * 300_000)
        await receiver.until(300_000)
        done = ctask.stats() - before
        writing.abort()
        reading.close()
        await asyncio.sleep(0)
        return done

    done = ctask.run(main())
    assert done.bytes_sent == done.bytes_received == 300_000


def test_bytes_of_sockets_by_themselves():
    async def receive(loop, sock):
        task = asyncio.ensure_future(loop.sock_recv(sock, 100))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def send(loop, sock):
        await loop.sock_sendall(sock, b"x" * 50)

    received, sent = received_and_sent(receive, send)
    assert (received.bytes_received, received.bytes_sent) == (0, 0)
    assert (sent.bytes_received, sent.bytes_sent) == (0, 50)


def test_connections_are_the_open_ones():
    async def main():
        loop = asyncio.get_running_loop()
        here, there, _ = await connect_streams(loop)
        opened = ctask.stats().connections
        here.abort()
        there.abort()
        await asyncio.sleep(0.01)
        return opened

    loop = ctask.new_event_loop()
    try:
        assert loop.run_until_complete(main()) == 2
        assert ctask.stats(loop).connections == 0
    finally:
        loop.close()


def test_a_closed_loop_still_tells():
    loop = ctask.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert ctask.stats(loop).iterations > 0


def test_which_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        ctask.stats()
    with pytest.raises(TypeError, match="a loop of ctask was expected, got 3"):
        ctask.stats(3)


def test_stats_are_values():
    loop = ctask.new_event_loop()
    loop.close()
    stats = ctask.stats(loop)
    assert stats == ctask.stats(loop)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.busy = 1.0
    with pytest.raises(TypeError):
        stats - 1


def test_nothing_is_imported_before_it_is_asked_for():
    code = """
import sys, ctask
assert not [name for name in sys.modules if name.startswith("ctask.observe")]
assert "stats" in dir(ctask) and "stats" in ctask.__all__
ctask.stats
assert "ctask.observe.stats" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
