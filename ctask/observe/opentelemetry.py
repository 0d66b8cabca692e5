"""What loops count, and what blocks them, for OpenTelemetry (`pip install 'ctask[opentelemetry]'`).

It needs opentelemetry-api only.  The semantic conventions have nothing for Python's event loops
(`cpython.*` is about its collector): names and attributes follow their `nodejs.eventloop.time` and
`nodejs.eventloop.utilization`, with `ctask` in the place of `nodejs`.
"""

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

try:
    from opentelemetry import metrics, trace
except ImportError:
    raise ImportError(
        "ctask.observe.opentelemetry needs opentelemetry-api: pip install 'ctask[opentelemetry]'"
    ) from None

from ctask import __version__
from ctask._loop import EventLoop
from ctask.observe.loops import stats_of_open_loops
from ctask.observe.stats import Stats

LOOP = "ctask.eventloop.id"
STATE = "ctask.eventloop.state"
DIRECTION = "network.io.direction"

# What is counted: the metric's name, its unit and text, and the fields of Stats with what each adds
# to the attributes.
_Fields = dict[str, dict[str, str]]
_COUNTERS: tuple[tuple[str, str, str, _Fields], ...] = (
    (
        "ctask.eventloop.time",
        "s",
        "Cumulative duration of time the event loop has been in each state.",
        {"busy": {STATE: "active"}, "idle": {STATE: "idle"}},
    ),
    (
        "ctask.eventloop.io",
        "By",
        "Bytes that transports and sockets of the event loop received and sent.",
        {"bytes_received": {DIRECTION: "receive"}, "bytes_sent": {DIRECTION: "transmit"}},
    ),
    ("ctask.eventloop.iterations", "{iteration}", "Turns of the event loop.", {"iterations": {}}),
    (
        "ctask.eventloop.callbacks",
        "{callback}",
        "Callbacks and steps of tasks that were run.",
        {"callbacks": {}},
    ),
    (
        "ctask.eventloop.polls",
        "{poll}",
        "Times that the kernel was asked for events.",
        {"polls": {}},
    ),
    (
        "ctask.eventloop.events",
        "{event}",
        "Descriptors that the kernel said were ready.",
        {"events": {}},
    ),
    (
        "ctask.eventloop.wakeups",
        "{wakeup}",
        "Times that a thread or a signal ended the event loop's wait.",
        {"wakeups": {}},
    ),
    (
        "ctask.eventloop.task.created",
        "{task}",
        "Tasks made for the event loop.",
        {"tasks_created": {}},
    ),
)
_NOW: tuple[tuple[str, str, str, _Fields], ...] = (
    ("ctask.eventloop.task.count", "{task}", "Tasks that are not done.", {"tasks_pending": {}}),
    (
        "ctask.eventloop.callback.waiting",
        "{callback}",
        "Callbacks and steps of tasks that wait for their turn.",
        {"ready": {}},
    ),
    (
        "ctask.eventloop.timer.count",
        "{timer}",
        "Timers that wait for their time.",
        {"timers": {}},
    ),
    (
        "ctask.eventloop.connection.count",
        "{connection}",
        "Transports of sockets that are open.",
        {"connections": {}},
    ),
)

_Callback = Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]


