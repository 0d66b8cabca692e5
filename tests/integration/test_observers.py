"""What people look into a running program with: profilers, monitors, tracers.

Each works on ctask as on asyncio; `how` is whether the program has only ctask's loop, or all of it.
Unlike a library, one that is not there for this Python is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import FACTORY, LOOP_TYPE, PATIENCE, STOCK, environment, free_port

HOWS = ["loop"] if STOCK else ["loop", "install"]


def need(*modules):
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{module} is not installed")


@pytest.fixture(params=HOWS)
def how(request):
    return [FACTORY, LOOP_TYPE, request.param]


@pytest.fixture
def told(how):
    """Runs a program, and returns what it prints as JSON."""

    def told(code, *modules, **env):
        need(*modules)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *how],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment(**env),
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return json.loads(done.stdout)

    return told


BLOCKED = """\
import asyncio, time
import observed


def innermost():
    print("blocked", flush=True)
    time.sleep(60)


async def awaited():
    innermost()


async def step():
    await awaited()


async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(step(), name="the one")


observed.run(main())
"""


def test_py_spy_shows_the_frames_of_the_task_that_runs(python, how):
    program = Path(sys.executable).parent / "py-spy"
    if not program.exists():
        pytest.skip("py-spy is not installed")
    blocked = python("-c", BLOCKED, *how)
    blocked.expect("blocked")
    command = [program, "dump", "--pid", str(blocked.popen.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if "not permitted" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("py-spy may not look into other processes here")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^    (?:\w+\.)?([\w<>]+) \(.+\)$", done.stdout, re.M)
    in_between = ["_run", "_run_once"] if STOCK else []
    expected = ["innermost", "awaited", "step", *in_between, "run_forever", "run_until_complete"]
    assert names[: len(expected)] == expected, done.stdout
    assert names[-1] == "<module>", done.stdout


MONITORED = """\
import asyncio, sys
import aiomonitor
import observed


async def innermost():
    await asyncio.sleep(3600)


async def waits():
    await innermost()


async def main():
    loop = asyncio.get_running_loop()
    port, webui = map(int, sys.argv[4:])
    with aiomonitor.start_monitor(
        loop,
        hook_task_factory=True,
        port=port,
        webui_port=webui,
        console_enabled=False,
    ):
        task = asyncio.create_task(waits(), name="the one")
        print("ready", flush=True)
        try:
            await task
        except asyncio.CancelledError:
            print("cancelled", flush=True)
        await innermost()  # the monitor answers as long as it is there


observed.run(main())
"""


def test_aiomonitor_lists_shows_and_cancels_tasks(python, how):
    need("aiomonitor")
    port = free_port()
    monitored = python("-W", "ignore", "-c", MONITORED, *how, free_port(), port)
    monitored.expect("ready")

    def ask(path, method="GET", data=None):
        url = f"http://127.0.0.1:{port}{path}"
        request = urllib.request.Request(url, data=data, method=method)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                    return response.read().decode()
            except urllib.error.URLError as exc:
                if not isinstance(exc.reason, ConnectionRefusedError):
                    raise
            assert time.monotonic() < deadline

    tasks = json.loads(ask("/api/live-tasks", "POST", b"filter=&persistent=false"))["tasks"]
    (task,) = [task for task in tasks if task["name"] == "the one"]
    assert task["coro"] == "waits()"
    assert task["state"] == "PENDING"
    assert task["created_location"].startswith("<string>:")
    page, deadline = "", time.monotonic() + PATIENCE
    while not re.search(r"waits.*innermost", page, re.S):  # it may have to begin
        assert time.monotonic() < deadline, page
        page = ask(f"/trace-running?task_id={task['task_id']}")
    ask(f"/api/task?task_id={task['task_id']}", "DELETE")
    monitored.expect("cancelled")


SENTRY = """\
import asyncio, json
import observed
import sentry_sdk
from sentry_sdk.integrations.asyncio import AsyncioIntegration
from sentry_sdk.transport import Transport

envelopes = []


class Kept(Transport):
    def capture_envelope(self, envelope):
        envelopes.append(envelope)


async def works():
    await asyncio.sleep(0)
    return 1


async def fails():
    await asyncio.sleep(0)
    raise LookupError("not there")


async def main():
    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1",
        transport=Kept,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[AsyncioIntegration()],
    )
    with sentry_sdk.start_transaction(name="all of it"):
        task = asyncio.create_task(fails())
        results = await asyncio.gather(works(), task, return_exceptions=True)
    assert results[0] == 1 and type(results[1]) is LookupError
    return task.get_coro().__qualname__


name = observed.run(main())
events = [envelope.get_event() for envelope in envelopes]
spans = [t["spans"] for e in envelopes if (t := e.get_transaction_event())]
print(json.dumps({
    "name": name,
    "exceptions": [
        {
            "type": event["exception"]["values"][-1]["type"],
            "mechanism": event["exception"]["values"][-1]["mechanism"]["type"],
            "frame": event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"],
        }
        for event in events if event
    ],
    "spans": sorted(span["description"] for span in spans[0]),
}))
"""


def test_sentry_reports_a_failed_task_and_has_a_span_for_each(told):
    assert told(SENTRY, "sentry_sdk") == {
        "name": "fails",
        "exceptions": [{"type": "LookupError", "mechanism": "asyncio", "frame": "fails"}],
        "spans": ["fails", "works"],
    }


OPENTELEMETRY = """\
import asyncio, json
import observed
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
instrumentor = AsyncioInstrumentor()
instrumentor.instrument(tracer_provider=provider, meter_provider=MeterProvider([reader]))


