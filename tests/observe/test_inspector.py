"""inspect(): the socket, who is answered, and what a hostile peer cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import ctask
from ctask.observe import client, inspector

pytestmark = pytest.mark.ctask_only

QUESTION = b'{"ctask": 1, "ask": "tasks"}\n'
SERVER = """
import asyncio, ctask, socket, sys
async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
ctask.run(main())
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the sockets of this test are."""
    runtime = tmp_path / "run"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "ctask"


@pytest.fixture
def started(place):
    """Starts a program that can be asked; it is killed at the end."""
    programs = []

    def start(code, how="1", **kwargs):
        program = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "CTASK_INSPECT": how},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **kwargs,
        )
        programs.append(program)
        return program, program.stdout.readline().strip()

    yield start
    for program in programs:
        program.kill()
        with program:
            pass


@pytest.fixture
def serving(place):
    """A server in this process, and what connects to it."""
    ours = inspector.Inspector()
    ours.start()

    @contextlib.contextmanager
    def connect():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(ours.path)
            yield sock

    connect.ours = ours
    yield connect
    ours.stop()


def line_from(sock):
    line = b""
    while not line.endswith(b"\n"):
        data = sock.recv(1 << 16)
        if not data:
            break
        line += data
    return line


def answer_of(pid):
    """What a process answers, once it does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.ask(pid)
        except client.AskError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def ask(sock, question=QUESTION):
    sock.sendall(question)
    return json.loads(line_from(sock))


# ---- what is answered ----


def test_as_many_tasks_as_are_asked_for(serving):
    async def main():
        def look():
            with serving() as sock:
                line = b'{"ctask": 1, "ask": "tasks", "most": 2, "deadlocks": true}\n'
                return ask(sock, line), ask(sock)

        tasks = [asyncio.create_task(asyncio.sleep(50)) for _ in range(3)]
        try:
            return await asyncio.get_running_loop().run_in_executor(None, look)
        finally:
            for task in tasks:
                task.cancel()

    for answer, (n, left_out) in zip(ctask.run(main()), [(2, 2), (4, 0)], strict=True):
        (loop,) = answer["loops"]
        assert (len(loop["tasks"]), loop["left_out"]) == (n, left_out)


def test_the_tasks_of_the_process(serving):
    async def main():
        def look():
            with serving() as sock:
                while ask(sock)["loops"][0]["tasks"][0]["state"] == "running":
                    pass  # it has not come to its wait
                return ask(sock), ask(sock)

        return await asyncio.get_running_loop().run_in_executor(None, look)

    for answer in ctask.run(main()):
        assert (answer["ctask"], answer["version"]) == (1, ctask.__version__)
        assert answer["pid"] == os.getpid()
        (loop,) = [one for one in answer["loops"] if one["thread"] == "MainThread"]
        (task,) = loop["tasks"]
        assert task["waits_for"]["kind"] == "thread"
        assert task["frames"][0]["file"] == __file__
        assert loop["counters"]["tasks_pending"] == 1


def test_while_the_loop_is_blocked_it_says_by_what(serving):
    blocked, done = threading.Event(), threading.Event()
    answers = []

    def look():
        blocked.wait()
        with serving() as sock:
            answers.append(ask(sock))
            answers.append(ask(sock))
        done.set()

    def something_slow():
        blocked.set()
        done.wait()

    async def main():
        something_slow()

    thread = threading.Thread(target=look)
    thread.start()
    ctask.run(main())
    thread.join()
    for answer in answers:
        (loop,) = [one for one in answer["loops"] if one["thread"] == "MainThread"]
        assert loop["state"] == "busy"
        assert loop["blocked"] >= 0.1
        names = [frame["name"].rpartition(".")[2] for frame in loop["stack"]]
        assert names[:2] == ["main", "something_slow"]
    first, second = (answer["loops"][0]["blocked"] for answer in answers)
    assert second >= first


