"""ctask.run() and ctask.Runner."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ctask._loop import new_event_loop

T = TypeVar("T")


class Runner(asyncio.Runner):
    """asyncio.Runner with ctask's event loop as the default."""

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        super().__init__(debug=debug, loop_factory=loop_factory or new_event_loop)


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine on a new event loop and return its result; stands for asyncio.run().

    Raises RuntimeError if a loop runs in this thread already, TypeError if `main` is no coroutine,
    and whatever the coroutine raises.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
