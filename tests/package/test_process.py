"""Subprocesses: their exit, their pipes, and what Popen takes."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from conftest import STOCK

PIPE = subprocess.PIPE

pytestmark = pytest.mark.usefixtures("no_zombies")


@pytest.fixture(autouse=True)
def no_watcher_of_another_loop():
    """Up to 3.13 asyncio keeps one child watcher for all loops; 3.11's wants an attached loop."""
    yield
    if sys.version_info < (3, 14):
        watcher = asyncio.get_event_loop_policy()._watcher
        for thread in list(getattr(watcher, "_threads", {}).values()):
            thread.join()
        del watcher
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_child_watcher(None)


async def output(*args, code=0, **kwargs):
    process = await asyncio.create_subprocess_exec(*args, stdout=PIPE, **kwargs)
    out, _ = await process.communicate()
    assert process.returncode == code
    return out


def sh(text, **kwargs):
    return output("/bin/sh", "-c", text, **kwargs)


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_exit_status(run, code):
    async def main():
        process = await asyncio.create_subprocess_shell(f"exit {code}")
        assert await process.wait() == code
        assert process.returncode == code
        assert await process.wait() == code

    run(main())


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_signals_end_it_with_a_negative_status(run, kind):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        assert process.returncode is None
        if kind == signal.SIGTERM:
            process.terminate()
        elif kind == signal.SIGKILL:
            process.kill()
        else:
            process.send_signal(kind)
        assert await process.wait() == -kind

    run(main())


def test_sending_a_signal_after_the_end(run, loop):
    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            loop.call_soon(self.lost.set_result, None)

    async def main():
        transport, protocol = await loop.subprocess_exec(Protocol, "/bin/true")
        await protocol.lost
        for send in (transport.kill, transport.terminate, lambda: transport.send_signal(15)):
            with pytest.raises(ProcessLookupError):
                send()
        transport.close()

    run(main())


def test_order_of_the_protocols_callbacks(run, loop):
    calls = []

    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.lost = loop.create_future()

        def connection_made(self, transport):
            assert asyncio.get_running_loop() is loop
            calls.append("made")
            self.transport = transport

        def pipe_data_received(self, fd, data):
            calls.append((fd, data))

        def pipe_connection_lost(self, fd, exc):
            calls.append((fd, exc))

        def process_exited(self):
            calls.append("exited")
            assert self.transport.get_returncode() == 3

        def connection_lost(self, exc):
            calls.append(exc)
            self.lost.set_result(None)

    async def main():
        transport, protocol = await loop.subprocess_exec(
            Protocol, "/bin/sh", "-c", "printf out; printf err >&2; exit 3"
        )
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("subprocess").pid == transport.get_pid()
        stdin, stdout, stderr = map(transport.get_pipe_transport, range(3))
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(stdout, asyncio.ReadTransport)
        assert isinstance(stderr, asyncio.ReadTransport)
        assert transport.get_pipe_transport(3) is None
        await protocol.lost
        transport.close()

    run(main())
    assert calls[0] == "made"
    assert calls[-1] is None
    assert sorted(calls[1:-1], key=repr) == sorted(
        ["exited", (0, None), (1, None), (2, None), (1, b"out"), (2, b"err")], key=repr
    )
    assert calls.index((1, b"out")) < calls.index((1, None))


def test_communicate_moves_much_data_both_ways(run):
    data = bytes(range(256)) * 4096

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate(data)

    assert run(main()) == (data, None)


def test_communicate_with_a_child_that_does_not_read(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        return await process.communicate(b"x" * (1 << 20))

    assert run(main()) == (b"", None)


def test_streams(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        for n in range(20):
            process.stdin.write(b"line %d\n" % n)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"line %d\n" % n
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(main())


def test_many_at_once(run):
    async def main():
        return await asyncio.gather(*[sh(f"echo {n}") for n in range(20)])

    assert run(main()) == [b"%d\n" % n for n in range(20)]


def test_program_that_does_not_exist(run):
    async def main():
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no/such/program")

    run(main())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 1}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
        ({"shell": True}, "shell must be False"),
    ],
)
def test_arguments_that_are_refused(run, loop, arguments, message):
    async def main():
        with pytest.raises(ValueError, match=f"^{message}$"):
            await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/true", **arguments)

    run(main())


# --- what Popen takes


