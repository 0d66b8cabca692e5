"""ctask.observe.opentelemetry: metrics of loops, and spans for what blocks and fails."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import time

import pytest

import ctask

# Each of the SDK's providers is kept by os.register_at_fork().
pytestmark = [pytest.mark.ctask_only, pytest.mark.kept_by_a_library]

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from ctask.observe.opentelemetry import (  # noqa: E402
    observe_loops,
    trace_block,
    trace_exception,
)

UNITS = {
    "ctask.eventloop.time": "s",
    "ctask.eventloop.io": "By",
    "ctask.eventloop.iterations": "{iteration}",
    "ctask.eventloop.callbacks": "{callback}",
    "ctask.eventloop.polls": "{poll}",
    "ctask.eventloop.events": "{event}",
    "ctask.eventloop.wakeups": "{wakeup}",
    "ctask.eventloop.task.created": "{task}",
    "ctask.eventloop.task.count": "{task}",
    "ctask.eventloop.callback.waiting": "{callback}",
    "ctask.eventloop.timer.count": "{timer}",
    "ctask.eventloop.connection.count": "{connection}",
    "ctask.eventloop.utilization": "1",
}


def collected(reader):
    """What a collection brings: by name, the values by their attributes."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("ctask", ctask.__version__)
    found = {}
    for metric in scope.metrics:
        assert metric.unit == UNITS[metric.name]
        assert metric.description
        monotonic = getattr(metric.data, "is_monotonic", None)
        now = metric.name.endswith((".count", ".waiting"))
        assert monotonic is (None if metric.name.endswith("utilization") else not now), metric.name
        found[metric.name] = {
            tuple(sorted(point.attributes.items())): point.value
            for point in metric.data.data_points
        }
    return found


@pytest.fixture
def reader():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe_loops(provider)
    yield reader
    provider.shutdown()


def number_of(loop):
    return next(number for number, each in ctask._ctask._open_loops() if each is loop)


def test_what_a_running_loop_has(reader):
    async def main():
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(asyncio.sleep(100)) for _ in range(3)]
        await asyncio.sleep(0)
        found, stats = collected(reader), ctask.stats()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return number_of(loop), found, stats

    number, found, stats = ctask.run(main())
    assert {*found} == {*UNITS}
    of_loop = ("ctask.eventloop.id", number)
    assert found["ctask.eventloop.task.count"][of_loop,] == 4
    assert found["ctask.eventloop.timer.count"][of_loop,] == 3
    assert found["ctask.eventloop.task.created"][of_loop,] == stats.tasks_created
    assert found["ctask.eventloop.iterations"][of_loop,] == stats.iterations
    assert found["ctask.eventloop.callbacks"][of_loop,] == stats.callbacks
    states = found["ctask.eventloop.time"]
    assert states[of_loop, ("ctask.eventloop.state", "idle")] == stats.idle
    assert 0 < states[of_loop, ("ctask.eventloop.state", "active")] < stats.busy
    directions = found["ctask.eventloop.io"]
    assert directions[of_loop, ("network.io.direction", "receive")] == 0
    assert directions[of_loop, ("network.io.direction", "transmit")] == 0
    assert found["ctask.eventloop.utilization"][of_loop,] == 1


def test_utilization_is_of_the_time_since_the_last_collection(reader):
    async def main():
        loop = asyncio.get_running_loop()
        key = (("ctask.eventloop.id", number_of(loop)),)

        def utilization():
            return collected(reader)["ctask.eventloop.utilization"][key]

        await asyncio.sleep(0.05)
        first = utilization()
        time.sleep(0.02)
        busy = utilization()
        await asyncio.sleep(0.2)
        return first, busy, utilization()

    first, busy, idle = ctask.run(main())
    assert first < 1
    assert busy == 1
    assert idle < 0.9


def test_loops_that_are_closed_are_gone(reader):
    loop = ctask.new_event_loop()
    key = (("ctask.eventloop.id", number_of(loop)),)
    assert key in collected(reader)["ctask.eventloop.iterations"]
    loop.close()
    assert key not in collected(reader).get("ctask.eventloop.iterations", {})


