"""create_subprocess_exec() after install(), of a child that inherits all: asyncio's to all."""

import asyncio
import collections
import gc
import os
import sys
import types
from asyncio import streams
from asyncio.subprocess import Process, SubprocessStreamProtocol

import pytest

pytestmark = [pytest.mark.ctask_only, pytest.mark.usefixtures("no_zombies", "installed")]

in_c = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="before, Popen() does not use posix_spawn()"
)
stock_exec = asyncio.create_subprocess_exec  # this module is imported before install()


async def true():
    return await asyncio.create_subprocess_exec("/bin/true")


async def life():
    process = await true()
    assert await process.wait() == 0
    for _ in range(3):
        await asyncio.sleep(0)


@in_c
def test_little_python_runs(run):
    names = []

    def note(frame, event, arg):
        if event == "call":
            names.append(frame.f_code.co_name)

    async def main():
        await life()
        sys.setprofile(note)
        try:
            await life()
        finally:
            sys.setprofile(None)

    run(main())
    assert set(names) <= {"main", "life", "true", "wait", "get_event_loop_policy"}


def described(obj):
    """The attributes in their order, with their values or, where these are new, their types."""
    known = (type(None), bool, int, str)
    return [
        (name, value if isinstance(value, known) and name not in ("pid", "_pid") else type(value))
        for name, value in vars(obj).items()
    ]


def test_objects_have_what_asyncios_code_gives_them(run):
    async def life_by(create):
        process = await create("/bin/true")
        protocol, transport = process._protocol, process._transport
        assert type(process) is Process and type(protocol) is SubprocessStreamProtocol
        assert protocol._transport is transport and transport.get_protocol() is protocol
        assert process._loop is protocol._loop is asyncio.get_running_loop()
        assert process.pid == transport.get_pid() and repr(process) == f"<Process {process.pid}>"
        told = [described(process), described(protocol)]
        assert await process.wait() == 0
        assert transport.is_closing()
        for _ in range(3):
            await asyncio.sleep(0)
        assert protocol._transport is None and transport.get_protocol() is None
        assert await process.wait() == process.returncode == 0
        return [*told, described(process), described(protocol)]

    async def main():
        assert await life_by(asyncio.create_subprocess_exec) == await life_by(stock_exec)

    run(main())


def test_each_has_its_own(run):
    async def main():
        one, two = await true(), await true()
        for name in ("_pipe_fds", "_drain_waiters", "_stdin_closed"):
            assert getattr(one._protocol, name) is not getattr(two._protocol, name)
        assert type(one._protocol._drain_waiters) is collections.deque
        assert not one._protocol._stdin_closed.done()
        assert [await one.wait(), await two.wait()] == [0, 0]
        assert await one.communicate() == (None, None)

    run(main())


@pytest.mark.parametrize("name", ["Process", "SubprocessStreamProtocol"])
def test_a_class_that_the_program_put_in_place_is_used(run, monkeypatch, name):
    mine = type(name, (getattr(asyncio.subprocess, name),), {})

    async def main():
        await life()
        monkeypatch.setattr(asyncio.subprocess, name, mine)
        process = await true()
        assert mine in (type(process), type(process._protocol))
        assert await process.wait() == 0
        monkeypatch.undo()
        process = await true()
        assert mine not in (type(process), type(process._protocol))
        await process.wait()

    run(main())


METHODS = [
    (SubprocessStreamProtocol, "__init__"),
    (streams.FlowControlMixin, "__init__"),
    (SubprocessStreamProtocol, "connection_made"),
    (SubprocessStreamProtocol, "process_exited"),
    (SubprocessStreamProtocol, "_maybe_close_transport"),
    (SubprocessStreamProtocol, "connection_lost"),
    (streams.FlowControlMixin, "connection_lost"),
    (Process, "__init__"),
    (Process, "wait"),
]


@pytest.mark.parametrize("cls, name", METHODS, ids=lambda it: getattr(it, "__name__", it))
def test_a_method_that_the_program_replaced_is_called(run, monkeypatch, cls, name):
    called = []
    original = getattr(cls, name)

    def mine(self, *args, **kwargs):
        called.append(name)
        return original(self, *args, **kwargs)

    async def main():
        await life()
        with monkeypatch.context() as patch:
            patch.setattr(cls, name, mine)
            await life()
            await life()
        assert called == [name, name]
        await life()

    run(main())
    assert called == [name, name]


