"""ctask.trace(): what is recorded of loops, who woke whom, and what becomes of it."""

from __future__ import annotations

import _thread
import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
import weakref

import pytest

import ctask
from ctask import _ctask
from ctask.observe import timeline, trace
from ctask.observe.timeline import (
    CALLBACK,
    COLLECTION,
    EAGER,
    POLL,
    RAISED,
    RETURNED,
    RUNS_ON,
    STEP,
    THREAD,
    TIMER,
    UNSEEN,
    WAITS,
    YIELDS,
    Timeline,
)

pytestmark = pytest.mark.ctask_only

# Of timeline.py, which pytest would take for tests' names otherwise.
CANCELLED = timeline.CANCELLED


@pytest.fixture(autouse=True)
def no_trace_is_left():
    yield
    trace.drop()


def traced(main, memory=1 << 20, **kwargs):
    """The timeline of a coroutine, which is traced from its first step on."""

    async def run():
        trace.begin(memory)
        try:
            await main()
        finally:
            raws.append(trace.end())

    raws = []
    ctask.run(run(), **kwargs)
    return Timeline(raws[0].records, raws[0].facts)


def task_named(seen, name):
    (task,) = [task for task in seen.tasks.values() if task.name == name]
    return task


def steps(seen, name):
    return [seen.spans[index] for index in task_named(seen, name).spans]


def callbacks(seen, name):
    return [
        span
        for index, span in enumerate(seen.spans)
        if span.kind == CALLBACK and seen.name(index) == name
    ]


def functions(seen, span):
    return [name for kind, name, file, line in seen.labels[span.label] if kind != 2]


# ---- what is recorded ----


def test_a_task_from_its_birth_to_its_end():
    async def child():
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def main():
        await ctask.create_task(child(), name="child")

    seen = traced(main)
    task = task_named(seen, "child")
    assert [span.end for span in steps(seen, "child")] == [YIELDS, YIELDS, RETURNED]
    assert (task.end, task.coroutine.rpartition(".")[2]) == (RETURNED, "child")
    assert seen.tasks[task.parent].name == "Task-1" or seen.tasks[task.parent].end is None
    first = steps(seen, "child")[0]
    assert 0 <= task.born <= first.start <= first.start + first.duration <= seen.duration


@pytest.mark.parametrize("how", ["raises", "cancelled"])
def test_how_a_task_ends(how):
    async def child():
        if how == "raises":
            raise ZeroDivisionError
        await asyncio.Event().wait()

    async def main():
        task = ctask.create_task(child(), name="child")
        await asyncio.sleep(0)
        if how == "cancelled":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    seen = traced(main)
    assert task_named(seen, "child").end == (RAISED if how == "raises" else CANCELLED)


def test_what_a_task_waits_for_and_where():
    async def inner(queue):
        await queue.get()

    async def outer(queue):
        await inner(queue)

    async def main():
        queue = ctask.Queue()
        other = ctask.create_task(ctask.sleep(0.001), name="other")
        tasks = [ctask.create_task(outer(queue), name="gets")]
        tasks.append(ctask.create_task(waits_for(other), name="waits"))
        await other
        queue.put_nowait(1)
        await asyncio.gather(*tasks)

    async def waits_for(task):
        await task

    seen = traced(main)
    gets = steps(seen, "gets")[0]
    names = [name.rpartition(".")[2] for name in functions(seen, gets)]
    assert (gets.end, names) == (WAITS, ["outer", "inner", "get"])
    assert seen.awaits(gets) == "Queue.get"
    lines = [line for kind, name, file, line in seen.labels[gets.label] if file == __file__]
    code = test_what_a_task_waits_for_and_where.__code__.co_firstlineno
    assert lines == [code + 5, code + 2]
    assert seen.awaits(steps(seen, "waits")[0]) == "other"
    assert seen.awaits(steps(seen, "other")[0]) == "sleep"


def test_who_woke_whom():
    async def waits(event):
        await event.wait()

    async def sets(event):
        event.set()

    async def main():
        event = ctask.Event()
        waiter = ctask.create_task(waits(event), name="waits")
        await asyncio.sleep(0)
        setter = ctask.create_task(sets(event), name="sets")
        await asyncio.gather(waiter, setter)

    seen = traced(main)
    assert seen.spans[steps(seen, "waits")[1].waker] is steps(seen, "sets")[0]


