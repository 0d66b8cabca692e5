"""--trace FILE, and `trace PID`: what is written, and one line where that cannot be done."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import ctask
from ctask.observe import client, commands, inspector, trace
from ctask.observe.timeline import STEP, Timeline

pytestmark = pytest.mark.ctask_only

PROGRAM = """
import asyncio, sys
async def ticks():
    await asyncio.sleep(0)
async def main():
    await asyncio.create_task(ticks(), name="named")
asyncio.run(main())
sys.exit(int(sys.argv[1]) if sys.argv[1:] else None)
"""


@pytest.fixture(autouse=True)
def no_trace_is_left():
    yield
    trace.drop()


@pytest.fixture
def run(tmp_path):
    """Runs `python -m ctask ...`; returns the status and what it wrote to stderr."""
    (tmp_path / "app.py").write_text(PROGRAM)

    def run(*args):
        path = os.pathsep.join(p for p in sys.path if p)
        done = subprocess.run(
            [sys.executable, "-m", "ctask", *args],
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stderr

    return run


# ---- --trace ----


@pytest.mark.parametrize("form", [("--trace", "out.json"), ("--trace=out.json",)])
def test_a_program_is_traced_from_begin_to_end(run, tmp_path, form):
    assert run(*form, "app.py") == (0, "")
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert "named" in names


def test_a_page(run, tmp_path):
    assert run("--trace", "out.html", "app.py") == (0, "")
    text = (tmp_path / "out.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert '"named"' in text
    assert "@DATA@" not in text


def test_the_programs_own_status_stays(run, tmp_path):
    assert run("--trace", "out.json", "app.py", "7") == (7, "")
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]


def test_a_program_that_fails_is_traced_as_well(run, tmp_path):
    (tmp_path / "app.py").write_text(PROGRAM + "1 / 0\n")
    status, said = run("--trace", "out.json", "-c", PROGRAM.replace("sys.exit", "1 / 0;"))
    assert status == 1
    assert said.splitlines()[-1].startswith("ZeroDivisionError")
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]


def test_a_file_that_cannot_be_opened(run, tmp_path):
    (tmp_path / "app.py").write_text("open('ran', 'w').close()")
    assert run("--trace", "no/such/out.json", "app.py") == (
        1,
        "ctask: the trace cannot be written to 'no/such/out.json': No such file or directory: "
        "name another file\n",
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("own", "status"), [((), 1), (("7",), 7)])
def test_a_full_disk(run, own, status):
    assert run("--trace", "/dev/full", "app.py", *own) == (
        status,
        "ctask: the trace cannot be written to '/dev/full': No space left on device: "
        "name another file\n",
    )


def test_wrong_options(run):
    for args in (("--trace",), ("--trace=",), ("--trace", "a", "--trace", "b", "app.py")):
        status, said = run(*args)
        assert status == 2
        assert "--trace" in said.splitlines()[0]


# ---- trace PID ----


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A program that runs until its stdin is closed, and can be asked."""
    runtime = tmp_path / "run"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.chdir(tmp_path)
    program = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, "CTASK_INSPECT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "runs\n"
    yield program
    with contextlib.suppress(BrokenPipeError):
        program.stdin.close()
    program.kill()
    program.wait()
    program.stdout.close()


SERVER = """
import asyncio, ctask, sys, threading
async def ticks():
    while True:
        await asyncio.sleep(0.001)
async def main():
    task = asyncio.create_task(ticks(), name="ticks")
    print("runs", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    task.cancel()
    print("ends", flush=True)
ctask.run(main())
"""


def failure(capsys, *args, status=1):
    assert commands.run("trace", list(map(str, args))) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removesuffix("\n")


def ends_well(program):
    """It goes on as before."""
    program.stdin.close()
    assert program.stdout.readline() == "ends\n"
    assert program.wait(60) == 0


def test_a_running_program(here, capsys, tmp_path):
    pid = str(here.pid)
    assert commands.run("trace", ["--seconds", "0.05", pid]) == 0
    assert capsys.readouterr().out == f"trace-{pid}.html\n"
    assert '"ticks"' in (tmp_path / f"trace-{pid}.html").read_text()
    assert commands.run("trace", ["--seconds", "0.05", "--output", "out.json", pid]) == 0
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    assert any(event["name"] == "ticks" and event["cat"] == "step" for event in events)
    assert any(event["name"] == "waits for sleep" for event in events)
    ends_well(here)