def test_umask_and_process_group(run):
    group = {} if sys.version_info < (3, 11) else {"process_group": 0}

    async def main():
        assert await sh("umask", umask=0o27) == b"0027\n"
        pid, pgid = (await sh("echo $$; cut -d' ' -f5 /proc/$$/stat", **group)).split()
        assert pid == pgid

    run(main())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may change the user")
def test_user_and_groups(run):
    async def main():
        assert await sh("id -u; id -g; id -G", user=65534, group=65533, extra_groups=[65532]) == (
            b"65534\n65533\n65533 65532\n"
        )

    run(main())


def test_preexec_fn_env_and_cwd(run, tmp_path):
    def before():
        os.environ["IGNORED"] = "x"
        os.chdir("/")
        os.umask(0o77)

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            text = "umask; echo $VALUE; echo $IGNORED; pwd"
            out = await sh(text, preexec_fn=before, env={"VALUE": "v"}, cwd=tmp_path)
        assert out == b"0077\nv\n\n/\n"

    run(main())


def test_exception_of_preexec_fn(run):
    def before():
        raise ValueError

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with pytest.raises(
                subprocess.SubprocessError, match="^Exception occurred in preexec_fn.$"
            ):
                await asyncio.create_subprocess_exec("/bin/true", preexec_fn=before)

    run(main())


def test_pipesize(run):
    import fcntl

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, pipesize=8192)
        pipe = process.stdin.get_extra_info("pipe")
        assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == 8192
        process.stdin.close()
        await process.wait()

    run(main())


def test_only_the_descriptors_that_are_passed_are_inherited(run, loop):
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)

    async def main():
        seen = await sh("ls /proc/$$/fd")
        passed = await sh(
            f"ls /proc/$$/fd; echo hello >/proc/self/fd/{writing}", pass_fds=(writing,)
        )
        return seen, passed

    seen, passed = run(main())
    assert set(seen.split()) <= {b"0", b"1", b"2"}
    assert b"%d" % writing in passed.split()
    assert os.read(reading, 10) == b"hello\n"
    os.close(reading)
    os.close(writing)


def test_pipes_can_be_opened_anew_by_the_child(run):
    assert run(sh("echo x >/proc/self/fd/1")) == b"x\n"


def test_descriptors_and_files_in_place_of_pipes(run, tmp_path):
    async def main():
        path = tmp_path / "out"
        with open(path, "wb") as file:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", "echo out; echo err >&2", stdout=file, stderr=subprocess.STDOUT
            )
            await process.wait()
        assert path.read_bytes() == b"out\nerr\n"
        assert await sh("echo err >&2", stderr=subprocess.STDOUT) == b"err\n"
        assert await sh("echo err >&2", stderr=subprocess.DEVNULL) == b""

    run(main())


# --- what is Popen's to the outside


@contextlib.contextmanager
def events_of(loop):
    """List the audit events of what is started within; events of the test-suite's own are not."""
    seen = EVENTS.setdefault(threading.get_ident(), [])
    seen.clear()
    if not EVENTS.get("hooked"):
        EVENTS["hooked"] = True
        sys.addaudithook(hook)
    yield seen
    del EVENTS[threading.get_ident()]


EVENTS = {}


def hook(name, args):
    seen = EVENTS.get(threading.get_ident())
    if seen is not None and name in ("subprocess.Popen", "os.posix_spawn", "os.fork", "open"):
        seen.append((name, args[1:] if name == "open" else args))  # not the descriptor
        if threading.get_ident() in CHANGING and name in ("subprocess.Popen", "os.posix_spawn"):
            args[1][-1] = "exit 5" if name == "subprocess.Popen" else "exit 6"


