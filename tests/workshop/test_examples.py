"""The examples print what asyncio prints, on every version, and it is ctask that they run on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ctask_only

EXAMPLES = Path(__file__).parents[2] / "examples"

# {path} is the script's.  Where a Task is shown: pending, cancelling or finished.
OUTPUT = {
    "asyncio_create_task.py": """\
creating task
waiting for <Task pending name='Task-2' coro=<task_func() running at {path}:5>>
in task_func
task completed <Task finished name='Task-2' coro=<task_func() done, defined at {path}:5> \
result='the result'>
return value: the result
""",
    "asyncio_cancel_task.py": """\
creating task
canceling task
canceled task <Task cancelling name='Task-2' coro=<task_func() running at {path}:5>>
caught error from canceled task
""",
    "asyncio_cancel_task2.py": """\
creating task
in task_func, sleeping
in task_canceller
canceled the task
task_func was canceled
main() also sees task as canceled
""",
    "asyncio_ensure_future.py": """\
entering event loop
starter: creating task
starter: waiting for inner
inner: starting
inner: waiting for <Task pending name='Task-2' coro=<wrapped() running at {path}:5>>
wrapped
inner: task returned result
starter: inner returned
""",
}


@pytest.fixture
def python(tmp_path):
    def python(*args):
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            env={k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"},
        )
        return done.returncode, done.stdout, done.stderr

    return python


# Those that are servers have tests of their own.
ELSEWHERE = {"interpreters.py": "test_interpreters_example.py"}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(OUTPUT) | set(ELSEWHERE)
    assert all((Path(__file__).parent / name).exists() for name in ELSEWHERE.values())


@pytest.mark.parametrize("name", OUTPUT)
def test_output(python, name):
    path = EXAMPLES / name
    status, out, err = python("-W", "ignore", "-m", "ctask", path)
    assert (status, err) == (0, "")
    assert out == OUTPUT[name].format(path=path)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="python refuses asyncio.get_event_loop()")
@pytest.mark.parametrize("name", OUTPUT)
def test_output_is_that_of_python_alone(python, name):
    path = EXAMPLES / name
    assert python("-m", "ctask", path) == python(path)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="compared with python's own before")
@pytest.mark.parametrize("name", OUTPUT)
def test_nobody_is_warned(python, name):
    assert python("-W", "error", "-m", "ctask", EXAMPLES / name)[::2] == (0, "")


SPY = """\
import asyncio, builtins, runpy, sys
import ctask
seen = set()
def spy(*args):
    try:
        seen.add((type(asyncio.get_running_loop()), type(asyncio.current_task())))
    except RuntimeError:
        pass
real, builtins.print = builtins.print, spy
runpy.run_path(sys.argv[1], run_name="__main__")
# None: print() in a callback
assert seen - {(ctask.EventLoop, type(None))} == {(ctask.EventLoop, ctask.Task)}, seen
real("ctask")
"""


@pytest.mark.parametrize("name", OUTPUT)
def test_runs_on_ctask(python, name):
    options = ["-W", "ignore", "-m", "ctask", "-c", SPY]
    assert python(*options, EXAMPLES / name) == (0, "ctask\n", "")
