"""`python -m ctask ps PID` and its relatives: what is printed, and what is said of mistakes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

import pytest

import ctask
from ctask.observe import client, commands, inspector, show

pytestmark = pytest.mark.ctask_only


def task(number, name, **more):
    return {
        "id": number,
        "name": name,
        "coroutine": name,
        "state": "waiting",
        "since": 1.5,
        "frames": [
            {"name": name, "file": "/srv/app.py", "line": number},
            {"name": "sleep", "file": "/usr/lib/python3.13/asyncio/tasks.py", "line": 703},
        ],
        "waits_for": {"kind": "timer", "what": "sleep()", "due": 3.0},
        "timeout": None,
        "awaits": [],
        "needs_all": True,
        "group": None,
        **more,
    }


def waits(kind, what):
    return {"kind": kind, "what": what, "due": None}


@pytest.fixture
def answer():
    loop = {
        "id": 7,
        "kind": "ctask._loop.EventLoop",
        "thread": "MainThread",
        "state": "idle",
        "stack": [],
        "left_out": 0,
        "counters": {},
        "blocked": None,
        "tasks": [
            task(1, "main", waits_for=waits("all", "gather()"), awaits=[2, 3]),
            task(2, "first"),
            task(3, "second", waits_for=waits("lock", "Lock"), awaits=[2], timeout=90.0),
            task(4, "child", group=2),
            task(5, "third", waits_for=waits("lock", "Lock"), awaits=[99]),
        ],
    }
    return {
        "ctask": 1,
        "version": "0.1.0",
        "python": "3.13.0",
        "pid": 999999,
        "when": 1.0,
        "deadlocks": [],
        "loops": [loop],
    }


def test_ps(answer):
    assert "\n".join(show.ps(answer)) == (
        """\
process 999999, ctask 0.1.0 on Python 3.13.0
MainThread: 5 tasks, idle

NAME    STATE    SINCE  COROUTINE  AT             WAITS FOR
main    waiting  1.5 s  main       /srv/app.py:1  gather(): first, second
first   waiting  1.5 s  first      /srv/app.py:2  sleep(), 3.0 s left
second  waiting  1.5 s  second     /srv/app.py:3  Lock, held by first; timeout in 1.5 min
child   waiting  1.5 s  child      /srv/app.py:4  sleep(), 3.0 s left
third   waiting  1.5 s  third      /srv/app.py:5  Lock, held by a task that is done"""
    )


def test_ps_in_a_narrow_terminal(answer):
    assert max(map(len, show.ps(answer, 60))) == 60


def test_in_80_columns_each_column_shows_something(answer):
    (loop,) = answer["loops"]
    for one in loop["tasks"]:
        one["coroutine"] = "RequestResponseCycle.run_asgi"
        one["frames"][0]["file"] = "/srv/shop/site-packages/uvicorn/protocols/http/server.py"
    for lines in list(show.ps(answer, 80)), list(show.top(None, answer, 80)):
        start = next(
            n for n, line in enumerate(lines) if line.startswith(("NAME", " TASKS", "TASKS"))
        )
        assert lines[start].endswith("WAITS FOR")
        for line in lines[start + 1 :]:
            assert len(line) <= 80
            assert re.search(r"\.\.\.\S*\.run_asgi ", line)
            assert re.search(r"\.\.\.\S*server\.py:\d ", line)
            assert re.search(r" (sleep|gather|Lock)", line)


def test_pstree(answer):
    answer["deadlocks"] = ["2 tasks wait for each other\n  a"]
    assert "\n".join(show.pstree(answer)) == (
        """\
process 999999, ctask 0.1.0 on Python 3.13.0
MainThread: 5 tasks, idle
DEADLOCK: 2 tasks wait for each other
  a

main  waiting, 1.5 s
│  main  /srv/app.py:1
│  sleep  asyncio/tasks.py:703
│  → gather(): first, second
├─ first  waiting, 1.5 s
│  │  first  /srv/app.py:2
│  │  sleep  asyncio/tasks.py:703
│  │  → sleep(), 3.0 s left
│  └─ child  waiting, 1.5 s
│        child  /srv/app.py:4
│        sleep  asyncio/tasks.py:703
│        → sleep(), 3.0 s left
└─ second  waiting, 1.5 s
      second  /srv/app.py:3
      sleep  asyncio/tasks.py:703
      → Lock, held by first; timeout in 1.5 min

