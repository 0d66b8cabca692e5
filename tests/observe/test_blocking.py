"""ctask.watch(): what blocks a loop is seen while it does, and told once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import queue
import re
import sys
import threading
import time

import pytest
from helpers.threads import sleeps_of, tells_system_calls

import ctask
from ctask.observe import blocking

pytestmark = pytest.mark.ctask_only

THRESHOLD = 0.05

told_by_the_kernel = pytest.mark.skipif(
    not tells_system_calls(), reason="the kernel does not tell, or it tells of another processor's"
)


class Told(queue.Queue):
    """The reports of a watch, as they come."""

    def of(self, run):
        """What is told when run(seconds) blocks for so long.

        It is done again, and for longer, until it is seen: on a machine that has much to do the
        thread that watches may come too late.
        """
        seconds = 0.3
        while True:
            run(seconds)
            with contextlib.suppress(queue.Empty):
                return self.get(timeout=1)
            seconds = min(2 * seconds, 10)

    def all(self):
        return [self.get_nowait() for _ in range(self.qsize())]

    def surely(self):
        """All, but for those that the machine was to blame for."""
        return [r for r in self.all() if r.starved is not None and r.starved < 0.3]


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def watched(loop, told):
    with ctask.watch(THRESHOLD, loop=loop, on_block=told.put) as watch:
        yield watch


def block(seconds):
    time.sleep(seconds)  # here


async def step(function, *args):
    function(*args)
    await asyncio.sleep(0.01)


@pytest.fixture
def stepping(loop):
    """Runs a function in a step of a task of the loop."""

    def stepping(function):
        return lambda seconds: loop.run_until_complete(step(function, seconds))

    return stepping


def compute(seconds):
    end = time.thread_time() + seconds / 2
    while time.thread_time() < end:
        pass


def line_of(function, text):
    """The number of the line of a function that has this text."""
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


# ---- what is told ----


@told_by_the_kernel
def test_a_step_that_sleeps(loop, watched, told):
    before = time.monotonic()
    report = told.of(
        lambda seconds: loop.run_until_complete(
            loop.create_task(step(block, seconds), name="sleeper")
        )
    )
    after = time.monotonic()
    assert before - 0.001 <= report.began < after
    assert 0.2 < report.seconds < after - before + 0.01
    assert (report.task, report.callback) == ("sleeper", None)
    assert report.coroutine == "step"
    assert report.blame == report.frames[0]
    assert report.blame.file == __file__
    assert report.blame.line == line_of(block, "# here")
    assert report.blame.function == "block"
    assert report.blame.source == "time.sleep(seconds)  # here"
    assert [frame.function for frame in report.frames] == ["block", "step"]
    assert report.cause == "sleeping"
    assert report.system_call in ("clock_nanosleep", "nanosleep")
    assert report.cpu is None or report.cpu < 0.5
    assert report.created is None
    assert report.ended
    assert report.thread == "MainThread"


def test_a_step_that_computes(stepping, watched, told):
    report = told.of(stepping(compute))
    assert report.cause == "computing"
    assert report.system_call is None
    assert report.cpu + report.starved >= 0.5
    assert report.blame.function == "compute"


def test_collecting_garbage(loop, stepping, told):
    everything = [[i] for i in range(300_000)]

    def collect(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            gc.collect()

    with ctask.watch(THRESHOLD, loop=loop, on_block=told.put):
        report = told.of(stepping(collect))
        while report.blame is None:  # it had ended before the thread was there
            report = told.of(stepping(collect))
    del everything
    assert report.cause == "collecting garbage"
    assert report.collecting > 0.5
    assert report.blame.function.endswith("collect")


def test_c_code_that_keeps_the_interpreter_lock(stepping, watched, told):
    def add_up(seconds):
        sum(range(int(seconds * 30_000_000)))

    report = told.of(stepping(add_up))
    # It had ended before the thread was there, or others had the processor for half of the time.
    while report.blame is None or report.held < 0.5:
        report = told.of(stepping(add_up))
    assert report.cause == "keeping the interpreter lock"
    assert report.blame.function.endswith("add_up")
    assert report.blame.source == "sum(range(int(seconds * 30_000_000)))"


def test_another_thread_that_keeps_the_interpreter_lock(stepping, watched, told):
    def wait(seconds):
        thread = threading.Thread(target=sum, args=(range(int(seconds * 30_000_000)),))
        thread.start()
        thread.join()

    report = told.of(stepping(wait))
    while report.held < 0.5:  # others had the processor for half of the time
        report = told.of(stepping(wait))
    assert report.cause == "interpreter lock"


@told_by_the_kernel
def test_a_lock_of_threads(stepping, watched, told):
    lock = threading.Lock()

    def wait(seconds):
        lock.acquire(timeout=seconds)

    with lock:
        report = told.of(stepping(wait))
    assert (report.cause, report.system_call) == ("lock", "futex")
    assert report.blame.source == "lock.acquire(timeout=seconds)"


@told_by_the_kernel
def test_a_system_call(stepping, watched, told):
    import select

    def wait(seconds):
        select.select([], [], [], seconds)

    report = told.of(stepping(wait))
    assert report.cause == "system call"
    assert report.system_call in ("select", "pselect6")
    assert report.blame.source == "select.select([], [], [], seconds)"


def test_a_callback_that_is_no_tasks(loop, watched, told):
    def run(seconds):
        loop.call_soon(block, seconds)
        loop.run_until_complete(asyncio.sleep(0.01))

    report = told.of(run)
    assert (report.task, report.coroutine) == (None, None)
    first = block.__code__.co_firstlineno
    assert report.callback == f"block() at {__file__}:{first}"
    assert report.blame.function == "block"


@told_by_the_kernel
@pytest.mark.parametrize("debug", [False, True])
def test_a_callback_in_c(loop, watched, told, debug):
    def run(seconds):
        loop.call_soon(time.sleep, seconds)
        loop.run_until_complete(asyncio.sleep(0.01))

    loop.set_debug(debug)
    report = told.of(run)
    assert (report.task, report.frames, report.blame) == (None, (), None)
    assert report.cause == "sleeping"
    if debug:
        assert "sleep" in report.callback
    else:
        assert report.callback is None
        assert "a callback written in C" in str(report)


def test_debug_mode_tells_where_a_task_was_made(loop, watched, told):
    loop.set_debug(True)

    async def main(seconds):
        await loop.create_task(step(block, seconds))  # made here

    report = told.of(lambda seconds: loop.run_until_complete(main(seconds)))
    assert report.created.source.endswith("# made here")
    assert f"created at {__file__}:" in str(report)


def test_to_blame_is_the_innermost_line_that_is_not_a_librarys(stepping, watched, told):
    import subprocess

    def run(seconds):
        subprocess.run(["sleep", str(seconds)], check=True)

    report = told.of(stepping(run))
    assert report.blame.function.endswith("run")
    assert report.blame.file == __file__
    assert report.frames[0].file == subprocess.__file__


def test_a_long_one_shows_where_the_time_goes(stepping, watched, told):
    def both(seconds):
        time.sleep(seconds)
        time.sleep(5 * seconds)  # most

    report = told.of(stepping(both))
    assert report.blame.source == "time.sleep(5 * seconds)  # most"
    assert f"of the time: {report.blame}" in str(report) or len(report.stacks) == 1
    assert len(report.stacks) <= 11  # at twice the time each


def test_what_waited_meanwhile(loop, watched, told):
    async def main(seconds):
        for _ in range(10):
            loop.call_soon(int)
        block(seconds)
        await asyncio.sleep(0.01)

    report = told.of(lambda seconds: loop.run_until_complete(main(seconds)))
    assert report.ready == 10
    assert "10 callbacks and steps were waiting for it" in str(report)


def test_each_is_told_apart(loop, stepping, watched, told):
    def other(seconds):
        block(seconds)

    assert told.of(stepping(block)).frames[1].function == "step"
    assert told.of(stepping(other)).frames[1].function.endswith("other")
    watched.stop()
    assert told.all() == []


def test_what_is_short_is_not_told(loop, told):
    async def main():
        end = time.monotonic() + 1
        while time.monotonic() < end:
            time.sleep(0.002)
            await asyncio.sleep(0)
        await asyncio.sleep(0.8)

    with ctask.watch(0.5, loop=loop, on_block=told.put):
        loop.run_until_complete(main())
        time.sleep(0.8)  # the loop does not run
        loop.run_until_complete(asyncio.sleep(0))
    assert told.surely() == []


def test_it_is_logged(loop, stepping, told, caplog):
    with ctask.watch(THRESHOLD, loop=loop, on_block=told.put):
        report = told.of(stepping(block))
    [record] = [r for r in caplog.records if r.name == "ctask.watch"]
    assert record.levelname == "WARNING"
    assert record.report is report
    assert record.getMessage() == str(report)


# ---- the text ----


@told_by_the_kernel
def test_the_text_has_the_line_to_blame_first(loop, watched, told):
    report = told.of(
        lambda seconds: loop.run_until_complete(loop.create_task(step(block, seconds), name="T"))
    )
    first, doing, task, stack = str(report).split("\n")
    line = line_of(block, "# here")
    where = re.escape(f"{__file__}:{line} in block: time.sleep(seconds)  # here")
    assert re.fullmatch(rf"blocked for \d\.\d{{3}} s: {where}", first)
    assert doing.startswith("  sleeping (system call ")
    assert "; CPU " in doing
    assert task == "  task 'T', coroutine step"
    assert re.fullmatch(r"  called from .* in step: function\(\*args\)", stack)


def test_reports_are_values(stepping, watched, told):
    report = told.of(stepping(block))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.seconds = 0
    assert hash(report) == hash(dataclasses.replace(report))


# ---- whom it is told ----


def test_on_block_is_called_by_the_thread_that_watches(loop, stepping):
    seen = Told()
    with ctask.watch(
        THRESHOLD, loop=loop, on_block=lambda report: seen.put(threading.current_thread())
    ):
        thread = seen.of(stepping(block))
    assert (thread.name, thread.daemon) == ("ctask.watch", True)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_on_block_raises_is_logged(loop, stepping, told, caplog, error):
    reports = []  # more than two, if the logging itself takes long

    def fail(report):
        reports.append(report)
        told.put(report)
        raise error("on purpose")

    with ctask.watch(THRESHOLD, loop=loop, on_block=fail):
        told.of(stepping(block))
        told.of(stepping(block))  # it goes on
    failed = [r for r in caplog.records if r.name == "ctask.watch" and r.levelname == "ERROR"]
    assert [r.exc_info[0] for r in failed] == [error] * len(reports)
    assert len(reports) >= 2
    for record in failed:
        record.exc_info = None  # or the loop is kept


def test_stop_in_on_block(loop, stepping, told):
    def stop(report):
        watch.stop()
        told.put(report)

    watch = ctask.watch(THRESHOLD, loop=loop, on_block=stop)
    told.of(stepping(block))
    stepping(block)(0.3)
    assert told.all() == []


def test_stop_tells_what_goes_on(loop, told):
    async def main(seconds):
        with ctask.watch(THRESHOLD, on_block=told.put):
            block(seconds)
        block(seconds)

    report = told.of(lambda seconds: loop.run_until_complete(main(seconds)))
    assert not report.ended
    assert " s so far: " in str(report)
    assert told.all() == []


def test_stop_twice_and_after_the_loop_was_closed(loop):
    watch = ctask.watch(THRESHOLD, loop=loop)
    loop.run_until_complete(asyncio.sleep(0))
    watch.stop()
    watch.stop()
    other = ctask.new_event_loop()
    watch = ctask.watch(THRESHOLD, loop=other)
    other.close()
    watch.stop()


def test_two_watches_of_a_loop(loop, stepping, told):
    longer = Told()
    with (
        ctask.watch(THRESHOLD, loop=loop, on_block=told.put),
        ctask.watch(100, loop=loop, on_block=longer.put),
    ):
        told.of(stepping(block))
    assert longer.surely() == []


def test_watches_may_come_and_go(loop, stepping, told):
    before = threading.active_count()
    for _ in range(3):
        with ctask.watch(THRESHOLD, loop=loop, on_block=told.put):
            told.of(stepping(block))
        stepping(block)(0.1)
    assert threading.active_count() == before
    assert told.all() == []


def test_stopping_one_watch_leaves_the_others(loop, stepping, told):
    with ctask.watch(THRESHOLD, loop=loop, on_block=told.put):
        for threshold in THRESHOLD, 2 * THRESHOLD:
            ctask.watch(threshold, loop=loop).stop()
            assert [t.name for t in threading.enumerate()].count("ctask.watch") == 1
        told.of(stepping(block))


def test_collections_are_noted_only_meanwhile(loop):
    before = list(gc.callbacks)
    with ctask.watch(THRESHOLD, loop=loop):
        with ctask.watch(1):
            assert len(gc.callbacks) == len(before) + 1
        assert len(gc.callbacks) == len(before) + 1
    assert gc.callbacks == before


def test_a_closed_loop_has_no_thread():
    before = threading.active_count()
    with ctask.watch(THRESHOLD):
        for _ in range(3):
            ctask.run(asyncio.sleep(0))
            assert threading.active_count() == before


# ---- which loops ----


def test_each_loop_that_runs_afterwards_in_any_thread(told):
    def run(seconds):
        ctask.run(step(block, seconds))

    def run_there(seconds):
        thread = threading.Thread(target=run, args=(seconds,), name="there")
        thread.start()
        thread.join()

    with ctask.watch(THRESHOLD, on_block=told.put):
        assert told.of(run).thread == "MainThread"
        report = told.of(run_there)
        assert (report.thread, report.blame.function) == ("there", "block")
        assert "thread 'there'" in str(report)
    run(0.3)
    assert told.all() == []


def test_loops_of_threads_at_the_same_time(told):
    def run(seconds):
        threads = [
            threading.Thread(target=ctask.run, args=(step(block, seconds),), name=f"loop {i}")
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    seen = set()
    with ctask.watch(THRESHOLD, on_block=told.put):
        while len(seen) < 3:
            seen.add(told.of(run).thread)
            seen.update(report.thread for report in told.all())
    assert seen == {"loop 0", "loop 1", "loop 2"}


def test_the_running_loop_alone(told):
    async def main():
        return ctask.watch(THRESHOLD, on_block=told.put)

    watch = ctask.run(main())
    try:
        ctask.run(step(block, 0.3))
    finally:
        watch.stop()
    assert [r for r in told.all() if "block" in str(r.blame)] == []


def test_a_loop_that_runs_in_a_callback_of_another(loop, watched, told):
    def nest(seconds):
        inner = ctask.new_event_loop()
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            inner.run_until_complete(asyncio.sleep(seconds))
        finally:
            inner.close()
            asyncio._set_running_loop(running)

    def run(seconds):
        loop.call_soon(nest, seconds)
        loop.run_until_complete(asyncio.sleep(0.01))

    assert told.of(run).seconds > 0.1


def test_iterations_within_a_callback_are_no_block(loop, told):
    def nest():
        end = time.monotonic() + 1
        while time.monotonic() < end:
            loop.call_soon(int)
            loop._run_once()

    with ctask.watch(0.5, loop=loop, on_block=told.put):
        loop.call_soon(nest)
        loop.run_until_complete(asyncio.sleep(0.01))
    assert told.surely() == []


def test_what_cannot_be_watched(loop):
    for threshold in 0, -1, float("nan"), 1e9:
        with pytest.raises(ValueError, match="more than 0 seconds"):
            ctask.watch(threshold)
    with pytest.raises(TypeError):
        ctask.watch(None)
    with pytest.raises(TypeError, match="a loop of ctask was expected, got 3"):
        ctask.watch(loop=3)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        ctask.watch(loop=loop)
    with contextlib.closing(asyncio.SelectorEventLoop()) as stock:

        async def main():
            with pytest.raises(TypeError, match="a loop of ctask was expected"):
                ctask.watch()

        stock.run_until_complete(main())


# ---- what does not disturb it ----


def test_a_program_that_has_replaced_the_clock_and_sleep(loop, watched, told, monkeypatch):
    sleep = time.sleep

    def run(seconds):
        with monkeypatch.context() as patch:
            for name in "monotonic", "time", "perf_counter":
                patch.setattr(time, name, lambda: 1.0)
            patch.setattr(time, "sleep", None)
            loop.call_soon(sleep, seconds)
            loop.call_soon(loop.stop)
            loop.run_forever()

    assert 0.1 < told.of(run).seconds < 100


def test_a_forked_child_is_watched_where_it_runs_a_loop(script):
    done = script(
        """
        import asyncio, ctask, os, queue, time

        async def main(seconds):
            time.sleep(seconds)
            await asyncio.sleep(0.01)

        def until_told(loop):
            seconds = 0.3
            while reports.empty() and seconds < 60:
                loop.run_until_complete(main(seconds))
                time.sleep(0.2)
                seconds *= 2
            return reports.get(timeout=1)

        reports = queue.Queue()
        watch = ctask.watch(0.05, on_block=reports.put)
        loop = ctask.new_event_loop()
        until_told(loop)
        child = os.fork()
        until_told(loop)
        watch.stop()
        loop.close()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        bare=True,
    )
    assert done.err.count("blocked for") >= 3