def test_a_task_is_woken_by_the_step_that_made_it():
    async def main():
        await ctask.create_task(child(), name="child")

    async def child():
        pass

    seen = traced(main)
    (step,) = steps(seen, "child")
    waker = seen.spans[step.waker]
    assert waker.end == UNSEEN  # the trace began within it
    assert waker.task == task_named(seen, "child").parent


def test_callbacks_have_names():
    class Thing:
        def method(self):
            pass

    def function():
        pass

    async def main():
        import functools

        loop = asyncio.get_running_loop()
        loop.call_soon(function)
        loop.call_soon(Thing().method)
        loop.call_soon(functools.partial(function, *()))
        loop.call_soon([].append, 1)
        loop.call_soon(time.monotonic)
        await asyncio.sleep(0)

    seen = traced(main)
    names = [seen.name(i) for i, span in enumerate(seen.spans) if span.kind == CALLBACK]
    local = test_callbacks_have_names.__qualname__ + ".<locals>."
    assert names == [
        local + "function",
        local + "Thing.method",
        local + "function",
        "list.append",
        "monotonic",
    ]


def test_timers_and_polls():
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(0.002, done.set_result, None)
        await done

    seen = traced(main)
    (call,) = callbacks(seen, "Future.set_result")
    assert seen.spans[call.waker].kind == TIMER
    assert any(span.kind == POLL and span.duration > 1_000_000 for span in seen.spans)


def test_another_thread_wakes():
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(done.set_result, None))
        thread.start()
        await done
        thread.join()

    seen = traced(main)
    (call,) = callbacks(seen, "Future.set_result")
    assert seen.spans[call.waker].kind == THREAD


def test_what_the_kernel_tells_of_is_woken_by_the_poll():
    async def main():
        loop = asyncio.get_running_loop()
        a, b = __import__("socket").socketpair()
        with a, b:
            a.setblocking(False)
            done = loop.create_future()
            loop.add_reader(a, done.set_result, None)
            loop.call_later(0.001, b.send, b"x")
            await done
            loop.remove_reader(a)

    seen = traced(main)
    call = callbacks(seen, "Future.set_result")[0]
    waker = seen.spans[call.waker]
    assert (waker.kind, waker.extra) == (POLL, 1)


def test_collections_of_garbage():
    async def main():
        gc.collect()
        await asyncio.sleep(0)

    seen = traced(main)
    found = [span for span in seen.spans if span.kind == COLLECTION and span.extra == 2]
    assert found
    assert all(span.loop == 0 for span in found)


def test_the_step_that_ends_the_trace_runs_on():
    async def main():
        await asyncio.sleep(0)

    seen = traced(main)
    last = seen.spans[-1]
    assert (last.kind, last.end) == (STEP, RUNS_ON)
    assert seen.tasks[last.task].coroutine.endswith("run")  # it lives, and was asked


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_tasks():
    async def at_once():
        pass

    async def waits():
        await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        ctask.Task(at_once(), loop=loop, name="at once", eager_start=True)
        await ctask.Task(waits(), loop=loop, name="waits", eager_start=True)

    seen = traced(main)
    (span,) = steps(seen, "at once")
    assert (span.kind, span.end) == (EAGER, RETURNED)
    assert [span.kind for span in steps(seen, "waits")] == [EAGER, STEP]


def test_debug_mode_has_the_same_tasks():
    async def child():
        await asyncio.sleep(0.001)

    async def main():
        await ctask.create_task(child(), name="child")

    plain, debug = (traced(main, debug=yes) for yes in (False, True))
    assert [span.end for span in steps(plain, "child")] == [WAITS, RETURNED]
    assert [span.end for span in steps(debug, "child")] == [WAITS, RETURNED]
    assert all(span.waker >= 0 for span in steps(debug, "child"))


def test_subclasses_of_task_have_rows_as_well():
    class Own(ctask.Task):
        pass

    async def child():
        await asyncio.sleep(0.001)

    async def main():
        await Own(child(), loop=asyncio.get_running_loop(), name="own")

    seen = traced(main)
    assert [span.end for span in steps(seen, "own")] == [WAITS, RETURNED]


def test_measuring_goes_on_beside_it():
    async def main():
        with ctask.measure() as measurement:
            for _ in range(3):
                await asyncio.sleep(0)
            trace.end()
            await asyncio.sleep(0)
            counted = measurement.read().steps.count
            assert counted == 3
        trace.begin()

    traced(main)


