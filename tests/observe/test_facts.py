"""What the loop knows about those who wait: since when, and who holds the lock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

import ctask
from ctask import _ctask

pytestmark = pytest.mark.ctask_only


async def pass_time(seconds):
    """Let time pass in a loop that sleeps now and then, as loops do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.003)


class TestSerials:
    def test_each_task_has_its_own(self, loop):
        async def nothing():
            pass

        tasks = [ctask.Task(nothing(), loop=loop) for _ in range(100)]
        serials = [_ctask._task_serial(task) for task in tasks]
        assert len(set(serials)) == 100
        assert all(serial > 0 for serial in serials)
        loop.run_until_complete(ctask.gather(*tasks))
        assert serials == [_ctask._task_serial(task) for task in tasks]
        again = [ctask.Task(nothing(), loop=loop) for _ in range(100)]  # out of the free list
        assert not {_ctask._task_serial(task) for task in again} & set(serials)
        loop.run_until_complete(ctask.gather(*again))

    def test_what_is_no_task_of_ours_has_none(self):
        assert _ctask._task_serial(3) is None


class TestSince:
    def ask(self, main):
        with ctask.Runner() as runner:
            return runner.run(main())

    def test_a_task_that_has_not_run_has_none(self):
        async def main():
            task = asyncio.ensure_future(asyncio.sleep(0))
            since = asyncio.get_running_loop()._waits_since(task)
            await task
            return since

        assert self.ask(main) is None

    def test_how_long_a_task_waits(self):
        async def main():
            loop = asyncio.get_running_loop()
            await pass_time(0.01)
            begun = time.monotonic()
            future = loop.create_future()

            async def wait():
                await future

            task = asyncio.ensure_future(wait())
            await pass_time(0.1)
            early = loop._waits_since(task) - begun
            await pass_time(0.2)
            late = loop._waits_since(task) - begun
            future.set_result(None)
            await task
            return early, late

        early, late = self.ask(main)
        assert -0.005 < early < 0.05
        assert -0.005 < late < 0.05

    def test_in_a_loop_that_never_sleeps(self):
        async def main():
            loop = asyncio.get_running_loop()

            async def wait():
                await loop.create_future()

            for _ in range(10_000):
                await asyncio.sleep(0)
            begun = time.monotonic()
            task = asyncio.ensure_future(wait())
            while time.monotonic() < begun + 0.1:
                await asyncio.sleep(0)
            since = loop._waits_since(task) - begun
            task.cancel()
            await asyncio.wait([task])
            return since

        assert 0 <= self.ask(main) < 0.09

    def test_what_is_long_ago_is_known_less_exactly(self):
        code = """
import asyncio, time, ctask
async def main():
    loop = asyncio.get_running_loop()
    begun = time.monotonic()
    waits = []
    async def wait():
        await loop.create_future()
    while time.monotonic() < begun + 3:
        waits.append((asyncio.ensure_future(wait()), time.monotonic()))
        await asyncio.sleep(0.0011)
    now = time.monotonic()
    assert len(waits) > 1200, len(waits)  # more than are kept
    for task, then in waits[:-20]:
        since = loop._waits_since(task)
        assert then - 0.01 <= since, (then, since)
        assert since - then < 0.02 + (now - then) / 16, (now - then, since - then)
    for task, _ in waits:
        task.cancel()
    await asyncio.wait([task for task, _ in waits])
ctask.run(main())
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_only_tasks_of_this_loop(self):
        async def main():
            loop = asyncio.get_running_loop()
            with pytest.raises(TypeError, match="takes a task of this loop"):
                loop._waits_since(3)

        self.ask(main)


class TestHolder:
    @pytest.fixture
    def lock(self):
        return ctask.Lock()

    def test_the_task_that_has_the_lock(self, lock):
        async def main():
            me = _ctask._task_serial(asyncio.current_task())
            assert _ctask._lock_holder(lock) is None
            async with lock:
                assert _ctask._lock_holder(lock) == me
                other = asyncio.ensure_future(hold())
                await asyncio.sleep(0)
                assert _ctask._lock_holder(lock) == me
            await asyncio.sleep(0)
            assert _ctask._lock_holder(lock) == _ctask._task_serial(other)
            await other
            await lock.acquire()
            assert _ctask._lock_holder(lock) == me
            lock.release()
            assert _ctask._lock_holder(lock) is None

        async def hold():
            async with lock:
                await asyncio.sleep(0)

        ctask.run(main())

    def test_a_condition_takes_its_lock_again(self, lock):
        async def main():
            condition = ctask.Condition(lock)

            async def wait():
                async with condition:
                    await condition.wait()
                    return _ctask._lock_holder(lock), _ctask._task_serial(asyncio.current_task())

            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            async with condition:
                condition.notify()
            holder, serial = await task
            assert holder == serial

        ctask.run(main())

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
    def test_in_an_eager_start_and_after_it(self, lock):
        async def main():
            me = _ctask._task_serial(asyncio.current_task())
            other = ctask.Lock()

            async def hold():
                async with lock:
                    await asyncio.sleep(0)

            loop = asyncio.get_running_loop()
            task = ctask.Task(hold(), loop=loop, eager_start=True)
            assert _ctask._lock_holder(lock) == _ctask._task_serial(task)
            async with other:
                assert _ctask._lock_holder(other) == me
            await task

        ctask.run(main())

    def test_who_sets_it_by_hand_is_not_known(self, lock):
        async def main():
            async with lock:
                lock._locked = True
                assert _ctask._lock_holder(lock) == 0

        ctask.run(main())

    def test_without_a_task_it_is_not_known(self, lock):
        with pytest.raises(StopIteration):
            lock.acquire().send(None)
        assert _ctask._lock_holder(lock) == 0
        lock.release()

    def test_another_thread_in_the_midst_of_a_step_is_not_it(self, lock):
        async def main():
            # The step of this task goes on while the other thread takes the lock.
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()

        def take():
            with pytest.raises(StopIteration):
                lock.acquire().send(None)

        ctask.run(main())
        assert _ctask._lock_holder(lock) == 0
        lock.release()

    def test_what_is_no_lock_of_ours_has_none(self):
        assert _ctask._lock_holder(asyncio.Event()) is None


def test_whose_method_a_coroutine_is():
    async def main():
        queue, lock = ctask.Queue(), ctask.Lock()
        get, acquire, sleep = queue.get(), lock.acquire(), ctask.sleep(1)
        owners = [_ctask._coro_owner(coro) for coro in (get, acquire, sleep, 3)]
        for coro in get, acquire, sleep:
            coro.close()
        assert owners == [queue, lock, None, None]

    ctask.run(main())
