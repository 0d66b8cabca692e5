"""call_soon_threadsafe: waking a loop from other threads and from signal handlers."""

import asyncio
import functools
import signal
import sys
import threading

import pytest


def test_wakes_a_blocked_loop(loop):
    # Without the wake-up the loop would block for ever: it has neither timers nor callbacks.
    seen = []
    blocked = threading.Event()

    def other():
        blocked.wait()
        loop.call_soon_threadsafe(seen.append, 1)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.call_soon(blocked.set)
    loop.run_forever()
    thread.join()
    assert seen == [1]


def test_wakes_it_again_and_again(loop):
    answers = []
    turns = 200
    go = threading.Semaphore(0)

    def other():
        for n in range(turns):
            go.acquire()
            loop.call_soon_threadsafe(pong, n)
        loop.call_soon_threadsafe(loop.stop)

    def pong(n):
        answers.append(n)
        go.release()

    thread = threading.Thread(target=other)
    thread.start()
    go.release()
    loop.run_forever()
    thread.join()
    assert answers == list(range(turns))


def test_many_threads_each_in_its_order(loop):
    threads, each = 8, 500
    seen = []
    left = threads

    def other(name):
        for n in range(each):
            loop.call_soon_threadsafe(seen.append, (name, n))
        loop.call_soon_threadsafe(finished)

    def finished():
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    workers = [threading.Thread(target=other, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    loop.run_forever()
    for worker in workers:
        worker.join()
    assert len(seen) == threads * each
    for name in range(threads):
        assert [n for who, n in seen if who == name] == list(range(each))


def test_before_the_loop_runs(loop, turn):
    seen = []
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, 1))
    thread.start()
    thread.join()
    turn()
    assert seen == [1]


def test_same_thread_keeps_the_order_with_call_soon(loop, turn):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    loop.call_soon_threadsafe(seen.append, 4)
    turn()
    assert seen == [1, 2, 3, 4]


def test_from_a_running_callback_it_runs_in_the_next_turn(loop, turn):
    seen = []
    loop.call_soon(lambda: loop.call_soon_threadsafe(seen.append, 1))
    turn()
    assert seen == []
    turn()
    assert seen == [1]


def test_more_wake_ups_than_a_pipe_holds(loop, turn):
    count = 0

    def tick():
        nonlocal count
        count += 1

    for _ in range(300_000 // 3):
        loop.call_soon_threadsafe(tick)
    turn()
    assert count == 100_000


def test_cancelled_from_another_thread_before_it_runs(loop, turn):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    thread = threading.Thread(target=handle.cancel)
    thread.start()
    thread.join()
    turn()
    assert seen == []


def test_completing_a_future_from_another_thread(loop, run):
    fut = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(fut.set_result, "r"))
    thread.start()

    async def main():
        return await fut

    assert run(main()) == "r"
    thread.join()


def test_run_coroutine_threadsafe(loop):
    async def body(n):
        await asyncio.sleep(0)
        if n < 0:
            raise ValueError(n)
        return n * 2

    results = []

    def other():
        results.append(asyncio.run_coroutine_threadsafe(body(21), loop).result(10))
        with pytest.raises(ValueError):
            asyncio.run_coroutine_threadsafe(body(-1), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join()
    assert results == [42]


def test_after_close_raises(loop):
    loop.close()
    errors = []

    def other():
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert errors == ["Event loop is closed"]


def test_stop_from_another_thread_needs_the_wake_up(loop):
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    assert not loop.is_running()


def test_from_a_python_signal_handler(loop):
    seen = []

    def handler(signum, frame):
        loop.call_soon_threadsafe(seen.append, signum)
        loop.call_soon_threadsafe(loop.stop)

    saved = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    thread = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGUSR1))
    try:
        loop.call_soon(thread.start)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, saved)
    thread.join()
    assert seen == [signal.SIGUSR1]


def test_callbacks_without_python_code_let_other_threads_run(loop):
    """Nothing but the loop can give up the interpreter lock here."""
    again = functools.partial(loop.call_soon)
    again.__setstate__((loop.call_soon, (again,), {}, None))
    loop.call_soon(again)
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    loop._ready.clear()
    again.__setstate__((loop.call_soon, (), {}, None))  # no cycle is left