# ---- what is nobody's time ----


def longest(seen, *kinds):
    return max(span.duration for span in seen.spans if span.kind in kinds) / 1e9


def test_what_runs_between_two_runs_of_a_loop_is_no_part_of_the_second():
    loop = ctask.new_event_loop()
    trace.begin()
    for _ in range(2):
        loop.call_soon(loop.stop)
        loop.run_forever()
        time.sleep(0.2)
    raw = trace.end()
    loop.close()
    seen = Timeline(raw.records, raw.facts)
    assert longest(seen, STEP, CALLBACK) < 0.1 < 0.3 < seen.duration / 1e9


def test_nor_is_what_runs_between_two_single_iterations():
    loop = ctask.new_event_loop()
    trace.begin()
    for _ in range(2):
        loop.call_soon(int)
        loop._run_once()
        time.sleep(0.2)
    raw = trace.end()
    loop.close()
    assert longest(Timeline(raw.records, raw.facts), STEP, CALLBACK) < 0.1


def test_a_signal_handler_between_two_turns_is_no_part_of_the_second():
    def again(n):
        if n:
            loop.call_soon(again, n - 1)
            loop.call_soon(_thread.interrupt_main, signal.SIGUSR1)  # handled before the next turn
        else:
            loop.stop()

    old = signal.signal(signal.SIGUSR1, lambda number, frame: time.sleep(0.1))
    loop = ctask.new_event_loop()
    try:
        loop.call_soon(again, 2)
        trace.begin()
        loop.run_forever()
        raw = trace.end()
    finally:
        loop.close()
        signal.signal(signal.SIGUSR1, old)
    seen = Timeline(raw.records, raw.facts)
    assert longest(seen, STEP, CALLBACK) < 0.05 < 0.1 < seen.duration / 1e9


# ---- the ring ----


def test_the_youngest_take_the_place_of_the_oldest():
    async def main():
        tasks = [ctask.create_task(asyncio.sleep(0), name=f"short {i}") for i in range(1000)]
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)

    seen = traced(main, memory=48 * 300)
    assert seen.facts["lost"] > 1000
    assert 0 < len(seen.spans) <= 300
    assert all(span.waker < index for index, span in enumerate(seen.spans))


def test_labels_are_bounded():
    # To find a line of a function takes the longer the more lines it has.
    source = "async def f():\n" + "    await yields()\n" * 1000
    names = {"yields": lambda: ctask.sleep(0)}

    async def main():
        for number in range(40):
            exec(compile(source, f"file {number}", "exec"), names)
            await names["f"]()

    seen = traced(main, memory=8 << 20)
    assert 30_000 < len(seen.labels) <= 32_768
    assert seen.spans[-2].label == 0


def test_deep_chains_are_cut():
    async def deep(n):
        if n:
            await deep(n - 1)
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    seen = traced(lambda: deep(300))
    longest = max(seen.labels, key=len)
    assert 190 < len(longest) <= 200


def test_no_task_is_kept_alive():
    class Marked:
        pass

    async def child(marked):
        await asyncio.sleep(0)

    async def main():
        marked = Marked()
        refs.append(weakref.ref(marked))
        task = ctask.create_task(child(marked), name="child")
        refs.append(weakref.ref(task))
        await task
        del task, marked
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in refs] == [None, None]

    refs = []
    traced(main)


def test_a_trace_gives_everything_back():
    def names():
        return sys.getrefcount(child.__code__)

    async def child():
        await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(child() for _ in range(10)))

    traced(main)
    gc.collect()
    before = names()
    traced(main)
    gc.collect()
    assert names() == before


# ---- when it begins and ends ----


def test_only_one_at_a_time(tmp_path):
    with ctask.trace(tmp_path / "one.json"):
        with pytest.raises(RuntimeError, match="traced already"):
            ctask.trace(tmp_path / "two.json")
        assert not (tmp_path / "two.json").exists()
    ctask.trace(tmp_path / "three.json").stop()