async def plain():
    await asyncio.sleep(0)


async def gathered():
    await asyncio.sleep(0)


async def grouped():
    await asyncio.sleep(0)


async def late():
    await asyncio.sleep(3600)


async def fails():
    raise LookupError


def threaded():
    pass


async def main():
    await asyncio.create_task(plain())
    await asyncio.gather(gathered(), gathered())
    async with asyncio.TaskGroup() as group:
        group.create_task(grouped())
    try:
        await asyncio.wait_for(late(), 0.01)
    except TimeoutError:
        pass
    (done,), _ = await asyncio.wait([asyncio.ensure_future(fails())])
    assert type(done.exception()) is LookupError
    await asyncio.to_thread(threaded)
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(future)
    future.set_result(None)
    await waiting


observed.run(main())
instrumentor.uninstrument()
observed.run(plain())
counts = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "asyncio.process.created":
                for point in metric.data.data_points:
                    name = point.attributes.get("name", "future")
                    counts[f"{name} {point.attributes['state']}"] = point.value
print(json.dumps({
    "spans": sorted(span.name for span in spans.get_finished_spans()),
    "counts": counts,
}))
"""


def test_opentelemetrys_instrumentation_traces_and_counts(told):
    coroutines = "plain,gathered,grouped,late,fails"
    seen = told(
        OPENTELEMETRY,
        "opentelemetry.instrumentation.asyncio",
        "opentelemetry.sdk",
        OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE=coroutines,
        OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED="true",
        OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE="threaded",
    )
    assert seen["spans"] == [
        "asyncio coro-fails",
        "asyncio coro-gathered",
        "asyncio coro-gathered",
        "asyncio coro-grouped",
        "asyncio coro-late",
        "asyncio coro-plain",
        "asyncio future",
        "asyncio to_thread-threaded",
    ]
    assert seen["counts"] == {
        "plain finished": 1,
        "gathered finished": 2,
        "grouped finished": 1,
        "late cancelled": 1,
        "fails exception": 1,
        "threaded finished": 1,
        "future finished": 1,
    }


DATADOG = """\
import asyncio, json
import observed
from ddtrace import patch
patch(asyncio=True)
from ddtrace.trace import TraceFilter, tracer

seen = {}


class Drop(TraceFilter):
    def process_trace(self, trace):
        return None  # there is nobody to send it to


tracer.configure(trace_processors=[Drop()])


async def child(name):
    with tracer.trace(name) as span:
        await asyncio.sleep(0)
        seen[name] = (span.trace_id, span.parent_id)


async def main():
    with tracer.trace("parent") as parent:
        task = asyncio.create_task(child("task"))
        seen["body"] = task.get_coro().cr_code.co_name
        async with asyncio.TaskGroup() as group:
            group.create_task(child("group"))
        await asyncio.gather(child("gather"), task)
        later = asyncio.get_running_loop().create_task(child("later"))
    await later  # runs when the parent has ended, and is its child all the same
    for name in ("task", "group", "gather", "later"):
        seen[name] = seen[name] == (parent.trace_id, parent.span_id)


observed.run(main())
print(json.dumps(seen))
"""


def test_ddtrace_gives_tasks_the_span_they_were_made_in(told):
    seen = told(
        DATADOG,
        "ddtrace",
        DD_TRACE_ENABLED="true",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
    )
    assert seen.pop("body") == "traced_coro"
    assert seen == {"task": True, "group": True, "gather": True, "later": True}


AIODEBUG = """\
import asyncio, json, sys, time
import observed
from aiodebug import log_slow_callbacks

seen = []


def slow():
    time.sleep(0.06)


async def fast():
    await asyncio.sleep(0)


async def slow_step():
    await asyncio.sleep(0)
    time.sleep(0.07)


async def main():
    asyncio.get_running_loop().call_soon(slow)
    await asyncio.gather(fast(), slow_step())


if "before" in sys.argv:
    log_slow_callbacks.enable(0.05, lambda name, seconds: seen.append((name, seconds)))
    observed.run(main())
else:
    async def enables():
        log_slow_callbacks.enable(0.05, lambda name, seconds: seen.append((name, seconds)))
        await asyncio.sleep(0)
        await main()

    observed.run(enables())
print(json.dumps(seen))
"""


@pytest.mark.parametrize("when", ["before", "while the loop runs"])
def test_aiodebug_tells_of_slow_callbacks_and_steps(told, how, when):
    how.append(when)
    (first, seconds), (second, more) = told(AIODEBUG, "aiodebug")
    assert first.startswith("<Handle slow() at <string>:"), first
    assert seconds >= 0.06
    assert second.startswith("<Task "), second
    assert "slow_step()" in second, second
    assert more >= 0.07


def test_the_profiler_of_python_shows_who_awaits_whom(python, how, directory):
    need("profiling.sampling")
    blocked = python("-c", BLOCKED.replace("time.sleep(60)", "time.sleep(5)"), *how)
    blocked.expect("blocked")
    output = directory / "stacks.txt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "profiling.sampling", "attach", "--async-aware", "-d", "1"),
            *("--collapsed", "-o", str(output), str(blocked.popen.pid)),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    if "ermission" in done.stderr:
        pytest.skip("the profiler may not look into other processes here")
    assert done.returncode == 0, done.stdout + done.stderr
    stacks = output.read_text()
    assert re.search(r"main.*step.*awaited.*innermost", stacks), stacks
