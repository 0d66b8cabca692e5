"""What a program has around it: its log, its clock, and the loop that it is played on.

A program is a module's text that defines `main()` and, by names, how it wants to be played
(SETTINGS). All that it does is told to `log`; play() returns this as text from which everything is
gone that two runs may differ in: addresses, the numbers of tasks, positions in other files.

Time is virtual, unless the program asks for the real one: it stands still as long as anything is
ready. A callback that is always ready (`Pump`) moves it on when nothing else is.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import logging
import re
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FILE = "<program>"
SETTINGS = {"clock": "virtual", "loop_class": "plain", "tidy": True, "chains": True}
PATIENCE = 8  # ticks without anything before a program counts as ended
TURNS = 200
EVENTS = 400
REAL_TIME = time.monotonic


class Odd(Exception):
    """An error that nobody expects."""


class Base(BaseException):
    """An error that is no Exception."""


class Clock:
    now = 1000.0


class Wrong:
    """An awaitable that yields what it was given, as a coroutine driven by asyncio must not."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        return (yield self.value)


class OtherLoop:
    """All of a loop that a future of another one needs."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *args: Any, **kwargs: Any) -> None: ...

    def call_exception_handler(self, context: Any) -> None: ...


class Items(dict):  # type: ignore[type-arg]
    """A set that keeps the order: asyncio's sets of tasks have the order of addresses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def name_key(task: Any) -> Any:
    name: str = task.get_name()
    if re.fullmatch(r"Task-\d+", name):
        return (0, int(name[5:]), "")
    # On 3.13 tasks of a factory may all be "None".
    coro = task.get_coro()
    frame = getattr(coro, "cr_frame", None)
    made_for = frame.f_locals.get("n") if frame is not None else None
    return (1, 0, f"{name} {getattr(coro, '__qualname__', '')} {made_for!r}")


def _abort(self: Any) -> None:
    """TaskGroup._abort(), in the order in which tasks were made; stock's is that of a set."""
    self._aborting = True
    for task in sorted(self._tasks, key=name_key):
        if not task.done():
            task.cancel()


def settle() -> None:
    """Give asyncio an order where it has that of addresses. In each process, of whatever mode."""
    asyncio.TaskGroup._abort = _abort  # type: ignore[attr-defined]