def test_all_loops_that_run_meanwhile_and_later(tmp_path):
    async def main(name):
        await ctask.create_task(asyncio.sleep(0), name=name)

    with ctask.trace(tmp_path / "out.json"):
        ctask.run(main("first"))
        thread = threading.Thread(target=lambda: ctask.run(main("second")), name="own thread")
        thread.start()
        thread.join()
    names = thread_names(tmp_path / "out.json")
    assert {"first", "second"} <= set(names[2].values())
    assert len(names[1]) == 2
    assert names[1][0] == "loop 0 MainThread"


def thread_names(path):
    """By process what its threads are called, by number."""
    found = {1: {}, 2: {}}
    for event in json.loads(path.read_text())["traceEvents"]:
        if event["name"] == "thread_name":
            found[event["pid"]][event["tid"]] = event["args"]["name"]
    return found


def test_from_another_thread_while_the_loop_is_blocked():
    def trace_meanwhile():
        started.wait()
        trace.begin()
        begun.set()

    async def main():
        started.set()
        assert begun.wait(30)  # the loop's thread waits, and cannot be asked for anything
        await ctask.create_task(asyncio.sleep(0), name="after")

    started, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=trace_meanwhile)
    thread.start()
    ctask.run(main())
    thread.join()
    raw = trace.end()
    seen = Timeline(raw.records, raw.facts)
    assert task_named(seen, "after").end == RETURNED
    assert seen.spans[0].end == UNSEEN


def test_of_two_threads_that_begin_at_once_one_is_refused():
    def begin():
        together.wait()
        try:
            trace.begin(memory=64 << 20)
        except RuntimeError as error:
            refused.append(str(error))

    for _ in range(5):
        refused, together = [], threading.Barrier(2)
        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trace.drop()
        assert refused == ["the process is traced already: that trace has to end first"]


def test_begun_and_ended_again_and_again_within_steps_and_callbacks():
    async def main():
        loop = asyncio.get_running_loop()
        for i in range(20):
            trace.begin()
            loop.call_soon(trace.drop if i % 2 else int)
            await asyncio.sleep(0)
            raw = trace.end()
            assert (raw is None) == bool(i % 2)
            if raw is not None:
                seen = Timeline(raw.records, raw.facts)
                assert {span.kind for span in seen.spans} >= {STEP, CALLBACK}

    ctask.run(main())


def test_a_loop_that_is_closed_meanwhile(tmp_path):
    loop = ctask.new_event_loop()
    with ctask.trace(tmp_path / "out.json"):
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert len(thread_names(tmp_path / "out.json")[1]) == 1
    assert loop._histograms() is None


def test_a_run_within_a_run(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(loop._run_once)
        ctask.create_task(asyncio.sleep(0), name="inner")
        await asyncio.sleep(0.001)

    seen = traced(main)
    assert task_named(seen, "inner").end == RETURNED


def test_a_forked_child_writes_nothing(tmp_path, script):
    script(
        """
        import asyncio, ctask, os, sys, warnings
        warnings.simplefilter("ignore")
        async def main():
            await asyncio.sleep(0)
        with ctask.trace("out.json") as traced:
            ctask.run(main())
            child = os.fork()
            if child == 0:
                ctask.run(main())
                traced.stop()
                assert os.path.getsize("out.json") == 0
                with ctask.trace("child.json"):
                    ctask.run(main())
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert os.path.getsize("out.json") == 0
        assert os.path.getsize("out.json") > 0
        assert os.path.getsize("child.json") > 0
        """
    )


def test_installed_and_uninstalled(tmp_path, script):
    script(
        """
        import asyncio, ctask, json
        async def main():
            await asyncio.create_task(asyncio.sleep(0), name="named")
        with ctask.trace("out.json"):
            ctask.install()
            asyncio.run(main())
            ctask.uninstall()
            asyncio.run(main())
        found = json.load(open("out.json"))["traceEvents"]
        names = [e["args"]["name"] for e in found if e["name"] == "thread_name"]
        assert names.count("named") == 1, names
        """
    )


def test_what_is_not_ended_is_written_at_exit(tmp_path, script):
    script(
        """
        import asyncio, ctask
        ctask.trace("out.json")
        ctask.run(asyncio.sleep(0))
        """
    )
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]


def test_a_trace_in_c_that_nobody_ends(script):
    script(
        """
        import asyncio, ctask
        ctask._ctask._trace_start(1000)
        ctask.run(asyncio.sleep(0))
        """
    )