ARGUMENTS = {
    "path": {"args": ["/bin/true"]},
    "name": {"args": ["true"]},
    "name and env": {"args": ["true"], "env": {"PATH": "/nowhere:/bin"}},
    "path and env": {"args": ["/bin/true"], "env": {"A": "b"}},
    "bytes": {"args": [b"/bin/true", b"x"]},
    "null": {"args": ["/bin/true"], "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL},
    "pipes": {"args": ["/bin/true"], "stdin": PIPE, "stdout": PIPE, "stderr": PIPE},
    "one pipe for two": {"args": ["true"], "stdout": PIPE, "stderr": subprocess.STDOUT},
    "cwd": {"args": ["/bin/true"], "cwd": "/"},
    "no cwd": {"args": ["/bin/true"], "cwd": None, "pass_fds": (), "process_group": None},
    "session": {"args": ["/bin/true"], "start_new_session": True},
    "group": {"args": ["/bin/true"], "process_group": 0},
    "passed": {"args": ["/bin/true"], "pass_fds": (2,)},
    "umask": {"args": ["/bin/true"], "umask": 0o22},
}


@pytest.mark.parametrize("kwargs", ARGUMENTS.values(), ids=ARGUMENTS)
def test_popen_object_and_audit_events_are_those_of_popen(run, loop, kwargs):
    kwargs = {"stdin": None, "stdout": None, "stderr": None, **kwargs}
    args = kwargs.pop("args")

    async def main():
        with events_of(loop) as events:
            transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, *args, **kwargs)
            of_loop = list(events)
        process = transport.get_extra_info("subprocess")
        await transport._wait()
        with events_of(loop) as events:
            stock = subprocess.Popen(
                tuple(args), bufsize=0, universal_newlines=False, shell=False, **kwargs
            )
            of_popen = list(events)
        assert of_loop == of_popen
        stock.wait()
        assert type(process) is subprocess.Popen
        assert list(vars(process)) == list(vars(stock))
        for name, value in vars(stock).items():
            mine = getattr(process, name)
            assert type(mine) is type(value), name
            if name in ("stdin", "stdout", "stderr") and value is not None:
                assert mine.mode == value.mode
                value.close()
            elif name not in ("pid", "_waitpid_lock", "_devnull"):
                assert mine == value, name
        transport.close()
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("stdio", [None, PIPE])
def test_popen_that_is_asked_for_late_is_that_of_the_child(run, loop, stdio):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol,
            *("/bin/sh", "-c", "exit 3"),
            **dict.fromkeys(("stdin", "stdout", "stderr"), stdio),
        )
        assert await transport._wait() == 3
        transport.close()
        for _ in range(4):
            await asyncio.sleep(0)
        process = transport.get_extra_info("subprocess")
        assert process is transport.get_extra_info("subprocess")
        assert process.pid == transport.get_pid()
        assert list(process.args) == ["/bin/sh", "-c", "exit 3"]
        assert process.returncode == process.poll() == process.wait() == 3
        assert transport.get_extra_info("other", 7) == 7

    run(main())


def test_popen_that_is_asked_for_while_the_child_runs_is_told_of_its_end(run, loop):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "60")
        transport = process._transport
        popen = transport._proc
        assert popen is transport.get_extra_info("subprocess")
        assert popen.poll() is None
        process.kill()
        assert await process.wait() == -9
        assert popen.returncode == -9

    run(main())


def test_child_that_is_left_running_is_told_of(script):
    done = script("""
        NAMES = ("stdin", "stdout", "stderr")
        warnings.simplefilter("always")
        async def main():
            return await asyncio.get_running_loop().subprocess_exec(
                asyncio.SubprocessProtocol, "/bin/sleep", "60", **dict.fromkeys(NAMES))
        with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
            transport, _ = runner.run(main())
        pid = transport.get_pid()
        del transport, _, runner
        gc.collect()
        import subprocess
        subprocess._cleanup()
        print(pid)
    """)
    pid = int(done.out)
    assert f"unclosed transport <_UnixSubprocessTransport pid={pid} running>" in done.err
    assert f"subprocess {pid} is still running" in done.err


@pytest.mark.parametrize(
    "args",
    [[], ["x", "", "a b"], ["\u00e9", "\u65e5\u672c", "\udcff"], ["y"] * 200, [b"\xff"]],
    ids=len,
)
def test_arguments_arrive_as_they_were_given(run, tmp_path, args):
    path = tmp_path / "out"
    line = f'for a; do printf "%s\\n" "$a"; done >{path}'

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", line, "sh", *args)
        assert await process.wait() == 0

    run(main())
    assert path.read_bytes() == b"".join(os.fsencode(arg) + b"\n" for arg in args)


