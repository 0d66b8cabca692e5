"""What one task waits for: the chain of its coroutines, down to a lock, a queue, a timer, ...

For graph.py, whose opening says what may be touched here and what not.
"""

import _asyncio
import asyncio
import gc
import os
import socket
import time
from asyncio import base_events, base_subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from traceback import FrameSummary
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodDescriptorType,
    MethodType,
)
from typing import Any

import ctask
from ctask import _ctask
from ctask.observe.blocking import LIBRARIES

MAX_FRAMES = 200
MAX_TEXT = 200
MAX_CHILDREN = 1000

_PYTHON = {CoroutineType: "cr", GeneratorType: "gi", AsyncGeneratorType: "ag"}
_coroutine: Any = ctask.sleep(0)
_CORO, _CORO_FRAME = type(_coroutine), type(_coroutine.cr_frame)
_coroutine.close()
FUTURES = (_asyncio.Future, asyncio.futures._PyFuture)  # type: ignore[attr-defined]
_TASKS = (_asyncio.Task, asyncio.tasks._PyTask)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Frame:
    """A function and the line that it is at."""

    name: str
    file: str
    line: int


@dataclass(frozen=True)
class Awaited:
    """What a task waits for."""

    kind: str
    """`timer`, `lock`, `semaphore`, `condition`, `event`, `barrier`, `queue`, `group`, `task`,
    `all` or `some` (of several), `next` (of as_completed()), `socket`, `stream`, `server`,
    `process`, `thread` or `future`."""
    what: str
    """The same in words."""
    due: float | None = None
    """Seconds until the timer fires."""


# ---- touching things carefully ----


def text(value: object) -> str:
    """A string of a bounded length, of strings and numbers only."""
    if issubclass(type(value), str):
        value = str.__str__(value)
    elif type(value) is not int:
        value = "?"
    value = str(value)
    return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 3] + "..."


def read(obj: object, name: str) -> Any:
    """An attribute, past an __getattr__() or __getattribute__() of the program's; None without."""
    try:
        return object.__getattribute__(obj, name)
    except Exception:
        return None


def is_done(future: Any) -> bool:
    """Whether a future of asyncio's or ctask's is done; not for others."""
    if issubclass(type(future), _asyncio.Future):
        return _asyncio.Future.done(future)
    return read(future, "_state") in ("FINISHED", "CANCELLED")


def is_task(obj: object) -> bool:
    """Whether it is a task of asyncio's or ctask's."""
    return issubclass(type(obj), _TASKS)


def is_group(obj: object) -> bool:
    """Whether it is a TaskGroup."""
    return issubclass(type(obj), asyncio.taskgroups.TaskGroup)


def is_ours(frame: FrameType) -> bool:
    """Whether it is a function of asyncio's or ctask's."""
    module = frame.f_globals.get("__name__")
    return type(module) is str and module.partition(".")[0] in ("asyncio", "ctask")


_FOLDERS = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (asyncio, ctask))


def is_own_file(file: str) -> bool:
    """Whether it belongs to asyncio or ctask."""
    return file.startswith(_FOLDERS)


def frame_of(frame: Any) -> Frame:
    """A frame, or what ctask's coroutines show in place of one."""
    code: CodeType = frame.f_code
    return Frame(
        name=text(code.co_qualname),
        file=text(code.co_filename),
        line=frame.f_lineno or code.co_firstlineno,
    )


def created_at(task: Any) -> Frame | None:
    """The line that created a task, of what debug mode has noted: the innermost of the program."""
    entries = read(task, "_source_traceback")
    if not issubclass(type(entries), list):
        return None
    known = [entry for entry in list.__iter__(entries) if type(entry) is FrameSummary]
    own = [entry for entry in known if not entry.filename.startswith(LIBRARIES)]
    for entry in (own or known)[-1:]:
        return Frame(name=text(entry.name), file=text(entry.filename), line=entry.lineno or 0)
    return None


# ---- the chain ----


@dataclass
class Link:
    """A coroutine in the chain, or an awaitable that hides what it waits for."""

    name: str
    frame: Frame | None
    refers: list[Any]
    """What it refers to; of a coroutine in Python its variables and what is on its stack."""
    coroutine: Any
    python_frame: Any = None
    ours: bool = False
    running: bool = False
    unstarted: bool = False


