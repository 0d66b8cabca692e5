"""The waiting for a callback that keeps the loop: _ctask._watchdog_wait() and its like."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings

import pytest
from helpers.threads import sleeps_of

import ctask
from ctask import _ctask

pytestmark = pytest.mark.ctask_only


class Dog:
    """A thread that waits once, and keeps what it was told."""

    def __init__(self, loop, seconds):
        self.loop, self.told, self.flag = loop, [], bytearray(1)
        self.thread = threading.Thread(target=self.run, args=(seconds,))
        self.thread.start()

    def run(self, seconds):
        self.told.append(_ctask._watchdog_wait(self.loop, seconds, self.flag))
        self.told.append(time.monotonic())

    def stop(self):
        _ctask._watchdog_stop(self.loop, self.flag)
        self.thread.join()


@pytest.fixture
def watched(loop):
    dogs = []

    def watch(seconds):
        dogs.append(Dog(loop, seconds))
        return dogs[-1]

    yield watch
    for dog in dogs:
        dog.stop()


def block(seconds):
    """Keep the thread, and not the interpreter lock."""
    time.sleep(seconds)


def test_it_wakes_while_the_callback_goes_on(loop, watched):
    dog = watched(0.05)
    loop.call_soon(block, 0.5)
    begun = time.monotonic()
    loop.run_until_complete(asyncio.sleep(0))
    ended = time.monotonic()
    dog.thread.join()
    (_, since), seen = dog.told
    assert begun - 0.001 <= since <= begun + 0.2
    assert since + 0.05 <= seen < ended


def test_a_callback_with_the_interpreter_lock_is_seen_as_well(loop, watched):
    dog = watched(0.05)

    def compute():
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass

    loop.call_soon(compute)
    loop.run_until_complete(asyncio.sleep(0))
    ended = time.monotonic()
    dog.thread.join()
    assert dog.told[1] < ended


def test_short_callbacks_and_sleep_are_no_block(loop, watched):
    dog = watched(0.1)

    async def main():
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            block(0.002)
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)

    loop.run_until_complete(main())
    block(0.3)  # the loop does not run
    assert dog.told == []
    loop.call_soon(block, 0.4)
    loop.run_until_complete(asyncio.sleep(0))
    dog.thread.join()
    assert dog.told[0] is not None


def test_a_loop_that_slept_for_long_is_watched_again(loop, watched):
    dog = watched(0.05)

    async def main():
        await asyncio.sleep(0.2)  # it sleeps with the loop
        block(0.4)

    loop.run_until_complete(main())
    dog.thread.join()
    assert dog.told[0] is not None


def test_while_the_loop_has_nothing_to_do_it_costs_nothing(loop, watched):
    dog = watched(0.02)

    async def main():
        await asyncio.sleep(0.05)
        before = sleeps_of(dog.thread)
        await asyncio.sleep(0.5)
        return sleeps_of(dog.thread) - before

    # It dozes once or twice more; while the loop works it looks a hundred times in so long.
    assert loop.run_until_complete(main()) <= 5


def test_stopping_ends_the_wait(loop, watched):
    dog = watched(10)
    dog.stop()
    assert dog.told[0] is None
    assert _ctask._watchdog_wait(loop, 10, dog.flag) is None  # for good


def test_stopping_ends_one_wait_and_no_other(loop, watched):
    other, dog = watched(0.05), watched(0.05)
    dog.stop()
    assert dog.told[0] is None
    assert other.thread.is_alive()
    loop.call_soon(block, 0.5)
    loop.run_until_complete(asyncio.sleep(0))
    other.thread.join()
    assert other.told[0] is not None


def test_patience_ends_a_wait_while_the_loop_works(loop):
    told = []

    def watch():
        told.append(_ctask._watchdog_wait(loop, 1000, bytearray(1), 0.05))

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(0.1)  # the loop does not run: nothing is woken
    assert told == []

    async def main():
        while thread.is_alive():
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert told == [None]


def test_how_long_it_went_on(loop):
    ends, flag = [], bytearray(1)

    def watch():
        which, since = _ctask._watchdog_wait(loop, 0.05, flag)
        ends.append(_ctask._watchdog_end(loop, which, 0.01, flag))  # not yet
        ends.append(_ctask._watchdog_end(loop, which, 10, flag) - since)

    thread = threading.Thread(target=watch)
    thread.start()
    loop.call_soon(block, 0.3)
    loop.run_until_complete(asyncio.sleep(0.01))
    thread.join()
    assert ends[0] is None
    assert 0.15 < ends[1] < 0.5


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_what_is_no_threshold(loop, seconds):
    with pytest.raises(ValueError, match="more than 0 seconds"):
        _ctask._watchdog_wait(loop, seconds, bytearray(1))


def test_what_is_no_number(loop):
    with pytest.raises(TypeError):
        _ctask._watchdog_wait(loop, "a", bytearray(1))
    with pytest.raises(TypeError):
        _ctask._watchdog_end(loop, 3, 1, bytearray(1))
    with pytest.raises(TypeError):
        _ctask._watchdog_wait(3, 1, bytearray(1))
    with pytest.raises(TypeError):
        _ctask._watchdog_stop(3, bytearray(1))


@pytest.mark.parametrize("flag", [b"\0", "0", None, 0, memoryview(b"0")])
def test_what_is_no_flag(loop, flag):
    for call in (
        lambda: _ctask._watchdog_wait(loop, 1, flag),
        lambda: _ctask._watchdog_end(loop, (1, 1), 1, flag),
        lambda: _ctask._watchdog_stop(loop, flag),
    ):
        with pytest.raises((TypeError, BufferError)):
            call()


def test_a_flag_without_a_byte(loop):
    empty = bytearray()
    with pytest.raises(ValueError, match="the flag has no byte"):
        _ctask._watchdog_wait(loop, 1, empty)
    with pytest.raises(ValueError, match="the flag has no byte"):
        _ctask._watchdog_end(loop, (1, 1), 1, empty)
    with pytest.raises(ValueError, match="the flag has no byte"):
        _ctask._watchdog_stop(loop, empty)
    empty.append(0)  # nobody has it any more


def test_a_forked_child_has_no_watchdog(loop, watched):
    dog = watched(0.05)
    time.sleep(0.05)  # it sleeps with the loop
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio._set_running_loop(None)
            loop.run_until_complete(asyncio.sleep(0.01))
            thread = threading.Thread(
                target=lambda: seen.append(_ctask._watchdog_wait(loop, 0.05, bytearray(1)))
            )
            seen = []
            thread.start()
            loop.call_soon(block, 0.3)
            loop.run_until_complete(asyncio.sleep(0))
            thread.join()
            status = 0 if seen[0] is not None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert dog.told == []


def test_a_loop_that_was_watched_goes_away(loop):
    other = ctask.new_event_loop()
    flag = bytearray(1)
    _ctask._watchdog_stop(other, flag)
    assert _ctask._watchdog_wait(other, 1, flag) is None
    other.close()