def test_a_child_without_pipes_has_default_signals_and_no_descriptor(run, tmp_path):
    path = tmp_path / "out"
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    line = f"grep SigIgn /proc/self/status >{path}; test -e /proc/self/fd/77 && echo 77 >>{path}"

    async def main():
        inherited, other = os.pipe()
        os.dup2(inherited, 77)
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", line)
        for fd in (inherited, other, 77):
            os.close(fd)
        assert await process.wait() == 1

    run(main())
    (ignored,) = path.read_text().splitlines()
    assert int(ignored.split()[1], 16) & 1 << signal.SIGPIPE - 1 == 0


def test_an_audit_hook_may_change_what_is_run(run, loop):
    """Before posix_spawn() has the arguments, as with Popen; then no more."""

    async def main():
        with events_of(loop) as events:
            CHANGING.add(threading.get_ident())
            try:
                process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 4")
            finally:
                CHANGING.clear()
            assert events
        assert await process.wait() == 5

    run(main())


CHANGING = set()


@pytest.mark.ctask_only
def test_a_child_that_inherits_all_runs_no_python_of_ctask_but_its_start(run):
    names = []

    def note(frame, event, arg):
        if event == "call" and os.sep + "ctask" + os.sep in frame.f_code.co_filename:
            names.append(frame.f_code.co_name)

    async def main():
        await (await asyncio.create_subprocess_exec("/bin/true")).wait()
        sys.setprofile(note)
        try:
            process = await asyncio.create_subprocess_exec("/bin/true")
            assert await process.wait() == 0
            del process
            await asyncio.sleep(0)
        finally:
            sys.setprofile(None)

    run(main())
    if sys.version_info >= (3, 13):  # before, Popen() does not use posix_spawn()
        assert set(names) <= {"subprocess_exec"}
    ended = {"_process_exited", "_try_finish", "_call_connection_lost", "_wait", "close", "__del__"}
    assert not ended & set(names)


def test_one_wait_is_cancelled_and_others_are_told(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "60")
        waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[1].cancel()
        await asyncio.sleep(0)
        assert waits[1].cancelled()
        process.kill()
        assert await asyncio.gather(waits[0], waits[2], process.wait()) == [-9, -9, -9]

    run(main())


FAILURES = {
    "no such program": {"args": ["/no/such/program"]},
    "no such name": {"args": ["no-such-program"]},
    "a folder": {"args": ["/usr"]},
    "no such folder to start in": {"args": ["/bin/true"], "cwd": "/no/such/folder"},
    "no program's format": {"args": ["FILE"]},
    "number": {"args": [5]},
    "null character": {"args": ["/bin/true\0"]},
    "null character in an argument": {"args": ["/bin/true", "\0"]},
    "variable": {"args": ["/bin/true"], "env": {"a=b": "c"}},
    "variable for a name": {"args": ["true"], "env": {"a=b": "c"}},
    "not an environment": {"args": ["/bin/true"], "env": 5},
    "stdout to stdout": {"args": ["/bin/true"], "stdout": subprocess.STDOUT},
    "no descriptor": {"args": ["/bin/true"], "stdin": 12345},
    "negative": {"args": ["/bin/true"], "stdin": -7},
    "unknown": {"args": ["/bin/true"], "unknown": 1},
    "group": {"args": ["/bin/true"], "process_group": "x"},
    "passed": {"args": ["/bin/true"], "pass_fds": 5},
    "passed nothing": {"args": ["/bin/true"], "pass_fds": None, "cwd": "/"},
}


@pytest.mark.parametrize("pipes", [False, True])
@pytest.mark.parametrize("kwargs", FAILURES.values(), ids=FAILURES)
def test_errors_are_those_of_popen_and_leave_nothing_open(run, loop, tmp_path, kwargs, pipes):
    file = tmp_path / "file"
    file.write_bytes(b"\0\0")
    file.chmod(0o755)
    kwargs = dict(zip(("stdin", "stdout", "stderr"), [PIPE if pipes else None] * 3)) | kwargs
    args = [str(file) if arg == "FILE" else arg for arg in kwargs.pop("args")]

    async def main():
        before = os.listdir("/proc/self/fd")
        errors = []
        for start in (
            lambda: loop.subprocess_exec(asyncio.SubprocessProtocol, *args, **kwargs),
            lambda: popen(tuple(args), bufsize=0, universal_newlines=False, **kwargs),
        ):
            try:
                await start()
            except Exception as error:
                found = (type(error), error.args, getattr(error, "filename", None))
                errors.append(found)
        gc.collect()
        assert len(errors) == 2
        assert errors[0] == errors[1]
        assert os.listdir("/proc/self/fd") == before

    async def popen(*args, **kwargs):
        subprocess.Popen(*args, **kwargs).wait()

    run(main())