def test_racing_with_close_does_not_crash(script):
    script("""
        import threading
        for _ in range(30):
            loop = impl.new_event_loop()
            go = threading.Event()
            def other():
                go.wait()
                try:
                    while True:
                        loop.call_soon_threadsafe(int)
                except RuntimeError as exc:
                    assert str(exc) == "Event loop is closed", exc
                except OSError:
                    pass
            threads = [threading.Thread(target=other) for _ in range(2)]
            for t in threads: t.start()
            loop.call_soon(go.set)
            loop.call_later(0.0005, loop.stop)
            loop.run_forever()
            loop.close()
            for t in threads: t.join()
    """)


def test_callback_context_of_the_calling_thread(loop):
    import contextvars

    var = contextvars.ContextVar("var", default="none")
    seen = []

    def other():
        var.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen == ["thread"]


def test_not_callable_without_debug_is_reported_when_it_runs(loop, turn, reports):
    loop.call_soon_threadsafe(5)
    turn()
    (report,) = reports.take()
    assert type(report["exception"]) is TypeError


# From 3.14 on a handle's cancel() and cancelled() wait while the callback runs in another thread.

waits = pytest.mark.skipif(sys.version_info < (3, 14), reason="handles wait from 3.14 on")


@pytest.fixture
def in_thread():
    """in_thread(function): runs it in a thread, which is waited for at the end; returns it."""
    threads = []

    def in_thread(function):
        threads.append(threading.Thread(target=function))
        threads[-1].start()
        return threads[-1]

    yield in_thread
    for thread in threads:
        thread.join()


@waits
def test_the_handle_is_of_asyncios_class(loop, turn):
    handle = loop.call_soon_threadsafe(print)
    assert isinstance(handle, asyncio.events._ThreadSafeHandle)
    assert isinstance(handle, asyncio.Handle)
    assert repr(handle) == "<_ThreadSafeHandle print()>"
    assert repr(loop.call_soon(print)) == "<Handle print()>"
    handle.cancel()
    assert repr(handle) == "<_ThreadSafeHandle cancelled>"
    loop.call_soon_threadsafe(lambda: None)
    turn()


@waits
@pytest.mark.parametrize("method, result", [("cancel", None), ("cancelled", False)])
@pytest.mark.parametrize("debug", [False, True])
def test_other_threads_wait_for_the_end_of_the_callback(
    loop, turn, in_thread, method, result, debug
):
    loop.set_debug(debug)
    callers = 3
    order, threads = [], []
    calling = threading.Semaphore(0)
    returned = threading.Event()

    def other():
        calling.release()
        order.append(getattr(handle, method)())
        returned.set()

    def callback():
        threads.extend(in_thread(other) for _ in range(callers))
        for _ in range(callers):
            calling.acquire()
        assert not returned.wait(0.05)
        order.append("end")

    handle = loop.call_soon_threadsafe(callback)
    turn()
    for thread in threads:
        thread.join()
    assert order == ["end"] + [result] * callers


@waits
def test_it_waits_no_longer_once_the_callback_has_run(loop, turn, in_thread):
    answers = []
    handle = loop.call_soon_threadsafe(answers.append, 1)
    turn()
    in_thread(lambda: answers.append(handle.cancelled())).join()
    assert answers == [1, False]


@waits
def test_a_callback_cancels_its_own_handle_without_waiting(loop, turn):
    seen = []

    def callback():
        seen.append(handle.cancelled())
        handle.cancel()
        seen.append(handle.cancelled())

    handle = loop.call_soon_threadsafe(callback)
    turn()
    assert seen == [False, True]


@waits
def test_a_callback_that_raises_lets_waiting_threads_go(loop, turn, in_thread, reports):
    calling, returned = threading.Event(), threading.Event()

    def other():
        calling.set()
        handle.cancel()
        returned.set()

    def callback():
        in_thread(other)
        calling.wait()
        assert not returned.wait(0.05)
        raise ValueError("callback")

    handle = loop.call_soon_threadsafe(callback)
    turn()
    assert returned.wait(10)
    (context,) = reports.take()
    assert context["handle"] is handle
    assert str(context.pop("exception")) == "callback"
    assert handle.cancelled()
    context.clear()