class World:
    """One program being played."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.events: list[str] = []
        self.late: list[str] = []  # what is told when an object dies: when that is, nobody says
        self.settings = settings
        self.clock = Clock()
        self.delays = self.done = self.names = 0
        self.over = False
        self.cut_short = False  # was shutdown_asyncgens()?

    # ---- for the program ----

    def log(self, *what: Any) -> None:
        if len(self.events) < EVENTS and not self.over:
            self.events.append(" ".join(map(self.show, what)))

    def do(self, who: Any, where: int, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function and log what came of it; too many calls, and none is made any more."""
        self.done += 1
        if self.done > EVENTS:
            return None
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.log(who, where, error)
        except asyncio.CancelledError as error:
            self.log(who, where, error)
        else:
            self.log(who, where, result)
            return result
        return None

    def name(self, start: str) -> str:
        """A name that no other task has: they are cancelled in the order of their names."""
        self.names += 1
        return f"{start}.{self.names:03}"

    def delay(self, ticks: int) -> float:
        """Seconds: no two timers are due at the same time, as asyncio promises no order then."""
        if self.settings["clock"] == "real":
            return 0.0 if ticks < 2 else 1000.0 + ticks
        self.delays += 1
        return (ticks or -1) + self.delays * 2.0**-20

    def few(self, *futures: Any) -> list[Any]:
        """At most one that is done: as_completed() has these in the order of a set."""
        done = [fut for fut in futures if asyncio.isfuture(fut) and fut.done()]
        once: dict[Any, None] = dict.fromkeys(fut for fut in futures if fut not in done[1:])
        return [fut for fut in once if fut is not None] or list(once)

    async def sets(self, waiting: Any) -> list[list[str]]:
        """What asyncio.wait() returns, in an order."""
        return [sorted(map(self.show, futures)) for futures in await waiting]

    def show(self, what: Any) -> str:
        if isinstance(what, BaseException):
            return self.show_error(what)
        if isinstance(what, tuple | list):
            return f"{type(what).__name__}[{', '.join(map(self.show, what))}]"
        if isinstance(what, set):
            return f"set[{', '.join(sorted(map(self.show, what)))}]"
        return repr(what)

    def show_error(self, error: BaseException, depth: int = 4) -> str:
        if depth == 0:
            return "..."
        lines, tb = [], error.__traceback__
        while tb is not None:
            if tb.tb_frame.f_code.co_filename == FILE:
                lines.append(tb.tb_lineno)
            tb = tb.tb_next
        text = f"{type(error).__name__}{error.args!r}@{lines}"
        told = isinstance(error, TypeError) and " argument" in str(error)
        if told or isinstance(error, RecursionError):
            text = (
                f"{type(error).__name__}@{lines}"  # the words are those of how a function is made
            )
        if isinstance(error, BaseExceptionGroup):
            inner = ", ".join(self.show_error(e, depth - 1) for e in error.exceptions)
            text = f"{type(error).__name__}[{inner}]@{lines}"
        if self.settings["chains"] and not isinstance(error, RecursionError):
            if error.__cause__ is not None:
                text += f" from ({self.show_error(error.__cause__, depth - 1)})"
            if error.__context__ is not None and error.__context__ is not error.__cause__:
                text += f" while ({self.show_error(error.__context__, depth - 1)})"
        return text

    def handler(self, loop: Any, context: dict[str, Any]) -> None:
        """An exception handler that logs all that it gets."""
        told = []
        for key, value in sorted(context.items()):
            if key.endswith("traceback"):
                told.append(f"{key} {bool(value)}")
            else:
                told.append(f"{key} {self.show(value)}")
        text = f"HANDLER {'; '.join(told)} [{X0.get()} {X1.get()}]"
        self.tell(context.get("message", ""), text)

    def tell(self, message: str, text: str) -> None:
        if re.match(
            r"(?s)Task was destroyed|.*(never retrieved|never awaited|but it is pending)", message
        ):
            if message.startswith("Unhandled error in exception handler"):
                # By the one there was when the object died, or as its context was entered then.
                self.late.append(UNHEARD)
                return
            # If nothing was cancelled, what the end of one does to others depends on their order.
            certain = self.settings["tidy"] and "Task was destroyed" not in message
            # Tracebacks are longer by now, if others have raised the same exception.
            # So are context variables others' by then.
            told = _LINES.sub("", text.rpartition(" [")[0] or text)
            self.late.append(whoever_hears(told) if certain else message.split("\n")[0])
        elif not self.over:
            self.events.append(text)

    def raising(self, loop: Any, context: dict[str, Any]) -> None:
        self.handler(loop, context)
        raise Odd("handler")

    # ---- what others say ----

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        error = record.exc_info and record.exc_info[1]
        self.tell(text, f"LOGGED {record.levelname} {own_lines(text)} {self.show(error or None)}")

    def warn(self, message: Any, category: Any, *_args: Any, **_kwargs: Any) -> None:
        text = f"WARNING {category.__name__} {own_lines(str(message))}"
        self.late.append(text)

    def unraisable(self, hook: Any) -> None:
        if self.settings["tidy"]:
            self.late.append(f"UNRAISABLE {hook.exc_type.__name__} {hook.err_msg}")


UNHEARD = "an object died, and the exception handler could not take it"
_BY_HANDLER = re.compile(
    r"(?s)HANDLER exception (?P<error>.*); future (?P<future><.*>); "
    r"message '(?P<message>[^']* never retrieved)'.*"
)
_BY_LOGGER = re.compile(
    r"(?s)LOGGED ERROR (?P<message>[^\n]* never retrieved)(\nfuture: (?P<future><.*>))?"
    r"\s(?P<error>.*)"
)


def whoever_hears(text: str) -> str:
    """Of an exception that was never retrieved: the same if the handler was taken away by then."""
    found = _BY_HANDLER.fullmatch(text) or _BY_LOGGER.fullmatch(text)
    if not found:
        return text
    future = found["future"] or ""
    if " created at " in future:
        future = ""  # the logger's line is left out, see own_lines()
    return f"{found['message']}: {future} {found['error']}"


_MORE = re.compile(r" |(\w+_)?(created|waits): ")


def own_lines(text: str) -> str:
    """Without the lines of tracebacks, and those that only ctask's default handler has."""
    lines = text.split("\n")
    return "\n".join(s for s in lines if not _MORE.match(s) and "created at" not in s)