def test_popen_that_the_program_put_in_place_is_called(run, monkeypatch):
    made = []

    class Mine(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", Mine)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert type(process._transport.get_extra_info("subprocess")) is Mine
        assert await process.wait() == 0

    run(main())
    (kwargs,) = made
    assert kwargs["bufsize"] == 0
    assert kwargs["universal_newlines"] is False


@pytest.mark.parametrize("name", ["__init__", "_execute_child", "_get_handles"])
def test_methods_of_popen_that_the_program_replaced_are_called(run, monkeypatch, name):
    called = []
    original = getattr(subprocess.Popen, name)

    def mine(self, *args, **kwargs):
        called.append(name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, name, mine)

    async def main():
        assert await (await asyncio.create_subprocess_exec("/bin/true")).wait() == 0

    run(main())
    assert called == [name]


def test_children_nobody_waited_for_are_reaped_at_the_next_start(run):
    left = subprocess.Popen(["/bin/true"])
    pid = left.pid
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    subprocess._active.append(left)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert left.returncode is not None
        assert await process.wait() == 0

    run(main())
    assert subprocess._active == []


def test_program_of_its_own_path_is_found_anew_when_path_changes(run, monkeypatch, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "program-of-this-test"
        file.write_text(f"#!/bin/sh\necho {folder}\n")
        file.chmod(0o755)

    async def main():
        for folder in ("a", "b"):
            monkeypatch.setenv("PATH", str(tmp_path / folder))
            assert await output("program-of-this-test") == f"{folder}\n".encode()

    run(main())


def test_descriptors_0_to_2_that_are_closed(script):
    done = script("""
        import os
        from subprocess import PIPE as P
        async def main():
            os.close(0)
            os.close(1)
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", "read x; echo $x; echo err >&2", stdin=P, stdout=P, stderr=P)
            assert await process.communicate(b"in\\n") == (b"in\\n", b"err\\n")
        with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
            runner.run(main())
    """)
    assert done.err == ""


@pytest.mark.ctask_only  # asyncio makes one for each child
@pytest.mark.parametrize("stdio", [None, PIPE])
def test_no_task_is_made_to_connect_the_pipes(run, stdio):
    import ctask

    async def main():
        before = ctask.stats().tasks_created
        process = await asyncio.create_subprocess_exec(
            "/bin/true", stdin=stdio, stdout=stdio, stderr=stdio
        )
        assert ctask.stats().tasks_created == before
        await process.wait()
        if stdio is not None:
            process.stdin.close()
            await process.stdin.wait_closed()
            assert await process.stdout.read() + await process.stderr.read() == b""

    run(main())


def test_loop_that_makes_tasks_or_connects_pipes_in_its_own_way(impl):
    seen = []

    class Loop(impl.EventLoop):
        def create_task(self, coro, **kwargs):
            seen.append(coro.__name__)
            return super().create_task(coro, **kwargs)

    class Other(impl.EventLoop):
        async def connect_read_pipe(self, *args):
            seen.append("read")
            return await super().connect_read_pipe(*args)

    async def main():
        assert await output("/bin/echo", "x") == b"x\n"

    for kind in (Loop, Other):
        with asyncio.Runner(loop_factory=kind) as runner:
            runner.run(main())
    assert seen.count("_connect_pipes") == 1
    assert seen.count("read") == 1


def test_loop_that_starts_and_watches_in_its_own_way(impl):
    seen = []

    class Mine(impl.EventLoop):
        async def _make_subprocess_transport(self, *args, **kwargs):
            seen.append("start")
            return await super()._make_subprocess_transport(*args, **kwargs)

        def _add_reader(self, *args):
            seen.append("add")
            return super()._add_reader(*args)

    async def main(loop):
        if type(loop) is not Mine:
            make = loop._make_subprocess_transport

            async def mine(*args, **kwargs):
                seen.append("start")
                return await make(*args, **kwargs)

            loop._make_subprocess_transport = mine
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    for kind in (Mine, impl.EventLoop):
        with asyncio.Runner(loop_factory=kind) as runner:
            runner.run(main(runner.get_loop()))
    assert seen.count("start") == 2
    assert STOCK or seen.count("add") == 1


@pytest.mark.ctask_only  # asyncio hangs up to 3.13.0
def test_pipe_that_cannot_be_connected(impl):
    class Loop(impl.EventLoop):
        def _make_read_pipe_transport(self, *args, **kwargs):
            raise ZeroDivisionError

    told = []

    class Protocol(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            told.append("made")

        def pipe_connection_lost(self, fd, exc):
            told.append(fd)

        def process_exited(self):
            told.append("exited")

        def connection_lost(self, exc):
            told.append("lost")

    async def main():
        before = os.listdir("/proc/self/fd")
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().subprocess_exec(Protocol, "/bin/cat")
        for _ in range(4):
            await asyncio.sleep(0)
        gc.collect()
        assert told == []
        assert STOCK or os.listdir("/proc/self/fd") == before

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


# --- the exit


def test_sigchld_is_left_to_the_program(run):
    seen = []
    saved = signal.signal(signal.SIGCHLD, lambda *args: seen.append(args[0]))
    try:
        assert run(sh("echo x")) == b"x\n"
        assert seen == [signal.SIGCHLD]
        assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, saved)


def test_loop_in_another_thread_needs_nothing_of_the_main_thread(impl):
    results = []

    def other():
        results.append(impl.run(sh("echo x; exit 2", code=2)))

    threads = [threading.Thread(target=other) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"x\n"] * 3


@pytest.mark.ctask_only  # asyncio uses threads up to 3.11
def test_no_thread_and_no_watcher_is_made(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        assert threading.active_count() == before
        if sys.version_info < (3, 14):
            assert asyncio.get_event_loop_policy()._watcher is None
        process.stdin.close()
        assert await process.wait() == 0

    before = threading.active_count()
    run(main())


@pytest.mark.ctask_only
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EMFILE])
def test_thread_waits_where_there_is_no_pidfd(run, monkeypatch, number):
    def refuse(pid, flags=0):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)

    async def main():
        assert await sh("echo x; exit 5", code=5) == b"x\n"
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        process.kill()
        assert await process.wait() == -9
        # The thread has done its work; let it end before threads are counted.
        for thread in threading.enumerate():
            if thread.name.startswith("ctask-waitpid"):
                thread.join()

    run(main())