def chain_of(coroutine: Any) -> list[Link]:
    """The coroutines that await each other, the innermost last."""
    links: list[Link] = []
    while coroutine is not None and len(links) < MAX_FRAMES:
        kind = type(coroutine)
        if issubclass(kind, FUTURES):
            break
        refers = [obj for obj in gc.get_referents(coroutine) if type(obj) is not FrameType]
        if kind in _PYTHON:
            prefix = _PYTHON[kind]
            frame = getattr(coroutine, prefix + "_frame")
            after = getattr(coroutine, "gi_yieldfrom" if prefix == "gi" else prefix + "_await")
            links.append(
                Link(
                    name=text(coroutine.__qualname__),
                    frame=None if frame is None else frame_of(frame),
                    refers=refers,
                    coroutine=coroutine,
                    python_frame=frame,
                    ours=frame is not None and is_ours(frame),
                    running=getattr(coroutine, prefix + "_running"),
                    unstarted=frame is not None
                    and not getattr(coroutine, prefix + "_running")
                    and not getattr(coroutine, prefix + "_suspended", True),
                )
            )
        elif kind is _CORO or kind is _CORO_FRAME:
            coro_frame = coroutine.cr_frame
            after = coroutine.cr_await
            if coro_frame is None:
                break  # it has ended meanwhile
            links.append(
                Link(
                    name=text(
                        coroutine.__qualname__ if kind is _CORO else coro_frame.f_code.co_qualname
                    ),
                    frame=frame_of(coro_frame),
                    refers=refers,
                    coroutine=coroutine,
                    ours=True,
                    running=kind is _CORO and coroutine.cr_running,
                )
            )
        else:
            after = _inner(refers)
            if after is None and not any(issubclass(type(obj), FUTURES) for obj in refers):
                name = text(kind.__qualname__)
                links.append(Link(name=name, frame=None, refers=refers, coroutine=coroutine))
        coroutine = after
    return links


def _inner(refers: list[Any]) -> Any:
    """The coroutine under what `await` and `async for` make of it; None if it is something else."""
    inner = [obj for obj in refers if type(obj) in _PYTHON or type(obj) is _CORO]
    return inner[0] if len(inner) == 1 and len(refers) <= 3 else None


def _own_end(links: list[Link]) -> list[Link]:
    """Those at the end that are asyncio's and ctask's, which say what is waited for."""
    start = len(links)
    while start > 0 and links[start - 1].ours:
        start -= 1
    return [link for link in links[start:] if link.name not in ("wait_for", "to_thread")]


# ---- what is at its end ----


def describe(links: list[Link], future: Any) -> tuple[Any, Awaited]:
    """The object that is waited for, as far as it is known, and what to say of it."""
    own = _own_end(links)
    if own and own[-1].name == "Lock.acquire":
        lock = _lock_in(own)
        if lock is not None:
            return lock, Awaited("lock", "Lock")
    for link in own:
        name = link.name.rpartition(".")[2]
        if name == "_wait_for_one":
            return future, Awaited("next", "as_completed()")
        if link.name in ("wait", "_wait"):
            return future, Awaited("all" if _is_for_all(link) else "some", "wait()")
        for kind, (types, say) in _SUBJECTS.items():
            subject: Any = next((obj for obj in link.refers if issubclass(type(obj), types)), None)
            said = None if subject is None else say(name, subject)
            if kind == "condition" and _is_waiter_of(read(subject, "_lock"), future):
                return read(subject, "_lock"), Awaited("lock", "Lock")
            if said is not None:
                due = _seconds_until(subject.when()) if kind == "timer" else None
                return subject, Awaited(kind, said, due)
    return future, _describe_future(future)


def _is_waiter_of(lock: Any, future: Any) -> bool:
    """Whether a future stands in a lock's queue, or in that of a relative."""
    for obj in gc.get_referents(lock):
        if obj is future:
            return True
        if type(obj) is deque and any(one is future for one in gc.get_referents(obj)):
            return True
    return False


def _lock_in(own: list[Link]) -> Any:
    for link in reversed(own):
        for obj in link.refers:
            if issubclass(type(obj), _LOCKS):
                return obj
            if issubclass(type(obj), _CONDITIONS):
                return read(obj, "_lock")
    return None


def _describe_future(future: Any) -> Awaited:
    if is_task(future):
        return Awaited("task", "a task")
    if _is_gather(future):
        return Awaited("all", "gather()")
    for callback in _callbacks(future):
        name = callback.__qualname__ if type(callback) is FunctionType else ""
        if name.startswith("shield.") or _is_done_callback(callback):
            return Awaited("all", "shield()")
        if name.startswith("_chain_future."):
            return Awaited("thread", "a thread of an executor")
    return Awaited("future", "a future")


def _is_gather(future: object) -> bool:
    kind = type(future)
    return kind.__name__ == "_GatheringFuture" and issubclass(kind, FUTURES)