third  waiting, 1.5 s
   third  /srv/app.py:5
   sleep  asyncio/tasks.py:703
   → Lock, held by a task that is done"""
    )


def test_pstree_of_a_circle_ends(answer):
    tasks = answer["loops"][0]["tasks"] = [
        task(1, "a", waits_for=waits("task", "a task"), awaits=[2]),
        task(2, "b", waits_for=waits("task", "a task"), awaits=[1]),
    ]
    lines = list(show.pstree(answer))
    assert lines[-1].strip() == "└─ a (see there)"
    assert len(tasks) == 2


def test_stacks_and_what_blocks(answer):
    loop = answer["loops"][0]
    loop.update(state="busy", blocked=2.0)
    loop["stack"] = [{"name": "slow", "file": __file__, "line": 1}]
    text = "\n".join(show.stacks(answer))
    assert "MainThread: 5 tasks, BLOCKED for 2.0 s or longer, by\n    slow  " in text
    assert (
        f'MainThread runs this now:\n  File "{__file__}", line 1, in slow\n    """`python' in text
    )
    assert 'third (third), waiting for 1.5 s:\n  File "/srv/app.py", line 5, in third\n' in text


def test_stacks_has_where_a_task_was_created(answer):
    answer["loops"][0]["tasks"] = [
        task(1, "main", created={"name": "start", "file": "/srv/app.py", "line": 30})
    ]
    assert "\n".join(show.stacks(answer)).endswith(
        """\
  → sleep(), 3.0 s left
  created at
  File "/srv/app.py", line 30, in start"""
    )


def test_top_counts_those_that_wait_alike(answer):
    tasks = answer["loops"][0]["tasks"]
    tasks += [task(number, "worker") | {"frames": tasks[1]["frames"]} for number in range(50, 60)]
    tasks[-1]["since"] = 70.0
    rows = [line.split() for line in show.top(None, answer)]
    assert ["10", "1.2", "min", "worker", "waiting", "/srv/app.py:2", "sleep()"] in rows


def test_nothing_is_cut_where_there_is_no_terminal(answer, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    (loop,) = answer["loops"]
    name = "a_coroutine_with_a_name_that_is_long"
    loop["tasks"] += [task(number, f"{name}_{number}") for number in range(50, 100)]
    text = "\n".join(show.top(None, answer))
    assert all(f"{name}_{number} " in text for number in range(50, 100))
    assert "sleep()" in text


def test_where_a_task_runs_that_blocks_the_loop(answer):
    (loop,) = answer["loops"]
    loop["tasks"][1].update(state="running", waits_for=None)
    loop["stack"] = [
        {"name": "first", "file": "/srv/app.py", "line": 2},
        {"name": "query", "file": "/srv/app.py", "line": 77},
    ]
    loop["blocked"] = 0.5
    for lines in show.ps(answer), show.top(None, answer):
        (line,) = [line for line in lines if "(runs)" in line]
        assert "/srv/app.py:77" in line


def test_top_says_how_busy_the_loop_was(answer):
    keys = ("callbacks", "tasks", "ready", "timers", "transports", "bytes_in", "bytes_out")
    before = json.loads(json.dumps(answer))
    before["loops"][0]["counters"] = {**dict.fromkeys(keys, 0), "ran": 0, "waited": 0}
    answer["when"] += 2.0
    answer["loops"][0]["counters"] = {**dict.fromkeys(keys, 4096), "ran": 1000, "waited": 250}
    (line,) = [line for line in show.top(before, answer) if line.startswith("busy")]
    assert line.startswith("busy  75%   2,048 callbacks/s")
    assert "in 2 kB/s" in line


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_top_breaks_how_busy_the_loop_was_between_its_figures(answer, columns):
    keys = ("callbacks", "tasks", "ready", "timers", "transports", "bytes_in", "bytes_out")
    before = json.loads(json.dumps(answer))
    before["loops"][0]["counters"] = {**dict.fromkeys(keys, 0), "ran": 0, "waited": 0}
    answer["when"] += 2.0
    answer["loops"][0]["counters"] = {**dict.fromkeys(keys, 123456789), "ran": 1000, "waited": 0}
    text = "\n".join(show.top(before, answer, columns))
    lines = text[text.index("busy") :].partition("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= columns
    figures = [figure for line in lines for figure in line.strip().split("   ")]
    assert figures[1:3] == ["61,728,394 callbacks/s", "61,728,394 new tasks/s"]
    assert figures[3:5] == ["in 60,282 kB/s", "out 60,282 kB/s"]
    assert figures[5:] == [f"{what} 123456789" for what in ("ready", "timers", "connections")]
    assert (len(lines) == 1) == (columns == 200)


def test_what_a_program_names_does_not_reach_the_terminal_as_a_command(answer):
    answer["loops"][0]["tasks"][0]["name"] = "\x1b[2Jgone\n\x9b"
    for command in show.ps, show.pstree, show.stacks:
        text = "\n".join(command(answer))
        assert "?[2Jgone??" in text
        assert "\x1b" not in text


# ---- the command line ----


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "ctask").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "ctask"


def failure(capsys, *args, status=1):
    assert commands.run(args[0], list(args[1:])) == status
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_a_running_program(capsys, place, monkeypatch):
    monkeypatch.setattr(commands, "INTERVAL", 0.01)
    code = """
import asyncio
async def main():
    asyncio.get_running_loop().call_soon(lambda: print(flush=True))
    await asyncio.sleep(1000)
asyncio.run(main())
"""
    program = subprocess.Popen(
        [sys.executable, "-m", "ctask", "-c", code],
        env={**os.environ, "CTASK_INSPECT": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        program.stdout.readline()
        for command in "ps", "pstree", "stacks", "top":
            assert commands.run(command, [str(program.pid)]) == 0
            out, err = capsys.readouterr()
            assert err == ""
            assert out.startswith(f"process {program.pid}, ctask {ctask.__version__} on Python")
            assert "sleep()" in out
        for command in "ps", "top":
            assert commands.run(command, ["--json", str(program.pid)]) == 0
            (loop,) = json.loads(capsys.readouterr().out)["loops"]
            assert loop["tasks"][0]["coroutine"] == "main"
        shell = [sys.executable, "-m", "ctask", "ps", str(program.pid)]
        out = subprocess.run(shell, capture_output=True, text=True)
        assert (out.returncode, out.stderr) == (0, "")
        assert "sleep()" in out.stdout
    finally:
        program.kill()
        with program:
            pass


def test_an_output_that_cannot_be_written_is_one_line(place, monkeypatch):
    monkeypatch.setenv("CTASK_INSPECT", "1")
    code = "import time; print(flush=True); time.sleep(60)"
    program = subprocess.Popen(
        [sys.executable, "-m", "ctask", "-c", code], stdout=subprocess.PIPE, text=True
    )
    try:
        program.stdout.readline()
        for command in "ps", "stacks", "top":
            asks = [sys.executable, "-m", "ctask", command, str(program.pid)]
            with open("/dev/full", "w") as full:
                done = subprocess.run(asks, stdout=full, stderr=subprocess.PIPE, text=True)
            said = "standard output cannot be written to: No space left on device"
            assert (done.returncode, done.stderr) == (1, f"ctask {command}: {said}\n")
            shell = ["sh", "-c", 'exec "$@" >&-', "sh", *asks]
            done = subprocess.run(shell, stderr=subprocess.PIPE, text=True)
            said = "standard output is closed"
            assert (done.returncode, done.stderr) == (1, f"ctask {command}: {said}\n")
    finally:
        program.kill()
        with program:
            pass


def test_no_process(capsys):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    line = failure(capsys, "ps", str(dead.pid))
    assert line == f"ctask ps: no process {dead.pid}: pgrep -f NAME finds the number"


def test_no_socket(capsys, place):
    line = failure(capsys, "ps", str(os.getpid()))
    assert "start it with CTASK_INSPECT=1" in line
    assert "cannot be asked" in line  # it uses ctask
    other = subprocess.Popen(["sleep", "50"])
    try:
        line = failure(capsys, "stacks", str(other.pid))
        assert "does not use ctask: start it by CTASK_INSPECT=1 python -m ctask" in line
    finally:
        other.kill()
        other.wait()


def test_a_socket_of_nobody(capsys, place):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / f"{os.getpid()}.sock"))
    assert "start it with CTASK_INSPECT=1" in failure(capsys, "ps", str(os.getpid()))


def test_another_users_process(capsys, monkeypatch):
    monkeypatch.setattr(client.os, "geteuid", lambda: 12345)
    line = failure(capsys, "ps", str(os.getpid()))
    assert f"process {os.getpid()} is " in line
    assert "sudo -u" in line


class Answers:
    """A socket under this process's number that answers what it is told to."""

    def __init__(self, place, data):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(place / f"{os.getpid()}.sock"))
        self.listener.listen()
        self.data = data

    def __enter__(self):
        import threading

        def serve():
            sock, _ = self.listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(self.data)

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def __exit__(self, *args):
        self.thread.join()
        self.listener.close()


@pytest.mark.parametrize(
    "data, said",
    [
        (b'{"ctask": 2, "version": "9.9"}\n', "has ctask 9.9, which answers otherwise"),
        (b'{"ctask": 1, "error": "another protocol"}\n', "answers: another protocol"),
        (b"hello\n", "something else than ctask does"),
        (b"[1]\n", "something else than ctask does"),
        (b'{"ctask": 1, "ver', "hung up while it was asked"),
        (b"", "hung up while it was asked"),
    ],
)
def test_what_is_no_answer(capsys, place, data, said):
    with Answers(place, data):
        line = failure(capsys, "ps", str(os.getpid()))
    assert said in line


def test_one_that_dies_while_it_is_asked(capsys, place):
    code = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(f"{sys.argv[1]}/{os.getpid()}.sock")
sock.listen()
print(flush=True)
sock.accept()[0].recv(1)
os.kill(os.getpid(), 9)
"""
    program = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE)
    with program:
        program.stdout.readline()
        line = failure(capsys, "ps", str(program.pid))
    assert "while it was asked" in line


def test_wrong_arguments(capsys):
    for args in (
        ["ps"],
        ["ps", "x"],
        ["ps", "1", "2"],
        ["ps", "--fast", "1"],
        ["ps", "--tasks", "1"],
        [
            "ps",
            "--tasks",
            "x",
            "1",
        ],
    ):
        assert failure(capsys, *args, status=2) == "usage: ctask ps [--json] [--tasks N] PID"


def test_help(capsys):
    assert commands.run("top", ["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: ctask top [--json] [--tasks N] PID\n")


def test_the_bounds_fit_each_other():
    assert client.MAX_ANSWER > inspector.MAX_ANSWER
