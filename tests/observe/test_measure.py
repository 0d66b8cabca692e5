"""ctask.measure(): how long callbacks and steps take, what is ready waits, and timers are late."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

import ctask

pytestmark = pytest.mark.ctask_only


def block(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def measured(main):
    """What is seen while main() runs."""

    async def measure():
        with ctask.measure() as measurement:
            await main()
            return measurement.stop()

    return ctask.run(measure())


def test_callbacks_and_steps_are_counted_apart():
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(10):
            loop.call_soon(int)
        for _ in range(5):
            await asyncio.sleep(0)

    seen = measured(main)
    assert seen.callbacks.count == 10
    assert seen.steps.count == 5 - 1  # the one that measures from its middle on, and to its middle
    assert seen.timers.count == 0
    assert seen.waits.count == 10 + 5


def test_how_long_they_take():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(block, 0.02)
        loop.call_soon(int)
        await asyncio.sleep(0)
        block(0.01)
        await asyncio.sleep(0)

    seen = measured(main)
    callbacks, steps = seen.callbacks, seen.steps
    assert callbacks.count == 2
    assert callbacks.longest >= 0.02
    assert 0.02 <= callbacks.total < callbacks.longest + 0.01
    assert sum(callbacks.counts) == 2
    assert callbacks.quantile(1) == callbacks.longest
    assert callbacks.quantile(0) < 0.01
    assert callbacks.mean == callbacks.total / 2
    assert steps.longest >= 0.01


def test_who_waits_behind_a_long_one():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(block, 0.03)
        for _ in range(3):
            loop.call_soon(int)
        await asyncio.sleep(0)

    waits = measured(main).waits
    assert waits.count == 5  # with the step after sleep(0)
    # All but the first were pushed before it, by one step.
    long = sum(n for i, n in enumerate(waits.counts) if 2 ** (i + 1) / 1e9 > 0.03)
    assert long == 4
    assert waits.longest >= 0.03


def test_how_late_timers_are():
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(0.001, int)
        loop.call_later(0.06, done.set_result, None)
        loop.call_soon(block, 0.03)
        await done

    timers = measured(main).timers
    assert timers.count == 2
    assert timers.longest >= 0.028
    assert timers.quantile(0.5) < timers.longest


def test_more_waits_at_once_than_there_were_marks():
    async def main():
        loop = asyncio.get_running_loop()

        def chain(n):
            if n:
                loop.call_soon(chain, n - 1)
                loop.call_soon(int)

        for _ in range(200):
            loop.call_soon(chain, 20)
        for _ in range(30):
            await asyncio.sleep(0)

    seen = measured(main)
    assert seen.callbacks.count == 200 * (21 + 20)
    assert seen.waits.count == seen.callbacks.count + 30


def test_it_ends():
    async def main():
        loop = asyncio.get_running_loop()
        measurement = ctask.measure()
        await asyncio.sleep(0)
        first = measurement.stop()
        for _ in range(3):
            await asyncio.sleep(0)
        assert measurement.read() == measurement.stop() == first
        assert loop._histograms() is None
        with ctask.measure() as again:
            await asyncio.sleep(0)
        assert again.read().waits.count == 1

    ctask.run(main())


def test_it_ends_in_the_midst_of_a_callback():
    async def main():
        loop = asyncio.get_running_loop()
        measurement = ctask.measure()
        loop.call_soon(measurement.stop)
        loop.call_soon(int)
        await asyncio.sleep(0)
        assert measurement.read().waits.count == 1

    ctask.run(main())


def test_a_callback_that_raises_is_measured():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    assert measured(main).callbacks.count == 1


def test_debug_mode_is_measured():
    loop = ctask.new_event_loop()
    loop.set_debug(True)
    try:
        with ctask.measure(loop) as measurement:
            loop.run_until_complete(asyncio.sleep(0))
        assert measurement.read().waits.count > 0
    finally:
        loop.close()


def test_one_at_a_time(loop):
    with (
        ctask.measure(loop) as measurement,
        pytest.raises(RuntimeError, match="the loop is measured already"),
    ):
        ctask.measure(loop)
    loop._observe(True)
    loop._observe(False)
    other = ctask.measure(loop)
    loop._observe(False)
    with pytest.raises(RuntimeError, match="another measurement of this loop has ended"):
        other.read()
    assert measurement.read().callbacks.count == 0


def test_which_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        ctask.measure()
    with pytest.raises(TypeError, match="a loop of ctask was expected"):
        ctask.measure(3)


class TestHistogram:
    histogram = ctask.Histogram(
        count=4, total=1.0, longest=0.9, counts=(0, 2, 0, 1) + (0,) * 25 + (1,)
    )

    @pytest.mark.parametrize(
        "share, seconds", [(0, 4e-9), (0.5, 4e-9), (0.51, 16e-9), (0.75, 16e-9), (1, 0.9)]
    )
    def test_quantiles(self, share, seconds):
        assert self.histogram.quantile(share) == pytest.approx(seconds)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_what_is_no_share(self, share):
        with pytest.raises(ValueError, match="between 0 and 1"):
            self.histogram.quantile(share)

    def test_of_nothing(self):
        none = ctask.Histogram(0, 0.0, 0.0, (0,) * 48)
        assert none.quantile(0.99) == none.mean == 0

    def test_it_is_a_value(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.histogram.count = 1