def _is_for_all(link: Link) -> bool:
    """Whether this wait() is for all its futures."""
    return "ALL_COMPLETED" in [obj for obj in link.refers if type(obj) is str]


def _seconds_until(when: float) -> float:
    return max(0.0, round(when - time.monotonic(), 3))


def _say_name(name: str, subject: Any) -> str | None:
    return text(type(subject).__name__)


def _say_timer(name: str, timer: Any) -> str | None:
    return "sleep()" if name == "sleep" else None


def _say_barrier(name: str, barrier: Any) -> str | None:
    return f"Barrier of {text(read(barrier, '_parties'))}"


def _say_queue(name: str, queue: Any) -> str | None:
    if name not in ("get", "put", "join"):
        return None
    items, limit = read(queue, "_queue"), read(queue, "_maxsize")
    size = text(len(items)) if type(items) in (list, deque) else "?"
    of = f" of {text(limit)}" if type(limit) is int and limit > 0 else ""
    return f"{text(type(queue).__name__)}.{name}(), {size}{of} in it"


def _say_stream(name: str, stream: Any) -> str | None:
    return f"{text(type(stream).__name__)}.{name}(){_peer(read(stream, '_transport'))}"


def _say_process(name: str, transport: Any) -> str | None:
    return f"process {text(read(transport, '_pid'))}"


def _say_server(name: str, server: Any) -> str | None:
    return f"Server.{name}()" if name in ("serve_forever", "wait_closed") else None


def _say_socket(name: str, sock: Any) -> str | None:
    try:
        number = socket.socket.fileno(sock)
    except Exception:
        return f"{name}()"
    try:
        peer = _address(socket.socket.getpeername(sock))
    except Exception:
        peer = ""
    return f"{name}() of descriptor {number}" + (f", {peer}" if peer else "")


def _peer(transport: Any) -> str:
    if not type(transport).__module__.startswith(("ctask", "asyncio")):
        return ""
    try:
        address = _address(transport.get_extra_info("peername"))
        sock = transport.get_extra_info("socket")
        number = "" if sock is None else f" of descriptor {text(sock.fileno())}"
    except Exception:
        return ""
    return number + (f", {address}" if address else "")


def _address(address: Any) -> str:
    if type(address) is tuple and len(address) >= 2:
        host = text(address[0])
        return f"[{host}]:{text(address[1])}" if ":" in host else f"{host}:{text(address[1])}"
    return text(address) if address and type(address) is str else ""


def _with_stock(ours: type) -> tuple[type, ...]:
    """A class of ours and asyncio's, which install() may have hidden."""
    stock = [kind for kind in ours.__mro__ if kind.__name__ == ours.__name__]
    return (ours, *stock)


_LOCKS = _with_stock(ctask.Lock)
_CONDITIONS = _with_stock(ctask.Condition)
QUEUES = _with_stock(ctask.Queue)
_GROUPS = _with_stock(ctask.TaskGroup)
_TIMEOUTS = _with_stock(ctask.Timeout)

# In the order in which a coroutine is asked for them: a Queue has an Event, a Barrier a Condition.
_SUBJECTS: dict[str, tuple[tuple[type, ...], Callable[[str, Any], str | None]]] = {
    "queue": (QUEUES, _say_queue),
    "barrier": (_with_stock(ctask.Barrier), _say_barrier),
    "condition": (_CONDITIONS, _say_name),
    "lock": (_LOCKS, _say_name),
    "semaphore": (_with_stock(ctask.Semaphore), _say_name),
    "event": (_with_stock(ctask.Event), _say_name),
    "group": (_GROUPS, _say_name),
    "process": ((base_subprocess.BaseSubprocessTransport,), _say_process),
    "stream": (_with_stock(ctask.StreamReader) + _with_stock(ctask.StreamWriter), _say_stream),
    "server": ((base_events.Server,), _say_server),
    "socket": ((socket.socket,), _say_socket),
    "timer": ((asyncio.TimerHandle,), _say_timer),
}


def is_subject(obj: object) -> bool:
    """Whether it is a lock, a queue, ... of asyncio's or ctask's."""
    return issubclass(type(obj), _PRIMITIVES)


_PRIMITIVES = tuple(
    kind
    for name in ("queue", "barrier", "condition", "lock", "semaphore", "event")
    for kind in _SUBJECTS[name][0]
)


# ---- who is told, who holds, how long ----


def _callbacks(future: Any) -> Iterator[Any]:
    """What is called when it is done, but for the tasks that wait for it."""
    for obj in gc.get_referents(future):
        if type(obj) is list:
            for entry in obj[:MAX_CHILDREN]:
                if type(entry) is tuple and len(entry) == 2:
                    yield entry[0]
        elif type(obj) in _METHODS or _is_done_callback(obj):
            yield obj