@pytest.mark.ctask_only
@pytest.mark.parametrize("number", [-1, -5, 1 << 40])
def test_a_pidfd_that_is_no_descriptor_is_an_error(loop, monkeypatch, number):
    monkeypatch.setattr(os, "pidfd_open", lambda pid: number)
    with pytest.raises(ValueError, match=f"Invalid file descriptor: {number}"):
        loop._watch_child(object(), os.getpid())


def test_status_that_somebody_else_took(impl, run, logs):
    if impl.name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("a thread of asyncio's has taken it by then")

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        process.kill()
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255

    run(main())
    (record,) = logs.take()
    assert "will report returncode 255" in record.getMessage()


@pytest.mark.ctask_only  # asyncio says 255 and logs a warning
def test_status_that_close_took_is_not_lost(run, loop):
    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.exited = loop.create_future()

        def process_exited(self):
            self.exited.set_result(None)

    async def main():
        r, w = os.pipe()
        transport, protocol = await loop.subprocess_exec(
            Protocol, "/bin/sh", "-c", "read x; exit 6", stdin=r, stdout=None, stderr=None
        )
        os.close(r)
        os.close(w)
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        transport.close()
        await protocol.exited
        assert transport.get_returncode() == 6

    run(main())


@pytest.mark.skipif(
    STOCK and sys.version_info < (3, 14), reason="asyncio tells one iteration after it has asked"
)
def test_no_signal_is_sent_once_the_process_number_is_free(run, loop, monkeypatch):
    sent = []

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        waitpid, kill = os.waitpid, os.kill

        def reap(*args):
            result = waitpid(*args)
            loop.call_soon(send)
            return result

        def send():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(0)

        def note(*args):
            sent.append(process.returncode)
            kill(*args)

        monkeypatch.setattr(os, "waitpid", reap)
        monkeypatch.setattr(os, "kill", note)
        process.stdin.close()
        await process.wait()
        await asyncio.sleep(0)

    run(main())
    # The status is known by then.
    assert sent in ([], [0])