def test_an_answer_has_an_end(serving, monkeypatch):
    monkeypatch.setattr(inspector, "MAX_ANSWER", 2000)

    async def main():
        tasks = [asyncio.ensure_future(ctask.sleep(50)) for _ in range(50)]
        await ctask.sleep(0)

        def look():
            with serving() as sock:
                return ask(sock)

        answer = await asyncio.get_running_loop().run_in_executor(None, look)
        for task in tasks:
            task.cancel()
        await ctask.wait(tasks)
        return answer

    (loop,) = ctask.run(main())["loops"]
    assert 0 < len(loop["tasks"]) < 50
    assert len(loop["tasks"]) + loop["left_out"] == 51


# ---- the socket ----


def test_the_socket_is_for_the_user_alone_and_goes_at_the_end(place, started):
    program, _ = started("import ctask; print(flush=True); input()")
    (path,) = place.iterdir()
    assert path.name == f"{program.pid}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    program.communicate("\n")
    assert program.returncode == 0
    assert list(place.iterdir()) == []


def test_nothing_is_there_before_it_is_asked_for(place, started):
    code = "import ctask, sys, threading; print('ctask.observe' in sys.modules, "
    code += "threading.active_count(), flush=True)"
    assert started(code, how="")[1] == "False 1"
    assert started(code, how="0")[1] == "False 1"
    assert not place.exists()


def test_what_is_left_of_the_dead_goes(serving, place):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (place / f"{dead.pid}.sock").touch()
    (place / "other").touch()
    serving.ours.stop()
    (place / f"{os.getpid()}.sock").touch()  # of one of this number that was killed
    serving.ours.start()
    assert sorted(path.name for path in place.iterdir()) == [f"{os.getpid()}.sock", "other"]
    with serving() as sock:
        assert "error" not in ask(sock)


@pytest.mark.parametrize("wrong", ["mode", "link", "file"])
def test_a_directory_that_others_may_have_made_is_not_used(place, tmp_path, monkeypatch, wrong):
    if wrong == "mode":
        place.mkdir()
        place.chmod(0o755)
    elif wrong == "link":
        (tmp_path / "else").mkdir(0o700)
        place.symlink_to(tmp_path / "else")
    else:
        place.touch()
    monkeypatch.setattr(inspector, "places", lambda uid, environ: [str(place)])
    with pytest.raises(OSError) as refused:
        inspector.Inspector().start()
    assert str(place) in str(refused.value)


