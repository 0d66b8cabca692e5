import asyncio
import sys
from _asyncio import get_event_loop as get_event_loop
from _asyncio import get_running_loop as get_running_loop
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Self, TypeAlias, TypeVar, TypeVarTuple

from typing_extensions import disjoint_base

if sys.version_info >= (3, 12):
    from _asyncio import current_task as current_task
if sys.version_info >= (3, 14):
    from _asyncio import all_tasks as all_tasks
    from _asyncio import future_add_to_awaited_by as future_add_to_awaited_by
    from _asyncio import future_discard_from_awaited_by as future_discard_from_awaited_by

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_Ts = TypeVarTuple("_Ts")

if sys.version_info >= (3, 12):
    _Coroutine: TypeAlias = Coroutine[Any, Any, _T]
else:
    _Coroutine: TypeAlias = Generator[Any, None, _T] | Coroutine[Any, Any, _T]

class Future(asyncio.Future[_T]):
    def __init__(self, *, loop: AbstractEventLoop | None = None) -> None: ...
    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None: ...
    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int: ...
    def cancel(self, msg: Any | None = None) -> bool: ...
    def set_result(self, result: _T, /) -> None: ...
    def set_exception(self, exception: type | BaseException, /) -> None: ...

# Covariant like asyncio's, and for its reason: a task's set_result() always raises.
@disjoint_base
class Task(asyncio.Task[_T_co], Future[_T_co]):  # type: ignore[type-var]
    if sys.version_info >= (3, 12):
        def __init__(
            self,
            coro: _Coroutine[_T_co],
            *,
            loop: AbstractEventLoop | None = None,
            name: str | None = None,
            context: Context | None = None,
            eager_start: bool = False,
        ) -> None: ...
    else:
        def __init__(
            self,
            coro: _Coroutine[_T_co],
            *,
            loop: AbstractEventLoop | None = None,
            name: str | None = None,
            context: Context | None = None,
        ) -> None: ...

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None: ...
    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int: ...
    def get_name(self) -> str: ...
    def get_coro(self) -> _Coroutine[_T_co] | None: ...
    if sys.version_info >= (3, 12):
        def get_context(self) -> Context: ...

class Handle(asyncio.Handle):
    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...

@disjoint_base
class TimerHandle(asyncio.TimerHandle, Handle):
    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def when(self) -> float: ...

@disjoint_base
class Loop:
    _debug: bool
    _stopping: bool
    _thread_id: int | None

    def is_closed(self) -> bool: ...
    def is_running(self) -> bool: ...
    def get_debug(self) -> bool: ...
    def stop(self) -> None: ...
    def time(self) -> float: ...
    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def create_future(self) -> Future[Any]: ...
    if sys.version_info >= (3, 13):
        def create_task(
            self,
            coro: _Coroutine[_T],
            *,
            name: object = None,
            context: Context | None = None,
            eager_start: bool | None = None,
        ) -> asyncio.Task[_T]: ...
    else:
        def create_task(
            self, coro: _Coroutine[_T], *, name: object = None, context: Context | None = None
        ) -> asyncio.Task[_T]: ...

    def _run(self) -> None: ...
    def _run_once(self) -> None: ...
    def _release(self) -> None: ...
    def _check_closed(self) -> None: ...
    @classmethod
    def _adopt_methods(cls) -> None: ...
    def _watchers(self, fd: int, /) -> tuple[Handle | None, Handle | None]: ...

def _registered_tasks() -> list[Task[Any]]: ...
def _turn() -> Awaitable[None]: ...