def _observer(fields: _Fields) -> _Callback:
    def observe(options: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
        for number, _, stats in stats_of_open_loops():
            for field, attributes in fields.items():
                yield metrics.Observation(getattr(stats, field), {LOOP: number, **attributes})

    return observe


def _utilization_observer() -> _Callback:
    last: weakref.WeakKeyDictionary[EventLoop, Stats] = weakref.WeakKeyDictionary()

    def observe(options: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
        for number, loop, stats in stats_of_open_loops():
            window = stats - last[loop] if loop in last else stats
            last[loop] = stats
            yield metrics.Observation(window.utilization, {LOOP: number})

    return observe


def observe_loops(meter_provider: metrics.MeterProvider | None = None) -> None:
    """Have the metrics of all ctask loops that are open in this process collected from now on.

    Call it once.  Without a provider the global one is meant, which may be set later; loops may be
    made later, too.  Each has the attribute `ctask.eventloop.id`: 0 where there is one.  Nothing is
    done between two collections.
    """
    meter = metrics.get_meter("ctask", __version__, meter_provider)
    for name, unit, text, fields in _COUNTERS:
        meter.create_observable_counter(name, [_observer(fields)], unit, text)
    for name, unit, text, fields in _NOW:
        meter.create_observable_up_down_counter(name, [_observer(fields)], unit, text)
    meter.create_observable_gauge(
        "ctask.eventloop.utilization",
        [_utilization_observer()],
        "1",
        "Share of the time since the last collection in which the event loop was not idle.",
    )


# ---- spans ----


class Frame(Protocol):
    """What trace_block() needs of a frame."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def function(self) -> str: ...
    @property
    def source(self) -> str: ...


class BlockReport(Protocol):
    """What trace_block() needs of a report by ctask.watch()."""

    @property
    def seconds(self) -> float: ...
    @property
    def began(self) -> float: ...
    @property
    def blame(self) -> Frame | None: ...
    @property
    def frames(self) -> Sequence[Frame]: ...
    @property
    def cause(self) -> str: ...
    @property
    def task(self) -> str | None: ...
    @property
    def coroutine(self) -> str | None: ...
    @property
    def callback(self) -> str | None: ...


def _stack(frames: Sequence[Frame]) -> str:
    """As a traceback has it: the innermost last."""
    lines = []
    for frame in reversed(frames):
        lines.append(f'  File "{frame.file}", line {frame.line}, in {frame.function}\n')
        if frame.source:
            lines.append(f"    {frame.source}\n")
    return "".join(lines)


def trace_block(report: BlockReport, tracer_provider: trace.TracerProvider | None = None) -> None:
    """Record a span `eventloop block` for a callback that kept the loop.

    Give it to the watch: `ctask.watch(on_block=trace_block)`.  The span begins and ends when the
    callback did, has the task, the line that is to blame and the stack, and is no other's child.
    """
    attributes: dict[str, str | int] = {"ctask.block.cause": report.cause}
    for name, value in (
        ("ctask.task.name", report.task),
        ("ctask.task.coroutine", report.coroutine),
        ("ctask.callback", report.callback),
    ):
        if value is not None:
            attributes[name] = value
    if report.blame is not None:
        attributes["code.function.name"] = report.blame.function
        attributes["code.file.path"] = report.blame.file
        attributes["code.line.number"] = report.blame.line
    if report.frames:
        attributes["code.stacktrace"] = _stack(report.frames)
    began = time.time_ns() - int((time.monotonic() - report.began) * 1e9)
    span = trace.get_tracer("ctask", __version__, tracer_provider).start_span(
        "eventloop block", start_time=began, attributes=attributes
    )
    span.end(began + int(report.seconds * 1e9))


def trace_exception(
    loop: asyncio.AbstractEventLoop,
    context: Mapping[str, Any],
    tracer_provider: trace.TracerProvider | None = None,
) -> None:
    """Record a span `eventloop exception` for an exception that nobody has handled, and log it.

    Give it to a loop: `loop.set_exception_handler(trace_exception)`.  What asyncio does without a
    handler is done as well.
    """
    attributes = {"ctask.message": str(context["message"])}
    for key in ("task", "future"):
        if isinstance(context.get(key), asyncio.Task):
            attributes["ctask.task.name"] = context[key].get_name()
    span = trace.get_tracer("ctask", __version__, tracer_provider).start_span(
        "eventloop exception", attributes=attributes
    )
    exception = context.get("exception")
    if exception is not None:
        span.record_exception(exception)
    span.set_status(trace.StatusCode.ERROR, attributes["ctask.message"])
    span.end()
    loop.default_exception_handler(dict(context))