class Pump:
    """Moves the virtual clock when nothing is ready, and ends the loop when nothing comes."""

    def __init__(self, world: World, loop: Any) -> None:
        self.world, self.loop = world, loop
        self.turns = self.idle = 0
        self.ended = False
        self.real = world.settings["clock"] == "real"

    def begin(self) -> None:
        self.turns = self.idle = 0
        self.ended = False
        self.loop.call_soon(self)

    def __call__(self) -> None:
        self.turns += 1
        idle = len(self.loop._ready) == 0
        self.idle = self.idle + 1 if idle else 0
        if self.idle > (1 if self.real else PATIENCE) or self.turns > TURNS:
            self.end()
        elif idle and self.real:
            self.loop.call_later(0.0002, self)  # it waits, and what is not ready by now never comes
        else:
            self.world.clock.now += idle
            self.loop.call_soon(self)

    def end(self) -> None:
        self.ended = True
        self.loop.stop()


X0: contextvars.ContextVar[Any] = contextvars.ContextVar("X0", default=0)
X1: contextvars.ContextVar[Any] = contextvars.ContextVar("X1", default=0)

_classes: dict[tuple[Any, str], Any] = {}


def loop_class(base: Any, kind: str) -> Any:
    """The loop's class with something replaced: ctask's fast path is not taken then."""
    found = _classes.get((base, kind))
    if found is None:
        names: dict[str, Any] = {}
        if kind == "time":

            def clock_time(self: Any) -> float:
                now: float = self._world_clock.now
                return now

            names["time"] = clock_time
        elif kind == "call_soon":

            def call_soon(self: Any, callback: Any, *args: Any, context: Any = None) -> Any:
                return base.call_soon(self, callback, *args, context=context)

            names["call_soon"] = call_soon
        found = _classes[base, kind] = type("Loop", (base,), names) if kind != "plain" else base
    return found


class LogTo(logging.Handler):
    world: World | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.world is not None:
            self.world.emit(record)


LOG_TO = LogTo()
GIVEN: dict[str, Any] = {
    "asyncio": asyncio,
    "contextvars": contextvars,
    "copy": copy,
    "Odd": Odd,
    "Base": Base,
    "Wrong": Wrong,
    "OtherLoop": OtherLoop,
    "X0": X0,
    "X1": X1,
}


def play(code: types.CodeType, make_loop: Any, debug: bool) -> str:
    """Run a program from its start to its end, and return its log."""
    names: dict[str, Any] = dict(GIVEN)
    exec(code, names)
    world = World({key: names.get(key, value) for key, value in SETTINGS.items()})
    v = types.SimpleNamespace()
    names.update(
        v=v,
        log=world.log,
        do=world.do,
        delay=world.delay,
        few=world.few,
        sets=world.sets,
        name=world.name,
    )
    names.update(handler=world.handler, raising=world.raising)
    if not LOG_TO.world:
        logger = logging.getLogger("asyncio")
        logger.handlers, logger.propagate, logger.level = [LOG_TO], False, logging.INFO
    LOG_TO.world = world
    old = warnings.showwarning, sys.unraisablehook, time.monotonic, warnings.filters[:]
    warnings.showwarning, sys.unraisablehook = world.warn, world.unraisable
    warnings.simplefilter("always")
    if world.settings["clock"] == "virtual":
        time.monotonic = lambda: world.clock.now
    try:
        contextvars.Context().run(_play, world, names, v, make_loop, debug)
        world.over = True
        v.__dict__.clear()
        gc.collect()
        names.clear()
        gc.collect()
    finally:
        warnings.showwarning, sys.unraisablehook, time.monotonic = old[:3]
        warnings.filters[:] = old[3]  # type: ignore[index]
        LOG_TO.world = None
    return normal(world)


def _play(world: World, names: dict[str, Any], v: Any, make_loop: Any, debug: bool) -> None:
    kind = "time" if world.settings["clock"] == "time" else world.settings["loop_class"]
    loop = loop_class(make_loop, kind)()
    loop._world_clock = world.clock
    loop._asyncgens = Items()
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    loop.set_exception_handler(world.handler)
    asyncio.set_event_loop(loop)
    names["loop"] = loop
    pump = Pump(world, loop)
    try:
        pump.begin()
        main = loop.create_task(names["main"](), name="main")
        _drive(world, loop, pump)
        world.log("main", main)
        del main
        if world.settings["tidy"]:
            for _ in range(2):
                tasks = sorted(asyncio.all_tasks(loop), key=name_key)
                world.log("left", len(tasks))
                for task in tasks:
                    world.do("cancel", 0, task.cancel)
                del tasks
                task = None  # type: ignore[assignment]
                pump.begin()
                _drive(world, loop, pump)
            pump.begin()
            ending = loop.create_task(loop.shutdown_asyncgens(), name="asyncgens")
            _drive(world, loop, pump)
            world.log("asyncgens", ending.done())
            error = getattr(ending, "_exception", None)  # which nobody has retrieved by that
            world.cut_short = isinstance(error, KeyboardInterrupt | SystemExit)
            del error
            del ending
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        world.log("closed", loop.is_closed())