@pytest.mark.parametrize("memory", [0, -1, sys.maxsize + 1])
def test_no_memory_to_speak_of(tmp_path, memory):
    with pytest.raises(ValueError, match="more than 0 bytes"):
        ctask.trace(tmp_path / "out", memory=memory)


def test_more_memory_than_there_is(tmp_path):
    with pytest.raises(MemoryError):
        ctask.trace(tmp_path / "out", memory=sys.maxsize)
    with pytest.raises(TypeError):
        _ctask._trace_start("1")
    assert trace.end() is None


# ---- files ----


def test_unwritable(tmp_path):
    with pytest.raises(FileNotFoundError):
        ctask.trace(tmp_path / "no" / "out.json")
    assert trace.end() is None
    assert gc.callbacks.count(trace._on_collection) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(caplog):
    with pytest.raises(OSError, match="No space left"), ctask.trace("/dev/full"):
        ctask.run(asyncio.sleep(0))
    with pytest.raises(ZeroDivisionError), ctask.trace("/dev/full"):
        raise ZeroDivisionError  # which is what is heard of
    (record,) = caplog.records
    assert record.getMessage() == (
        "the trace cannot be written to '/dev/full': No space left on device: name another file"
    )
    caplog.clear()


def test_stopped_twice(tmp_path):
    with ctask.trace(tmp_path / "out.json") as running:
        running.stop()
        written = (tmp_path / "out.json").read_text()
    assert (tmp_path / "out.json").read_text() == written


# ---- the Trace Event format ----


def events_of(main):
    return json.loads("".join(timeline.events(traced(main))))


def test_trace_events():
    async def child():
        await ctask.sleep(0.001)

    async def main():
        task = ctask.create_task(child(), name='"</script>\udc80')
        await asyncio.sleep(0)
        time.sleep(0.11)
        await task

    found = events_of(main)["traceEvents"]
    names = [event["args"]["name"] for event in found if event["name"] == "thread_name"]
    assert '"</script>\udc80' in names
    blocking = [event for event in found if event.get("args", {}).get("blocking")]
    assert blocking
    assert all(event["dur"] > 100_000 and "blocking" in event["cat"] for event in blocking)
    waits = [event["name"] for event in found if event.get("cat") == "wait"]
    assert "waits for sleep" in waits
    for event in found:
        assert event["ph"] in "MXsf"
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
    begins = {event["id"]: event for event in found if event["ph"] == "s"}
    ends = {event["id"]: event for event in found if event["ph"] == "f"}
    assert begins.keys() == ends.keys()
    assert all(begins[key]["ts"] <= ends[key]["ts"] for key in begins)


def test_slices_of_a_track_are_nested():
    async def main():
        await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(20)))

    tracks = {}
    for event in events_of(main)["traceEvents"]:
        if event["ph"] == "X" and event.get("cat") != "push":
            tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    for track in tracks.values():
        open_until = []
        for event in sorted(track, key=lambda event: (event["ts"], -event["dur"])):
            start, stop = event["ts"], event["ts"] + event["dur"]
            while open_until and open_until[-1] <= start + 0.002:
                open_until.pop()
            assert all(stop <= until + 0.002 for until in open_until)
            open_until.append(stop)


# ---- yielding tasks are overtaken ----


def test_who_overtakes_keeps_its_waker():
    facts = {
        "labels": [[]],
        "names": [],
        "threads": ["MainThread"],
        "lost": 0,
        "began": [0, 0],
        "ended": [1000, 1000],
        "living": [],
    }

    def record(kind, serial=0, extra=0, position=0, tail=0, at=0):
        return timeline._RECORD.pack(at, at + 1, serial, extra, position, tail, 0, 0, kind, 0)

    top = (1 << 32) - 2  # positions go on from 0
    records = [
        record(CALLBACK, position=top - 2, tail=top),
        record(CALLBACK, position=top - 1, tail=(top + 2) & 0xFFFFFFFF),  # pushes two yielders
        record(POLL, tail=3 - 2),  # and the poll one
        record(timeline.OVERTAKE, serial=2, extra=1, tail=1),
        record(CALLBACK, position=top, tail=1),
        record(CALLBACK, position=top + 1, tail=1),
        record(CALLBACK, position=0, tail=1),
    ]
    seen = Timeline(b"".join(records), facts)
    assert [span.waker for span in seen.spans[3:]] == [2, 1, 1]
