"""Which loops are open: _ctask._open_loops() and what exporters make of it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

import ctask
from ctask import _ctask
from ctask.observe.loops import stats_of_open_loops

pytestmark = pytest.mark.ctask_only


@pytest.fixture
def opened():
    """Opens a loop and returns its number; what is open at the end is closed."""
    loops = []

    def opened():
        loops.append(ctask.new_event_loop())
        return number_of(loops[-1])

    yield opened, loops
    for loop in loops:
        loop.close()


def number_of(loop):
    return {loop: number for number, loop in _ctask._open_loops()}.get(loop)


def test_each_open_loop_has_a_number_of_its_own(opened):
    open_one, loops = opened
    before = len(_ctask._open_loops())
    numbers = [open_one() for _ in range(5)]
    assert numbers == sorted(numbers) and len({*numbers}) == 5
    assert len(_ctask._open_loops()) == before + 5
    assert [number_of(loop) for loop in loops] == numbers


def test_the_number_of_a_closed_loop_is_the_next_ones(opened):
    open_one, loops = opened
    numbers = [open_one() for _ in range(4)]
    loops[1].close()
    assert number_of(loops[1]) is None
    assert open_one() == numbers[1]
    assert open_one() > numbers[3]
    assert [number_of(loop) for loop in loops[2:4]] == numbers[2:]
    assert [n for n, _ in _ctask._open_loops()] == sorted(n for n, _ in _ctask._open_loops())


def test_a_loop_after_the_other_has_the_same_number():
    async def number():
        return number_of(asyncio.get_running_loop())

    assert len({ctask.run(number()) for _ in range(3)}) == 1


def test_the_list_keeps_no_loop_alive():
    code = """
import gc, warnings, ctask
from ctask import _ctask
warnings.simplefilter("ignore")
loop = ctask.new_event_loop()
assert _ctask._open_loops() == [(0, loop)]
del loop  # never closed
gc.collect()
assert _ctask._open_loops() == []
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loop_that_is_being_freed_may_be_asked_for():
    code = """
import gc, warnings, weakref, ctask
from ctask import _ctask
warnings.simplefilter("ignore")

class Asks:
    def __del__(self):
        seen.append(_ctask._open_loops())

class Loop(ctask.EventLoop):
    def __del__(self):  # which does not close it, as asyncio's does
        seen.append([number for number, _ in _ctask._open_loops()])

seen = []
loop = Loop()
loop._asks = loop._internal_fds = Asks()  # goes with the slots, when the loop has no reference left
reference = weakref.ref(loop, lambda _: seen.append(_ctask._open_loops()))
loop._selector = None
del loop
gc.collect()
assert seen[0] == [0], seen
assert len(seen) >= 3 and not any(seen[1:]), seen
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loop_without_a_constructor_is_none_of_them():
    bare = _ctask.Loop()
    try:
        assert number_of(bare) is not None
        assert bare not in [loop for _, loop, _ in stats_of_open_loops()]
    finally:
        bare._release()
    assert number_of(bare) is None


def test_any_thread_may_ask_while_loops_come_and_go():
    failures, rounds, ended = [], [], threading.Event()

    def ask():
        try:
            while not ended.is_set():
                for number, loop, stats in stats_of_open_loops():
                    assert number >= 0 and stats.iterations >= 0 and loop is not None
                rounds.append(1)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    count = 0
    while not failures and (count < 50 or len(rounds) < 50):
        ctask.run(asyncio.sleep(0))
        count += 1
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    gc.collect()