def test_a_forked_child_may_stop_the_parents_watch(script):
    script(
        """
        import asyncio, ctask, os, time

        async def main():
            with ctask.watch(0.05):
                await asyncio.sleep(0.01)
                child = os.fork()
                time.sleep(0.1)
            return child

        loop = ctask.new_event_loop()
        child = loop.run_until_complete(main())
        loop.close()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        bare=True,
    )


def test_what_has_ended_when_the_watch_stops_does_not_go_on(monkeypatch, told):
    """The thread that watches waits for the lock meanwhile, as on a machine with much to do."""

    def wait(incident, seconds, wait=blocking.Incident.wait):
        wait(incident, min(seconds, 0.01))
        if seconds > 0 and incident.seen_until - incident._since > 0.3:
            time.sleep(1.2)

    async def main():
        time.sleep(1)

    with ctask.watch(0.1, on_block=told.put), monkeypatch.context() as patch:
        patch.setattr(blocking.Incident, "wait", wait)
        ctask.run(main())
    assert told.get(timeout=5).ended


END = """
import asyncio, ctask, logging, sys, threading, time
logging.disable()

async def main(ready):
    ready.set()
    {body}

def run():
    ctask.new_event_loop().run_until_complete(main(ready))

watch = ctask.watch(0.02)
ready = threading.Event()
{run}
ready.wait()
time.sleep(0.1)
{end}
"""


@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.sleep(1000)",
        "time.sleep(1000)",
        "while True: pass",
        "while True: time.sleep(0.03); await asyncio.sleep(0)",
    ],
)
def test_the_interpreter_ends_while_a_loop_is_watched(script, body):
    thread = "threading.Thread(target=run, daemon=True).start()"
    done = script(END.format(body=body, run=thread, end="print('end')"), bare=True)
    assert (done.out, done.err) == ("end\n", "")


@pytest.mark.parametrize("end", ["pass", "watch.stop()", "sys.modules.clear()"])
def test_the_interpreter_ends_while_a_loop_is_left_open(script, end):
    done = script(
        END.format(body="await asyncio.sleep(0)", run="run()", end=end + "; print('end')"),
        bare=True,
    )
    assert done.out == "end\n"
    assert "Fatal" not in done.err


def test_what_blocks_at_the_end_of_a_program_is_told(script):
    done = script(
        """
        import ctask, time

        async def main():
            time.sleep(2)

        ctask.watch(0.5)
        ctask.run(main())
        """,
        bare=True,
    )
    assert "time.sleep(2)" in done.err.splitlines()[0]
    assert done.err.count("blocked for") == 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="_interpreters is of 3.13")
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("end", ["", "watch.stop()"])
def test_a_sub_interpreter(script, kind, end):
    done = script(
        f"""
        import _interpreters

        interpreter = _interpreters.create({kind!r})
        failed = _interpreters.run_string(interpreter, '''if True:
            import asyncio, ctask, queue, time

            async def main():
                time.sleep(1)
                await asyncio.sleep(0.01)

            reports = queue.Queue()
            watch = ctask.watch(0.05, on_block=reports.put)
            loop = ctask.new_event_loop()
            loop.run_until_complete(main())
            assert reports.get(timeout=60).blame.function == "main"
            {end}
        ''')
        _interpreters.destroy(interpreter)
        print("failed" if failed is not None else "ok", failed and failed.formatted)
        """,
        bare=True,
    )
    assert done.out == "ok None\n", done.err


def test_while_the_loop_has_nothing_to_do_it_costs_nothing(loop, watched, told):
    async def main():
        await asyncio.sleep(0.3)
        [thread] = [t for t in threading.enumerate() if t.name == "ctask.watch"]
        before = sleeps_of(thread)
        await asyncio.sleep(0.5)
        return sleeps_of(thread) - before

    assert loop.run_until_complete(main()) < 20  # 40 while the loop is busy


def test_without_a_watch_nothing_is_hooked(loop):
    from ctask import _loop

    with ctask.watch(1):
        assert _loop.on_run is not None
    assert _loop.on_run is None
    with ctask.watch(1, loop=loop):
        assert _loop.on_close is not None
    loop.close()
    assert _loop.on_close is None
    assert _loop.on_run is None
