"""ctask.run() and ctask.Runner."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ctask._loop import new_event_loop

T = TypeVar("T")


class Runner(asyncio.Runner):  # type: ignore[misc]  # final only in the stubs
    """asyncio.Runner with ctask's event loop as the default.

    As with asyncio's, a loop that is not from `loop_factory` is also the thread's current one
    (asyncio.set_event_loop) until the runner is closed.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        made_current: list[bool] = []

        def new_current_loop() -> asyncio.AbstractEventLoop:
            loop = new_event_loop()
            asyncio.set_event_loop(loop)
            made_current.append(True)
            return loop

        self._made_current = made_current
        super().__init__(debug=debug, loop_factory=loop_factory or new_current_loop)

    def close(self) -> None:
        """Cancel all tasks, shut down asynchronous generators and the executor, close the loop."""
        try:
            super().close()
        finally:
            if self._made_current:
                self._made_current.clear()
                asyncio.set_event_loop(None)


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine on a new event loop and return its result; stands for asyncio.run().

    Raises RuntimeError if a loop runs in this thread already, whatever asyncio.run() raises for
    something that is no coroutine, and whatever the coroutine raises.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("ctask.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