def told_by(task: Any) -> list[Any]:
    """The futures, groups and queues that a task's callbacks tell when it is done."""
    told = []
    for callback in _callbacks(task):
        if _is_done_callback(callback):
            told += [obj for obj in gc.get_referents(callback) if _may_be_told(obj)]
        elif type(callback) is not FunctionType:
            owner = getattr(callback, "__self__", None)
            told += [owner] if is_group(owner) or _is_iterator(owner) else []
        elif text(callback.__module__).startswith("asyncio."):
            # Not those of the program, which may know futures that they do not complete.
            for cell in callback.__closure__ or ():
                told += [obj for obj in gc.get_referents(cell) if _may_be_told(obj)]
    return told


def gathers_in(future: Any) -> Iterator[Any]:
    """The future, and the gather()s that it gathers: what tasks tell when they are done."""
    todo, n = [future], 0
    while todo and n < MAX_CHILDREN:
        gather = todo.pop()
        yield gather
        if _is_gather(gather):
            children: Any = gc.get_referents(gather)
            if not issubclass(type(gather), _ctask._GatheringFuture):
                children = read(gather, "_children") or ()
            n += len(children)
            todo += [child for child in children[:MAX_CHILDREN] if _is_gather(child)]


def entered(link: Link) -> Iterator[Any]:
    """The objects of its `async with`, whose ends are on its stack."""
    for index, obj in enumerate(link.refers):
        kind = type(obj)
        if not (kind in _METHODS or _is_of(kind, "Standin")) or obj.__name__ != "__aexit__":
            continue
        if kind in (MethodType, BuiltinMethodType):
            yield obj.__self__
        elif index + 1 < len(link.refers):
            yield link.refers[index + 1]  # from 3.14 on the method and the object are apart


def _held_by(obj: Any) -> Any:
    """What is held in the `async with` of an object."""
    return read(obj, "_lock") if issubclass(type(obj), _CONDITIONS) else obj


def exits_in(links: list[Link]) -> Iterator[Any]:
    """The methods at the ends of their `async with`, which refer to the objects."""
    for link in links:
        for obj in link.refers:
            if type(obj) in (MethodType, BuiltinMethodType) and obj.__name__ == "__aexit__":
                yield obj


def holders(chains: Iterable[tuple[int, list[Link], Any]]) -> dict[int, list[int]]:
    """By the address of a lock or semaphore the tasks that are in its `async with`.

    Of each task it takes the number, the chain, and what it waits for: that one it has not got yet.
    """
    found: dict[int, list[int]] = {}
    for number, links, awaited in chains:
        held = [id(_held_by(obj)) for link in links for obj in entered(link)]
        if id(awaited) in held:
            held.remove(id(awaited))
        for key in held:
            found.setdefault(key, []).append(number)
    return found


def timeout_of(links: list[Link]) -> float | None:
    """The seconds until the first of the timeouts that it is in."""
    due = []
    for link in links:
        inside = [*entered(link), *(link.refers if link.name == "wait_for" else ())]
        for obj in inside:
            when: Any = None
            if issubclass(type(obj), _TIMEOUTS):
                when = read(obj, "_when")
            elif link.name == "wait_for" and issubclass(type(obj), asyncio.TimerHandle):
                when = obj.when()
            if type(when) in (int, float):
                due.append(_seconds_until(when))
    return min(due, default=None)


def told_through(links: list[Link]) -> Iterator[Any]:
    """What a task that is done may tell, so that this chain goes on."""
    for link in _own_end(links):
        yield from (obj for obj in link.refers if _may_be_told(obj))


def _may_be_told(obj: object) -> bool:
    told = issubclass(type(obj), (*FUTURES, *QUEUES, *_GROUPS)) or _is_iterator(obj)
    return told and not is_task(obj)


def _is_iterator(obj: object) -> bool:
    """Whether it is what as_completed() returns, from 3.13 on."""
    return type(obj).__name__ == "_AsCompletedIterator"


def _is_of(kind: type, name: str) -> bool:
    """Whether it is a type of ctask's that no module has a name for."""
    return kind.__name__ == name and kind.__module__ == "ctask"


def _is_done_callback(obj: object) -> bool:
    """Whether it is what our gather(), wait(), ... add to their futures."""
    return _is_of(type(obj), "DoneCallback")


_METHODS: tuple[type, ...] = (MethodType, BuiltinMethodType, FunctionType, MethodDescriptorType)