@waits
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_that_ends_the_loop_lets_waiting_threads_go(loop, turn, in_thread, error):
    calling, returned = threading.Event(), threading.Event()

    def other():
        calling.set()
        handle.cancel()
        returned.set()

    def callback():
        in_thread(other)
        calling.wait()
        assert not returned.wait(0.05)
        raise error("callback")

    handle = loop.call_soon_threadsafe(callback)
    with pytest.raises(error, match="callback"):
        turn()
    assert returned.wait(10)
    assert handle.cancelled()


@waits
def test_a_signals_handler_can_end_the_wait(loop, in_thread):
    class Interrupt(Exception):
        pass

    def handler(signum, frame):
        raise Interrupt

    main = threading.main_thread().ident
    started, calling, interrupted = (threading.Event() for _ in range(3))
    seen = []

    def callback():
        started.set()
        calling.wait()
        assert not interrupted.wait(0.05)
        signal.pthread_kill(main, signal.SIGUSR1)
        seen.append(interrupted.wait(10))
        loop.stop()

    saved = signal.signal(signal.SIGUSR1, handler)
    try:
        handle = loop.call_soon_threadsafe(callback)
        in_thread(loop.run_forever)
        started.wait()
        with pytest.raises(Interrupt):
            calling.set()
            handle.cancel()
        interrupted.set()
    finally:
        signal.signal(signal.SIGUSR1, saved)
    handle.cancel()
    assert seen == [True]
    assert handle.cancelled()


@waits
def test_running_a_handle_by_hand(loop, turn):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    handle._run()
    handle._run()
    turn()
    assert seen == [1, 1, 1]
    handle.cancel()
    handle._run()
    assert seen == [1, 1, 1]


@waits
def test_a_handle_that_runs_itself_again_is_let_go_by_the_outer_run(loop, turn, in_thread, logs):
    order = []
    calling, returned = threading.Event(), threading.Event()

    def other():
        calling.set()
        handle.cancel()
        order.append("cancelled")
        returned.set()

    def callback():
        handle._run()  # in vain: its context is entered
        in_thread(other)
        calling.wait()
        assert not returned.wait(0.05)
        order.append("end")

    handle = loop.call_soon_threadsafe(callback)
    turn()
    assert returned.wait(10)
    assert order == ["end", "cancelled"]
    (record,) = logs.take()
    assert "Exception in callback" in record.getMessage()


@waits
def test_a_subclass_of_the_handles_class(loop, turn):
    seen = []

    class Mine(type(loop.call_soon_threadsafe(seen.append, 0))):
        def _run(self):
            seen.append("run")
            super()._run()

    mine = Mine(seen.append, (1,), loop)
    assert not mine.cancelled()
    loop._add_callback(mine)
    turn()
    assert seen == [0, "run", 1]
    mine.cancel()
    assert mine.cancelled()
    loop._add_callback(mine)
    mine._run()
    turn()
    assert seen == [0, "run", 1, "run"]


# ---- while nobody is asleep yet


def test_what_the_clock_makes_ready_is_not_waited_out(impl):
    class Loop(impl.EventLoop):
        def time(self):
            if armed:
                armed.pop()
                self.call_soon_threadsafe(seen.append, "soon")
                self.call_soon_threadsafe(self.stop)
            return super().time()

    armed, seen = [], []
    loop = Loop()
    timer = loop.call_later(30, seen.append, "late")
    armed.append(1)
    loop.run_forever()
    assert seen == ["soon"]
    timer.cancel()
    loop.close()


def test_what_a_thread_made_ready_is_not_waited_out_by_who_runs_the_loop(loop, turn):
    """As nest_asyncio does: the thread came after it had looked, and before it waits."""
    seen = []
    loop.call_soon_threadsafe(seen.append, 1)
    start = loop.time()
    loop._selector.select(30)
    assert loop.time() - start < 20
    turn()
    assert seen == [1]
