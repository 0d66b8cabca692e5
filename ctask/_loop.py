"""The event loop: the C core over what asyncio's own loop does once per program."""

import asyncio
import sys
import threading
from asyncio import events
from collections.abc import Callable
from typing import Any

from ctask import _ctask


class EventLoop(_ctask.Loop, asyncio.SelectorEventLoop):
    """An event loop that is C wherever something happens per event.

    Stands for asyncio.SelectorEventLoop, which it derives from.  Raises OSError if the process has
    no file descriptors left for it.
    """

    def __init__(self) -> None:
        super().__init__(_NoSelector())  # type: ignore[call-arg, arg-type]

    def run_forever(self) -> None:
        """Run until stop() is called.

        Raises RuntimeError if this or another loop runs in the thread.
        """
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            self._run()
        finally:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    def close(self) -> None:
        """Close the loop: forget what is scheduled, close its descriptors, let the executor go.

        Raises RuntimeError while the loop runs; closing it twice is harmless.
        """
        super().close()
        self._release()

    # Signals come through a pair of sockets, as asyncio's own.  Other wake-ups do not need them,
    # so they are made when the first handler is added.

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback(*args)` called in the loop when the signal arrives.

        Raises ValueError, RuntimeError and TypeError as asyncio.loop.add_signal_handler does.
        """
        if self._csock is None and not self.is_closed():
            super()._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()


class _NoSelector:
    """What the inherited constructor is given as its selector: polling is in C."""

    def close(self) -> None:
        pass


def new_event_loop() -> EventLoop:
    """Return a new event loop: a loop factory for asyncio.Runner, uvicorn and others."""
    return EventLoop()
