"""The attack `faults`: it counts, lets the right call fail, and tells of what is wrong then."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.ctask_only,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(
        "libasan" in Path("/proc/self/maps").read_text(), reason="its allocators are hooked"
    ),
]

PLANTED = """
import asyncio
import ctypes
import socket
from attacks.faults.scenarios import scenario

kept = []

def attempt(then):
    one, other = socket.socketpair()
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(one, int)
        loop.remove_reader(one)
    except OSError:
        then(one)
        return "failed"
    finally:
        if one not in kept:
            one.close()
        other.close()
    return "fine"

@scenario
async def is_right():
    return attempt(int if False else lambda sock: None)

@scenario
async def leaks():
    return attempt(kept.append)

@scenario
async def crashes():
    return attempt(lambda sock: ctypes.string_at(0))

@scenario
async def is_strange():
    return attempt(lambda sock: {}["key"])

@scenario
async def hangs():
    if attempt(lambda sock: None) == "failed":
        await asyncio.get_running_loop().create_future()

async def fails():
    raise ValueError(3)

@scenario
async def gather():
    tasks = [asyncio.create_task(fails())]
    await asyncio.sleep(0)
    return attempt(lambda sock: None)

@scenario
async def breaks_the_loop():
    def shut(sock):
        asyncio.get_running_loop().run_in_executor = asyncio.get_running_loop().create_task = None
    return attempt(shut)
"""


@pytest.fixture
def attack(monkeypatch, tmp_path, capfd):
    """Attack scenarios of PLANTED; how many faults were found, and what was printed."""
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.partition(".")[0] == "attacks"]:
        monkeypatch.delitem(sys.modules, name)
    from attacks import faults

    (tmp_path / "planted.py").write_text(PLANTED)

    def attack(*options):
        found = faults.run(1, 0, ["--file", str(tmp_path / "planted.py"), *options])
        return found, capfd.readouterr().out

    return attack


def test_what_is_right_is_no_fault(attack):
    found, out = attack("--scenario", "is_right", "--kind", "syscalls")
    assert found == 0, out
    assert "epoll_ctl" not in out and "is_right" in out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("leaks", "descriptors are left: socket:"),
        ("crashes", "crash (signal 11) while running"),
        ("is_strange", "strange exception raised: KeyError"),
        ("hangs", "hangs while running"),
        ("breaks_the_loop", "the loop is broken: TypeError"),
    ],
)
def test_planted_faults_are_found(attack, name, told):
    case = f"{name}:syscalls:epoll_ctl:1:ENOMEM:1"
    found, out = attack("--case", case)
    assert found == 1, out
    assert f"--case {case}" in out and told in out
    assert "poll_watch" in out or "add_reader" in out


@pytest.mark.parametrize("kind", ["memory", "malloc"])
def test_allocations_fail_in_turn(attack, kind):
    from attacks.faults.child import loop_is_known

    if kind == "memory" and not loop_is_known():
        pytest.skip("the interpreter's loop cannot be told on the stack of this build")
    found, out = attack("--scenario", "is_right", "--kind", kind)
    assert found == 0, out
    assert f"{kind:9} is_right" in out and " 0 failed" not in out


UNHEARD = "ValueError: 3 (Task exception was never retrieved) scenarios.py:284"
CLOSED_AGAIN = (
    "AttributeError: 'NoneType' object has no attribute 'close' (Exception in callback"
    " SubprocessStreamProtocol.pipe_connection_lost()) subprocess.py:110 < subprocess.py:102"
)
NOT_MADE = "MemoryError:  (Exception in callback SubprocessStreamProtocol.connection_made()) ..."


@pytest.mark.parametrize(
    ("scenario", "call", "fault", "beside", "accepted"),
    [
        ("gather", "memory", UNHEARD, ("raised", "MemoryError:  () scenarios.py:287"), True),
        ("gather", "memory", UNHEARD, ("told", "MemoryError:  ()"), False),
        ("gather", "memory", UNHEARD.replace("3", "1", 1), ("raised", "MemoryError: "), False),
        ("gather", "epoll_ctl", UNHEARD, ("raised", "MemoryError:  ()"), False),
        ("tasks", "memory", UNHEARD, ("raised", "MemoryError:  ()"), False),
        ("subprocess", "memory", CLOSED_AGAIN, ("told", NOT_MADE), True),
        ("subprocess", "memory", CLOSED_AGAIN, ("raised", "MemoryError:  () _loop.py:117"), True),
        ("subprocess", "memory", CLOSED_AGAIN, ("raised", "MemoryError:  () process.py:1"), False),
        ("subprocess", "memory", CLOSED_AGAIN, ("told", "MemoryError:  ()"), False),
        ("subprocess", "memory", NOT_MADE.replace("Memory", "Type"), ("told", NOT_MADE), False),
        ("subprocess_shell", "memory", CLOSED_AGAIN, ("told", NOT_MADE), False),
    ],
)
def test_what_is_not_ctasks_is_known_by_what_else_was_raised(
    attack, scenario, call, fault, beside, accepted
):
    from attacks import faults

    case = {"scenario": scenario, "call": call, "how": "ENOMEM"}
    found = [f"strange exception told: {fault}"]
    raised = [[*beside, True], ["told", fault, False]]
    left = faults.not_accepted(case, found, {"raised": raised})
    assert left == ([] if accepted else found)


def test_a_crash_is_the_interpreters_only_where_it_compiles_for_an_import(attack):
    from attacks import faults

    case = {"scenario": "import_", "call": "memory", "how": "ENOMEM"}
    crash = ["crash (signal 11) while running"]
    assert faults.not_accepted(case, crash, {"compiled": True}) == []
    assert faults.not_accepted(case, crash, {"compiled": False}) == crash
    case["scenario"] = "run"
    assert faults.not_accepted(case, crash, {"compiled": True}) == crash


def test_an_exception_that_nobody_hears_of_is_found_where_gather_is_attacked(attack):
    found, out = attack("--case", "gather:syscalls:epoll_ctl:1:ENOMEM:1")
    assert found == 1, out
    assert "strange exception told: ValueError: 3 (Task exception was never retrieved)" in out
