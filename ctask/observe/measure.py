"""How long things take and wait in a loop, while somebody measures: measure()."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from ctask._loop import EventLoop
from ctask.observe.stats import loop_of_ours


@dataclass(frozen=True)
class Histogram:
    """How many took how long.

    `counts[i]` are those from 2**i up to 2**(i+1) nanoseconds; the first has also what took less.
    """

    count: int
    """How many there were."""
    total: float
    """Seconds that they took together."""
    longest: float
    """Seconds that the longest took."""
    counts: Sequence[int]
    """How many there were for each power of two of nanoseconds."""

    @property
    def mean(self) -> float:
        """Seconds that one took in the mean; 0.0 if there was none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the seconds that so large a share of them took at most: 0.99, all but a percent.

        It is the upper bound of a bucket, so up to twice as much as it was, and at most the
        longest; 0.0 if there was none. Raises ValueError if share is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is between 0 and 1, not {share!r}")
        wanted = max(1, math.ceil(share * self.count))
        seen = 0
        for i, n in enumerate(self.counts):
            seen += n
            if seen >= wanted:
                return min(float(2 << i) / 1e9, self.longest)
        return 0.0


@dataclass(frozen=True)
class Histograms:
    """What a Measurement has seen so far."""

    timers: Histogram
    """How late timers were called."""
    waits: Histogram
    """How long what was ready waited for its turn."""
    callbacks: Histogram
    """How long callbacks took."""
    steps: Histogram
    """How long steps of tasks took: from one `await` that waits to the next."""


class Measurement:
    """What measure() returns: a context manager that measures until its block ends."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._last: Histograms | None = None
        loop._observe(True)

    def read(self) -> Histograms:
        """Return what was measured so far, or until stop(); any thread may ask."""
        if self._last is not None:
            return self._last
        seen = self._loop._histograms()
        if seen is None:
            raise RuntimeError("another measurement of this loop has ended")
        return Histograms(
            *(
                Histogram(count, total / 1e9, longest / 1e9, counts)
                for count, total, longest, counts in seen
            )
        )

    def stop(self) -> Histograms:
        """End it, and return what was measured; once more does nothing else."""
        if self._last is None:
            self._last = self.read()
            self._loop._observe(False)
        return self._last

    def __enter__(self) -> "Measurement":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def measure(loop: asyncio.AbstractEventLoop | None = None) -> Measurement:
    """Begin to measure how long callbacks, steps, waits and delays of a loop's timers are.

    loop is the running one unless it is given. A loop has one measurement at a time, which costs
    the reading of a clock for each callback.

    Raises RuntimeError if no loop is given and none runs, or if the loop is measured already;
    TypeError if it is not ctask's.
    """
    ours = loop_of_ours(loop)
    if ours._histograms() is not None:
        raise RuntimeError("the loop is measured already")
    return Measurement(ours)