def test_close_kills_a_child_that_runs(run, loop):
    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(None)

    async def main():
        transport, protocol = await loop.subprocess_exec(Protocol, "/bin/cat")
        transport.close()
        assert transport.is_closing()
        await protocol.lost
        assert transport.get_returncode() == -9

    run(main())


def test_cancelled_while_it_starts(run, loop):
    # Its pipes are not connected yet: the child is killed and reaped before the error is seen.
    async def main():
        task = loop.create_task(asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    run(asyncio.sleep(0))


OLD_STOCK = STOCK and sys.version_info < (3, 14)


@pytest.fixture
def keeper():
    """create_subprocess_shell()'s arguments for a shell with a grandchild that has its pipes.

    The grandchild says that it is there, and ends when the test does."""
    r, w = os.pipe()
    command = f"(echo; exec cat </proc/self/fd/{r}) & wait"
    yield {"cmd": command, "pass_fds": [r], "stdout": PIPE, "stderr": PIPE}
    os.close(r)
    os.close(w)


@pytest.mark.skipif(OLD_STOCK, reason="asyncio hangs up to 3.13.0")
@pytest.mark.parametrize("turns", range(10))
def test_run_ends_when_a_child_was_starting(script, turns):
    done = script(f"""
        import subprocess
        warnings.simplefilter("ignore", ResourceWarning)  # debug builds show what is left open
        P = subprocess.PIPE
        async def start(*command):
            process = await asyncio.create_subprocess_exec(*command, stdin=P, stdout=P, stderr=P)
            await process.communicate()
        async def main(*command):
            task = asyncio.create_task(start(*command))
            for _ in range({turns}):
                await asyncio.sleep(0)
            raise KeyError  # all that is left is cancelled, in whichever state it is
        for command in (["/bin/true"], ["/bin/cat"], ["/bin/sleep", "0.002"]):
            try:
                with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
                    runner.run(main(*command))
            except KeyError:
                pass
        gc.collect()
    """)
    assert STOCK or done.err == ""  # asyncio may warn of a status that close() took


@pytest.mark.ctask_only  # asyncio goes on connecting, to pipes that nobody closes
@pytest.mark.parametrize("turns", range(8))
def test_cancelled_at_any_turn_of_its_start_leaves_nothing_open(run, loop, keeper, turns):
    before = set(os.listdir("/proc/self/fd"))

    async def main():
        task = loop.create_task(asyncio.create_subprocess_shell(**keeper, stdin=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            process = task.result()
            process._transport.close()
            await process.wait()
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(4):
            await asyncio.sleep(0)

    run(main())
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(OLD_STOCK, reason="asyncio waits for the pipes up to 3.13.0")
def test_wait_ends_with_the_child_though_a_grandchild_keeps_its_pipes(run, keeper):
    async def main():
        process = await asyncio.create_subprocess_shell(**keeper)
        await process.stdout.readline()
        waits = [asyncio.ensure_future(process.wait()) for _ in range(4)]
        await asyncio.sleep(0)
        waits.pop().cancel()
        process.kill()
        assert await asyncio.gather(*waits) == [-9] * 3
        assert await process.wait() == -9
        process._transport.close()
        for _ in range(4):
            await asyncio.sleep(0)

    run(main())


@pytest.mark.skipif(OLD_STOCK, reason="asyncio waits for the pipes up to 3.13.0")
def test_nothing_is_printed_when_the_program_ends_before_the_pipes(script):
    done = script("""
        import os, subprocess
        warnings.simplefilter("ignore", ResourceWarning)  # debug builds show what is left open
        P = subprocess.PIPE
        r, w = os.pipe()
        async def main():
            command = f"(echo; exec cat </proc/self/fd/{r}) & wait"
            process = await asyncio.create_subprocess_shell(
                command, pass_fds=[r], stdin=P, stdout=P, stderr=P)
            await process.stdout.readline()
            process.kill()
            assert await process.wait() == -9
        with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
            runner.run(main())
        gc.collect()
    """)
    assert done.err == ""


@pytest.mark.ctask_only  # asyncio waits for the child's end, or raises PermissionError
@pytest.mark.parametrize(
    "turns, factory",
    [(1, None)]
    # asyncio's task that connects the pipes takes more turns; a task factory has to see it.
    + [
        (turns, lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
        for turns in range(1, 5)
    ],
)
def test_nobody_waits_for_a_child_that_may_not_be_killed(
    run, loop, keeper, monkeypatch, turns, factory
):
    started = []
    loop.set_task_factory(factory)

    def refused(process, number):
        started.append(process)
        raise PermissionError

    async def main():
        task = loop.create_task(asyncio.create_subprocess_shell(**keeper, stdin=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        with monkeypatch.context() as patched:
            patched.setattr(subprocess.Popen, "send_signal", refused)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert started[0].poll() is None

    run(main())
    started[0].kill()
    started[0].wait()


@pytest.mark.ctask_only  # asyncio awaits in a coroutine that is closed
@pytest.mark.parametrize("turns", range(5))
def test_start_whose_coroutine_is_closed_half_way_ends_there(script, turns):
    done = script(f"""
        from subprocess import PIPE as P
        warnings.simplefilter("ignore")
        loop = impl.new_event_loop()
        start = asyncio.create_subprocess_exec("/bin/sleep", "60", stdin=P, stdout=P)
        async def turns():
            for _ in range({turns}):
                await asyncio.sleep(0)
        task = loop.create_task(start)
        loop.run_until_complete(turns())
        task._log_destroy_pending = False
        start.close()
        loop.run_until_complete(turns())
        del task, start
        gc.collect()
        loop.close()
    """)
    assert "Traceback" not in done.err


@pytest.mark.ctask_only  # up to 3.13.0 asyncio signals whoever has the number by then
def test_signals_to_a_child_that_has_ended_are_dropped(run, monkeypatch, keeper):
    sent = []

    async def main():
        process = await asyncio.create_subprocess_shell(**keeper)
        await process.stdout.readline()
        process.kill()
        await process.wait()
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", lambda *args: sent.append(args))
            process.kill()
            process.terminate()
            process.send_signal(signal.SIGUSR1)
        process._transport.close()
        for _ in range(4):
            await asyncio.sleep(0)

    run(main())
    assert sent == []


@pytest.mark.ctask_only  # asyncio does not close its pidfd
@pytest.mark.parametrize("derived", [False, True])
def test_closing_the_loop_closes_what_watched_a_child(impl, derived):
    loop = type("Loop", (impl.EventLoop,), {})() if derived else impl.new_event_loop()

    async def main():
        return await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "30", stdin=None, stdout=None, stderr=None
        )

    transport, _ = loop.run_until_complete(main())
    before = len(os.listdir("/proc/self/fd"))
    loop.close()
    assert len(os.listdir("/proc/self/fd")) == before - 3  # and epoll's and eventfd's
    process = transport.get_extra_info("subprocess")
    transport.close()
    process.wait()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 has no child watchers to set")
def test_watcher_that_the_program_set_is_used(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # 3.11's Pidfd and Threaded ones wait for each child as ctask does: those two may go unused.
        watched = []

        class Mine(asyncio.ThreadedChildWatcher):
            def add_child_handler(self, pid, callback, *args):
                watched.append(pid)
                super().add_child_handler(pid, callback, *args)

            def is_active(self):
                return active

        active = True
        watcher = Mine()
        asyncio.set_child_watcher(watcher)

        async def main():
            process = await asyncio.create_subprocess_exec("/bin/true")
            assert await process.wait() == 0
            assert watched == [process.pid]

        run(main())
        active = False

        async def refused():
            with pytest.raises(RuntimeError, match="is not activated"):
                await asyncio.create_subprocess_exec("/bin/true")

        run(refused())
        asyncio.set_child_watcher(None)
        for thread in list(watcher._threads.values()):
            thread.join()


def test_repr_and_debug_log(run, loop, caplog):
    loop.set_debug(True)

    async def main():
        with caplog.at_level("DEBUG", "asyncio"):
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
            transport = process._transport
            text = repr(transport)
            assert text.startswith(f"<_UnixSubprocessTransport pid={process.pid} running stdin=<")
            process.stdin.close()
            await process.wait()
            assert f"pid={process.pid} returncode=0" in repr(transport)

    run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert any(m.startswith("execute program '/bin/cat' stdin=<pipe>") for m in messages)
    assert any("process '/bin/cat' created: pid" in m for m in messages)
    assert any("exited with return code 0" in m for m in messages)