@pytest.mark.parametrize("when", ["before", "after", "while the loop runs"])
def test_the_global_provider_may_come_at_any_time(when):
    code = """
import asyncio, sys
import ctask
from ctask.observe.opentelemetry import observe_loops
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
def provide():
    metrics.set_meter_provider(MeterProvider([reader]))

if sys.argv[1] == "before":
    provide()
observe_loops()
if sys.argv[1] == "after":
    provide()

async def main():
    await asyncio.sleep(0)
    if sys.argv[1] == "while the loop runs":
        provide()
    names = {
        metric.name
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert len(names) == 13, names

ctask.run(main())
"""
    subprocess.run([sys.executable, "-c", code, when], check=True)


# ---- spans ----


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@dataclasses.dataclass
class Frame:
    file: str
    line: int
    function: str
    source: str


@dataclasses.dataclass
class Report:
    """What the watch gives, as far as it is needed."""

    seconds: float
    began: float
    blame: Frame | None = None
    frames: tuple[Frame, ...] = ()
    cause: str = "unknown"
    task: str | None = None
    coroutine: str | None = None
    callback: str | None = None


def test_span_of_a_step_that_blocked(exporter, tracer_provider):
    sleeps = Frame("library.py", 30, "wait", "time.sleep(1)")
    loads = Frame("app.py", 20, "load", "library.wait()")
    handles = Frame("app.py", 10, "handle", "")
    report = Report(
        seconds=1.5,
        began=time.monotonic() - 5,
        blame=loads,
        frames=(sleeps, loads, handles),
        cause="sleeping",
        task="Task-7",
        coroutine="handle",
    )
    wall = time.time() - 5
    trace_block(report, tracer_provider)
    (span,) = exporter.get_finished_spans()
    assert span.name == "eventloop block"
    assert span.kind is SpanKind.INTERNAL
    assert span.parent is None
    assert abs(span.start_time / 1e9 - wall) < 1
    assert span.end_time - span.start_time == 1_500_000_000
    assert dict(span.attributes) == {
        "ctask.block.cause": "sleeping",
        "ctask.task.name": "Task-7",
        "ctask.task.coroutine": "handle",
        "code.function.name": "load",
        "code.file.path": "app.py",
        "code.line.number": 20,
        "code.stacktrace": """\
  File "app.py", line 10, in handle
  File "app.py", line 20, in load
    library.wait()
  File "library.py", line 30, in wait
    time.sleep(1)
""",
    }


def test_span_of_a_callback_of_which_little_is_known(exporter, tracer_provider):
    trace_block(Report(0.1, time.monotonic(), callback="<built-in>"), tracer_provider)
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes) == {"ctask.block.cause": "unknown", "ctask.callback": "<built-in>"}


def test_span_of_an_exception_that_nobody_handled(loop, logs, exporter, tracer_provider):
    async def fails():
        raise LookupError("not there")

    async def main():
        task = asyncio.ensure_future(fails())
        task.set_name("worker")
        await asyncio.sleep(0)

    loop.set_exception_handler(
        lambda loop, context: trace_exception(loop, context, tracer_provider)
    )
    loop.run_until_complete(main())
    (span,) = exporter.get_finished_spans()
    assert span.name == "eventloop exception"
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["ctask.task.name"] == "worker"
    assert span.attributes["ctask.message"] == "Task exception was never retrieved"
    (event,) = span.events
    assert event.attributes["exception.type"] == "LookupError"
    assert event.attributes["exception.message"] == "not there"
    (record,) = logs.take()  # as without a handler
    assert record.getMessage().startswith("Task exception was never retrieved")


def test_a_message_without_an_exception(loop, logs, exporter, tracer_provider):
    trace_exception(loop, {"message": "odd"}, tracer_provider)
    (span,) = exporter.get_finished_spans()
    assert (span.status.description, span.events) == ("odd", ())
    assert [record.getMessage() for record in logs.take()] == ["odd"]


def test_without_opentelemetry_one_line_says_what_to_install():
    code = "import sys; sys.modules['opentelemetry'] = None; import ctask.observe.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last == (
        "ImportError: ctask.observe.opentelemetry needs opentelemetry-api: "
        "pip install 'ctask[opentelemetry]'"
    )