def test_what_it_is_asked_for_twice_at_a_time(here, capsys):
    with client._connect(here.pid) as sock:
        client._ask_on(sock, here.pid, ask="trace", seconds=60)
        said = failure(capsys, "--output", "out.html", here.pid)
        assert said == (
            f"ctask trace: process {here.pid} answers: the process is traced already: "
            "that trace has to end first"
        )
        assert not os.path.exists("out.html")
    # Who asked for it has hung up: it has ended, at once or soon.
    for _ in range(1000):
        with contextlib.suppress(client.AskError):
            client.trace(here.pid, 0.0)
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("the trace went on")
    ends_well(here)


@pytest.mark.parametrize("seconds", [-1, 1e9, "1", None, True, [1], float("nan")])
def test_strange_lengths(here, seconds):
    with client._connect(here.pid) as sock:
        with pytest.raises(client.AskError, match="seconds"):
            client._ask_on(sock, here.pid, ask="trace", seconds=seconds)


def test_the_end_of_no_trace(here):
    with client._connect(here.pid) as sock, pytest.raises(client.AskError, match="ended already"):
        client._ask_on(sock, here.pid, ask="traced")


def test_one_that_dies_meanwhile(here, capsys):
    timer = threading.Timer(0.2, here.kill)
    timer.start()
    assert failure(capsys, "--seconds", "600", here.pid).startswith(
        f"ctask trace: process {here.pid} "
    )
    timer.join()


def test_one_that_is_interrupted_has_what_there_is(here, monkeypatch):
    def ask(sock, pid, **question):
        answer = real(sock, pid, **question)
        if question["ask"] == "trace":
            timer.start()
        return answer

    real = client._ask_on
    monkeypatch.setattr(client, "_ask_on", ask)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    raw = client.trace(here.pid, 600.0)
    timer.join()
    assert Timeline(raw.records, raw.facts).spans


def test_no_process(capsys):
    assert failure(capsys, 2**22 + 1) == (
        f"ctask trace: no process {2**22 + 1}: pgrep -f NAME finds the number"
    )


def test_one_without_a_socket(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    said = failure(capsys, os.getpid())
    assert "start it with CTASK_INSPECT=1" in said
    assert os.listdir() == []


def test_a_file_that_was_there_stays_if_nothing_comes(capsys, tmp_path):
    (tmp_path / "out.html").write_text("earlier")
    failure(capsys, "--output", tmp_path / "out.html", 2**22 + 1)
    assert (tmp_path / "out.html").read_text() == "earlier"


def test_an_output_that_cannot_be_written(here, capsys):
    assert failure(capsys, "--output", "no/out.html", here.pid) == (
        "ctask trace: the trace cannot be written to 'no/out.html': No such file or directory: "
        "name another file"
    )
    if os.path.exists("/dev/full"):
        assert "No space left" in failure(
            capsys, "--seconds", 0.01, "--output", "/dev/full", here.pid
        )
    ends_well(here)


@pytest.mark.parametrize("args", [[], ["x"], ["--seconds", "-1", "1"], ["--seconds", "nan", "1"]])
def test_wrong_arguments(capsys, args):
    with pytest.raises(SystemExit) as ended:
        commands.run("trace", args)
    assert ended.value.code == 2
    assert "usage: ctask trace" in capsys.readouterr().err


def test_what_comes_is_what_was_recorded(here):
    raw = client.trace(here.pid, 0.05)
    seen = Timeline(raw.records, raw.facts)
    assert raw.facts["pid"] == here.pid
    assert any(span.kind == STEP for span in seen.spans)
    assert "ticks" in {task.name for task in seen.tasks.values()}


def test_an_answer_of_what_is_no_trace(monkeypatch, here):
    def ask(sock, pid, **question):
        return {"records": "!", "facts": {}}

    monkeypatch.setattr(client, "_ask_on", ask)
    with pytest.raises(client.AskError, match="something else"):
        client.trace(here.pid, 0.0)


def test_a_trace_fits_in_an_answer():
    records = inspector.TRACE_MEMORY * 4 / 3  # what cannot be compressed, in base64
    assert records < client.MAX_ANSWER / 2
    assert ctask.trace.__module__ == "ctask.observe.trace"
