"""Signal handlers, and Ctrl-C while a loop runs."""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import sys
import threading

import pytest
from conftest import STOCK

MAIN = threading.main_thread().ident


@pytest.fixture(autouse=True)
def dispositions():
    """Signal handlers end as they were."""
    kinds = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)
    saved = {kind: signal.getsignal(kind) for kind in kinds}
    yield
    for kind, handler in saved.items():
        signal.signal(kind, handler)
    assert signal.set_wakeup_fd(-1) == -1


def blocked_in_epoll():
    """Whether the main thread waits for events now; True where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/syscall") as file:
            number = file.read().split()[0]
    except OSError:
        return True
    # x86-64's epoll_wait, epoll_pwait, epoll_pwait2, also under qemu's user emulation; elsewhere
    # epoll_pwait, epoll_pwait2.
    numbers = {"232", "281", "441"}
    return number in (numbers if os.uname().machine == "x86_64" else numbers | {"22"})


@pytest.fixture
def later():
    """Sends this process's main thread a signal from another thread: when `later(kind)()` has
    been called and, unless the loop is busy, the main thread is blocked in the poll."""
    threads = []

    def later(kind, blocked=True):
        go = threading.Event()

        def send():
            go.wait()
            while blocked and not blocked_in_epoll():
                pass
            signal.pthread_kill(MAIN, kind)

        threads.append(threading.Thread(target=send, daemon=True))
        threads[-1].start()
        return go.set

    yield later
    for thread in threads:
        thread.join()


def test_handler_runs_in_the_loop(loop):
    seen = []

    def handler(*args):
        seen.append((args, asyncio.get_running_loop() is loop))
        loop.stop()

    assert loop.add_signal_handler(signal.SIGUSR1, handler, 1, 2) is None
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert seen == [((1, 2), True)]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True


def test_signal_wakes_a_blocked_loop(loop, later):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(later(signal.SIGUSR1))
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_handler_runs_once_per_delivery_and_each_signal_has_its_own(loop, turn):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR1)
    turn(3)
    assert seen == [1, 2, 1]
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR2)


def test_second_handler_replaces_the_first(loop, turn):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 2)
    signal.raise_signal(signal.SIGUSR1)
    turn(3)
    assert seen == [2]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_exception_in_a_handler_is_reported(loop, turn, reports):
    def bad():
        raise ValueError("bad handler")

    loop.add_signal_handler(signal.SIGUSR1, bad)
    signal.raise_signal(signal.SIGUSR1)
    turn(3)
    (report,) = reports.take()
    assert str(report["exception"]) == "bad handler"
    loop.remove_signal_handler(signal.SIGUSR1)


def test_removal_restores_the_default(loop):
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.add_signal_handler(signal.SIGINT, int)
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_closing_the_loop_removes_the_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_remove_without_a_handler(loop):
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_wrong_signals(loop, method):
    args = [int] if method.startswith("add") else []
    with pytest.raises(TypeError, match="^sig must be an int, not 'x'$"):
        getattr(loop, method)("x", *args)
    with pytest.raises(ValueError, match="^invalid signal number 1000$"):
        getattr(loop, method)(1000, *args)
    with pytest.raises(ValueError, match="^invalid signal number -1$"):
        getattr(loop, method)(-1, *args)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_that_cannot_be_caught(loop, kind):
    with pytest.raises(RuntimeError, match=f"^sig {int(kind)} cannot be caught$"):
        loop.add_signal_handler(kind, int)
    assert loop.remove_signal_handler(kind) is False


def test_coroutine_functions_are_refused(loop):
    async def handler():
        pass

    message = r"^coroutines cannot be used with add_signal_handler\(\)$"
    with pytest.raises(TypeError, match=message):
        loop.add_signal_handler(signal.SIGUSR1, handler)
    coro = handler()
    with pytest.raises(TypeError, match=message):
        loop.add_signal_handler(signal.SIGUSR1, coro)
    coro.close()


def test_only_the_main_thread_can_add_handlers(loop):
    errors = []

    def other():
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
        except RuntimeError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "main thread" in errors[0]
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


# --- Ctrl-C


def test_keyboard_interrupt_in_a_callback_leaves_the_loop_usable(loop, turn):
    seen = []
    loop.call_soon(signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    loop.call_soon(seen.append, 1)
    turn()
    assert seen == [1]


def test_keyboard_interrupt_of_a_blocked_loop(loop, turn, later):
    seen = []
    loop.call_later(3600, seen.append, "never").cancel()
    loop.call_soon(later(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.call_soon(seen.append, 1)
    turn()
    assert seen == [1]


def test_keyboard_interrupt_of_a_busy_loop(loop, later):
    spinning = True

    def spin():
        if spinning:
            loop.call_soon(spin)

    loop.call_soon(spin)
    loop.call_soon(later(signal.SIGINT, blocked=False))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    spinning = False
    loop.stop()
    loop.run_forever()


def test_keyboard_interrupt_of_tasks_that_only_sleep_zero(loop, later):
    async def spin():
        while True:
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    loop.call_soon(later(signal.SIGINT, blocked=False))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    if not task.done():
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    else:
        assert isinstance(task.exception(), KeyboardInterrupt)
        task.exception().__traceback__ = None


def test_exception_of_a_python_signal_handler_leaves_a_blocked_loop(loop, later):
    class Mine(Exception):
        pass

    def handler(signum, frame):
        raise Mine

    signal.signal(signal.SIGUSR1, handler)
    loop.call_soon(later(signal.SIGUSR1))
    with pytest.raises(Mine):
        loop.run_forever()
    assert not loop.is_running()


def test_python_signal_handler_that_returns_does_not_end_the_loop(loop, later):
    seen = []
    handled = threading.Event()

    def handler(signum, frame):
        seen.append(signum)
        handled.set()

    def stop():
        handled.wait()
        loop.call_soon_threadsafe(seen.append, "the loop goes on")
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=stop)
    thread.start()
    loop.call_soon(later(signal.SIGUSR1))
    loop.run_forever()
    thread.join()
    assert seen == [signal.SIGUSR1, "the loop goes on"]


def test_ctrl_c_under_a_runner_cancels_the_main_task(impl, later):
    seen = []

    async def main():
        try:
            asyncio.get_running_loop().call_soon(later(signal.SIGINT))
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        impl.run(main())
    assert seen == ["cancelled", "cleaned up"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_under_a_runner_is_immediate(impl):
    async def main():
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached") from None

    with pytest.raises(KeyboardInterrupt):
        impl.run(main())


def test_main_task_that_swallows_ctrl_c_returns_its_result(impl, later):
    async def main():
        asyncio.get_running_loop().call_soon(later(signal.SIGINT))
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "swallowed"

    assert impl.run(main()) == "swallowed"


def test_ctrl_c_of_a_program(script):
    out = script("""
        import os, signal
        async def main():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(30)
            finally:
                print("finally", flush=True)
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert out.out == "finally\ninterrupted\n"