def test_a_path_that_is_too_long_for_a_socket(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    other = tmp_path / "other"
    places = [*inspector.places(1, dict(os.environ))][:1] + [str(other)]
    monkeypatch.setattr(inspector, "places", lambda uid, environ: places)
    ours = inspector.Inspector()
    ours.start()
    assert os.path.dirname(ours.path) == str(other)
    ours.stop()


def test_a_signal_opens_it(place, started):
    program, port = started(SERVER, how="SIGUSR2")
    assert not place.exists()
    with pytest.raises(client.AskError) as refused:
        client.ask(program.pid)
    assert f"kill -USR2 {program.pid}" in str(refused.value)
    program.send_signal(signal.SIGUSR2)
    assert answer_of(program.pid)["pid"] == program.pid
    program.send_signal(signal.SIGUSR2)
    assert client.ask(program.pid)["pid"] == program.pid


def test_what_the_environment_asks_for_in_vain_is_one_line(started, place):
    for how in "SIGNONE", "yes":
        program, said = started("import ctask; print('runs')", how=how, stderr=subprocess.PIPE)
        assert said == "runs"
        (line,) = program.stderr.read().splitlines()
        assert line.startswith("ctask: CTASK_INSPECT: ")


def test_a_forked_child_is_asked_under_its_own_number(place, started):
    code = """
import os, sys, warnings, ctask
warnings.simplefilter("ignore")
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(w)
    os.read(r, 1)
    os._exit(0)
print(pid, flush=True)
input()
os.close(w)
os.waitpid(pid, 0)
input()
"""
    program, child = started(code)
    for pid in program.pid, int(child):
        assert answer_of(pid)["pid"] == pid
    program.stdin.write("\n")
    program.stdin.flush()
    while os.path.exists(f"/proc/{child}"):
        time.sleep(0.01)
    assert client.ask(program.pid)["pid"] == program.pid
    with pytest.raises(client.AskError) as refused:
        client.ask(int(child))
    assert f"no process {child}" in str(refused.value)


# ---- other users ----


def test_another_user_is_not_answered(serving):
    serving.ours.server.peer = lambda sock: os.geteuid() + 1
    with serving() as sock:
        assert json.loads(line_from(sock))["error"] == "another user's process"
    serving.ours.server.peer = inspector.peer_uid
    with serving() as sock:
        assert "error" not in ask(sock)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_process_of_another_user_is_not_answered(monkeypatch):
    code = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    print(sock.recv(1000).decode())
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        place = os.path.join(folder, "ctask")
        monkeypatch.setattr(inspector, "places", lambda uid, environ: [place])
        ours = inspector.Inspector()
        ours.start()
        child = [sys.executable, "-c", code, ours.path]
        kept_out = subprocess.run(child, capture_output=True, text=True)
        assert "PermissionError" in kept_out.stderr
        for path in place, ours.path:
            os.chmod(path, 0o777)
        refused = subprocess.run(child, capture_output=True, text=True)
        ours.stop()
    assert json.loads(refused.stdout)["error"] == "another user's process"


# ---- attacks ----


@pytest.mark.parametrize(
    "question, error",
    [
        (b"\n", "a line of JSON was expected"),
        (b"\x00\xff\n", "a line of JSON was expected"),
        (b"[" * 4000 + b"\n", "a line of JSON was expected"),
        (b"[]\n", "a JSON object was expected"),
        (b'{"ctask": 2, "ask": "tasks"}\n', "another protocol"),
        (b'{"ctask": 1, "ask": "exit"}\n', "an unknown question"),
        (b'{"ctask": 1, "ask": "tasks", "most": 0}\n', "1 to 10000 tasks can be looked at"),
        (b'{"ctask": 1, "ask": "tasks", "most": 10001}\n', "1 to 10000 tasks can be looked at"),
        (b'{"ctask": 1, "ask": "tasks", "most": "1"}\n', "1 to 10000 tasks can be looked at"),
        (b"x" * 5000, "the question is too long"),
    ],
)
def test_what_is_no_question(serving, question, error):
    with serving() as sock:
        assert ask(sock, question)["error"] == error
    with serving() as sock:
        assert "error" not in ask(sock)


def test_half_a_question_and_an_answer_that_nobody_takes(serving, monkeypatch):
    monkeypatch.setattr(inspector, "TIMEOUT", 0.05)
    with serving() as half, serving() as silent:
        half.sendall(QUESTION[:10])
        assert half.recv(10) == b""
        assert silent.recv(10) == b""
    monkeypatch.undo()


def test_many_questions_at_once_are_not_all_answered(serving):
    with serving() as sock:
        sock.sendall(QUESTION * 20)
        with contextlib.suppress(ConnectionResetError):
            answered = 0
            while line := line_from(sock):
                answered += line.count(b"\n")
    assert answered <= 1
    with serving() as sock:
        assert "error" not in ask(sock)


def test_more_connections_than_are_served(serving):
    with contextlib.ExitStack() as stack:
        for _ in range(inspector.MAX_CONNECTIONS):
            ask(stack.enter_context(serving()))
        with serving() as sock:
            assert json.loads(line_from(sock))["error"].startswith("too many")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with serving() as sock, contextlib.suppress(OSError):
            if "error" not in ask(sock):
                break
    else:
        raise AssertionError("the places were not free again")


def test_a_program_goes_on_while_its_socket_is_attacked(place, started):
    program, port = started(SERVER)
    path = str(place / f"{program.pid}.sock")
    attacks = [b"", b"\x00" * 5000, QUESTION[:-1], QUESTION, b"{" * 4096, QUESTION * 3]
    with socket.create_connection(("127.0.0.1", int(port))) as echo, contextlib.ExitStack() as all:
        echo.settimeout(60)
        for i in range(1000):
            sock = all.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.connect(path)
                sock.sendall(attacks[i % len(attacks)])
            if i % 3:
                sock.close()
            if i % 20 == 0:
                echo.sendall(b"%d" % i)
                assert echo.recv(100) == b"%d" % i
    assert answer_of(program.pid)["pid"] == program.pid  # the last of them is forgotten
    fds = len(os.listdir(f"/proc/{program.pid}/fd"))
    assert fds < 30
    assert program.poll() is None