@pytest.mark.parametrize("name", ["process_exited", "_maybe_close_transport", "connection_lost"])
def test_a_method_that_is_replaced_on_the_protocol_is_called(run, name):
    called = []

    async def main():
        process = await true()
        original = getattr(process._protocol, name)

        def mine(*args):
            called.append(args)
            original(*args)

        setattr(process._protocol, name, mine)
        await process.wait()
        for _ in range(3):
            await asyncio.sleep(0)

    run(main())
    assert called == [(None,) if name == "connection_lost" else ()]


def test_attributes_that_the_classes_have_are_set_through_them(run, monkeypatch):
    told = []

    def pid(process, value):
        told.append(value)
        vars(process)["pid"] = value

    async def main():
        await life()
        monkeypatch.setattr(Process, "pid", property(lambda self: 7, pid), raising=False)
        process = await true()
        assert process.pid == 7 and told == [process._transport.get_pid()]
        await process.wait()

    run(main())


def test_a_protocol_that_is_paused_wakes_who_waits_for_it(run):
    async def main():
        process = await true()
        process._protocol.pause_writing()
        waits = asyncio.create_task(process._protocol._drain_helper())
        assert await process.wait() == 0
        assert await waits is None

    run(main())


def test_subprocess_exec_of_the_loop_is_called_if_it_was_replaced(run, loop):
    called = []
    original = loop.subprocess_exec

    async def mine(*args, **kwargs):
        called.append(args[1:])
        return await original(*args, **kwargs)

    loop.subprocess_exec = mine
    try:
        run(life())
    finally:
        del loop.subprocess_exec
    assert called == [("/bin/true",)]


def test_what_the_program_changes_while_the_child_starts_counts(run, loop, monkeypatch):
    mine = type("Mine", (Process,), {})

    async def main():
        await life()
        loop.call_soon(monkeypatch.setattr, asyncio.subprocess, "Process", mine)
        process = await true()
        assert type(process) is mine
        assert await process.wait() == 0

    run(main())


def test_in_debug_mode(run, loop):
    loop.set_debug(True)
    try:
        run(life())
    finally:
        loop.set_debug(False)


def test_without_a_running_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.create_subprocess_exec("/bin/true").send(None)


def test_without_a_program():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'program'"):
        asyncio.create_subprocess_exec()


def test_arguments_that_are_refused(run):
    async def main():
        for program in ("/no/such/program", b"/no/such/program", "no such program"):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec(program)
        for program in (3, None, ("/bin/true",)):
            with pytest.raises(TypeError):
                await asyncio.create_subprocess_exec(program)
        with pytest.raises(ValueError, match="embedded null"):
            await asyncio.create_subprocess_exec("/bin/true", "a\0")

    run(main())
    gc.collect()


def test_programs_that_are_no_plain_text(run, tmp_path):
    async def main():
        for program in (b"/bin/true", "true", type("Text", (str,), {})("/bin/true")):
            process = await asyncio.create_subprocess_exec(program)
            assert await process.wait() == 0

    run(main())


def test_a_start_that_is_cancelled_kills_the_child(run, loop):
    async def main():
        before = os.listdir("/proc/self/fd")
        task = loop.create_task(asyncio.create_subprocess_exec("/bin/sleep", "60"))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        await asyncio.sleep(0)
        assert os.listdir("/proc/self/fd") == before

    run(main())


def test_a_start_that_fails_says_so_when_the_child_has_ended(run):
    class Enough(Exception):
        pass

    @types.coroutine
    def main():
        coro = asyncio.create_subprocess_exec("/bin/sleep", "60")
        assert coro.send(None) is None
        yield
        with pytest.raises(Enough):
            fut = coro.throw(Enough)
            while True:
                yield fut
                fut = coro.send(None)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    async def task():
        await main()

    run(task())


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_start_that_nobody_goes_on_with_kills_the_child(run, loop, how):
    async def main():
        coro = asyncio.create_subprocess_exec("/bin/sleep", "60")
        assert coro.send(None) is None
        if how == "close":
            coro.close()
        del coro
        gc.collect()
        while True:
            try:
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                    break
            except ChildProcessError:
                break
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0.001)

    run(main())