# --- among other work


def test_keyboard_interrupt_of_a_loop_that_only_moves_bytes(loop, later):
    # The callbacks are the transports' own; Python code runs for a moment at a time only.
    class Reader(asyncio.Protocol):
        def data_received(self, data):
            writer.write(data)

    async def connect():
        reading, writing = os.pipe()
        reader, _ = await loop.connect_read_pipe(Reader, open(reading, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0))
        return reader, writer

    reader, writer = loop.run_until_complete(connect())
    writer.write(b"round and round")
    loop.call_soon(later(signal.SIGINT, blocked=False))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    reader.close()
    writer.close()
    loop.run_until_complete(asyncio.sleep(0.001))


THREAD_WAITS = pytest.mark.skipif(
    STOCK and sys.version_info < (3, 12),
    reason="asyncio's thread, which waits for the child, keeps the loop for a moment longer",
)


@THREAD_WAITS
def test_signal_while_a_subprocess_is_waited_for(loop, later):
    seen = []

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
        loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), process.stdin.close()))
        loop.call_soon(later(signal.SIGUSR1))
        return await process.wait()

    assert loop.run_until_complete(main()) == 0
    assert seen == [1]
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0))


@THREAD_WAITS
def test_signal_that_a_subprocess_gets_as_well(loop, later):
    # As Ctrl-C at a terminal: both are told.
    seen = []

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
        loop.add_signal_handler(
            signal.SIGINT, lambda: (seen.append(1), process.send_signal(signal.SIGINT))
        )
        loop.call_soon(later(signal.SIGINT))
        return await process.wait()

    assert loop.run_until_complete(main()) == -signal.SIGINT
    assert seen == [1]
    loop.remove_signal_handler(signal.SIGINT)
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("does", ["stop", "call_soon", "call_later", "raise"])
def test_signal_that_comes_before_the_wait_while_no_python_code_runs(loop, does):
    """The C library sends it, in a callback: the kernel interrupts nothing."""

    def handler(signum, frame):
        seen.append("signal")
        if does == "stop":
            loop.stop()
        elif does == "call_soon":
            loop.call_soon(loop.stop)
        elif does == "call_later":
            loop.call_later(0.001, loop.stop)
        else:
            raise KeyboardInterrupt

    seen = []
    signal.signal(signal.SIGUSR1, handler)
    start = loop.time()
    late = loop.call_later(30, lambda: (seen.append("late"), loop.stop()))
    loop.call_soon(getattr(ctypes.CDLL(None), "raise"), int(signal.SIGUSR1))
    with pytest.raises(KeyboardInterrupt) if does == "raise" else contextlib.nullcontext():
        loop.run_forever()
    assert seen == ["signal"]
    assert loop.time() - start < 20
    late.cancel()


@pytest.mark.ctask_only  # asyncio's pair of sockets is made with the loop
def test_a_handler_that_could_not_be_added_is_added_later(loop, until):
    def fails(*args):
        raise OSError(errno.ENOSPC, "no more descriptors can be watched")

    seen = []
    loop._add_reader = fails
    with pytest.raises(OSError, match="no more descriptors"):
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    del loop._add_reader
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    until(lambda: seen)
    assert seen == [2]
    loop.remove_signal_handler(signal.SIGUSR1)