def _drive(world: World, loop: Any, pump: Pump) -> None:
    for _ in range(12):
        try:
            loop.run_forever()
        except BaseException as error:
            world.log("RAN", error)
        else:
            world.log("RAN")
        if pump.ended:
            return


_ADDRESS = re.compile(r"0x[0-9a-f]+")
# A coroutine in C has no frame, so what it makes is created by who awaits it.
_PLACE = re.compile(r" created at \S*?:\d+|(?: running)? at /\S*?\.py:\d+")
_WHEN = re.compile(r"\bwhen=\d+\.\d+\b")
_SHORT = re.compile(
    r"(<\w+ \w+)\.\.\.\S*(?: \S*<program>:\d+)?>"
)  # reprlib counts what is not shown here
_WORDS = re.compile(r"TypeError\((['\"])[^\n]*? argument[^\n]*?\1\)")
_MODULE = re.compile(r"(?<=['<])(?:_asyncio|ctask)\.(?=[A-Z])")
_DEEP = re.compile(r"RecursionError\('[^']*'\)")
_SHIELD = re.compile(r"cb=\[[^\]]*shield[^\]]*\]")  # one callback, where asyncio may have two
_LINES = re.compile(r"@\[[\d, ]*\]")
_NUMBER = re.compile(r"\bTask-\d+")
_ACLOSE = "WARNING RuntimeWarning coroutine method 'aclose' of "


def normal(world: World) -> str:
    """The log, without what two runs of the same program may differ in."""
    late = sorted(map(_plain, world.late), key=_padded)
    if any("Task was destroyed" in text for text in late):
        # Then what ran until the end depends on the order in which objects went.
        late = [text for text in late if not text.startswith(("UNRAISABLE", "WARNING"))]
    if world.cut_short:
        # The generators whose `aclose()` was not begun die with the task that was to close them.
        # asyncio's is in a cycle, and outlives the loop; before, the loop makes an `aclose()` anew.
        late = [text for i, text in enumerate(late) if i == late.index(text) or _ACLOSE not in text]
    if world.done > EVENTS or any("RecursionError" in text for text in [*world.events, *late]):
        late = []  # it called itself without end: how far it came depends on how deep calls go
    text = "\n".join([*world.events, "LATE", *late])
    if world.settings["clock"] == "real":
        text = _WHEN.sub("when=_", text)
    seen: dict[str, str] = {}
    return _NUMBER.sub(lambda m: seen.setdefault(m[0], f"Task#{len(seen) + 1}"), _plain(text))


def _padded(text: str) -> str:
    return _NUMBER.sub(lambda m: m[0][5:].zfill(9), text)


def _plain(text: str) -> str:
    text = _ADDRESS.sub("0x_", text)
    text = _WORDS.sub("TypeError(_)", text)
    text = _SHIELD.sub("cb=[shield]", _DEEP.sub("RecursionError(_)", text))
    text = _SHORT.sub(r"\1...>", _MODULE.sub("", text))
    text = text.replace("<_UnixSelectorEventLoop ", "<EventLoop ")
    return _PLACE.sub("", text)


def make(mode: str) -> tuple[Callable[[], Any], bool]:
    """Make this process one of a mode; returns what makes loops, and whether they debug."""
    settle()
    debug = "debug" in mode
    loop: Any = asyncio.SelectorEventLoop
    if mode not in ("asyncio", "asyncio-debug"):
        import ctask

        if mode != "loop":
            ctask.install()
        if mode != "tasks":
            loop = ctask.EventLoop
    # Subclasses, of what the names stand for now: nothing of them may be taken for granted.
    for name in ("Future", "Task", "Queue", "Lock"):
        GIVEN[f"My{name}"] = type(f"My{name}", (getattr(asyncio, name),), {})
    return loop, debug


def main(path: str, mode: str) -> None:
    """Play the program in a file and print its log."""
    make_loop, debug = make(mode)
    source = Path(path).read_text()
    print(play(compile(source, FILE, "exec"), make_loop, debug))


if __name__ == "__main__":
    main(*sys.argv[1:])
