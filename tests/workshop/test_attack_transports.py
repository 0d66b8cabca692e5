"""attacks/transports: that it finds what is wrong, and says how to see it again."""

import contextlib
import os
import sys

import pytest
from helpers.checkout import ROOT

pytestmark = pytest.mark.ctask_only


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


# By which program of this seed a fault is found at last.
SEED = 5
# What they change of asyncio's transports came with 3.12: before, what waits is one bytearray.
IN_CHUNKS = ["lost_chunk", "sent_twice", "keeps_buffer"] if sys.version_info >= (3, 12) else []


@pytest.mark.parametrize(
    "name",
    [
        *IN_CHUNKS,
        "late_write",
        "lost_twice",
        "other_error",
        "open_descriptor",
        "pauses_early",
        "swallows_exit",
        "reads_after_close",
        "half_close_ends",
    ],
)
def test_planted_fault_is_found(name):
    from attacks.transports import planted

    (make,) = [fault for fault in planted.FAULTS if fault.__name__ == name]
    assert planted.found_after(make, SEED, 500) is not None


def program(*steps, **conn):
    from attacks.transports import Conn, Program

    return Program((Conn("unix", **conn),), steps)


def test_asyncio_is_like_itself():
    from attacks.transports import judge
    from attacks.transports.program import generate

    for number in range(20):
        assert not judge(generate(f"itself-{number}"), ("asyncio",))


def test_programs_of_a_seed_are_the_same():
    from attacks.transports.program import generate

    names = [f"1-{number}" for number in range(30)]
    assert [generate(name) for name in names] == [generate(name) for name in names]
    assert generate("1-1") != generate("2-1")


def test_report_is_a_script_that_shows_it_again(capfd):
    from attacks.transports import Step, planted, running

    name = planted.plant(planted.close_drops)
    steps = [
        Step("peer", 0, "send", (100,)),
        Step("soon", 0, "size"),
        Step("out", 0, "write", (400_000, "bytearray"), settle=False),
        Step("out", 0, "is_reading"),
        Step("out", 0, "close"),
    ]
    less, verdict = running.shrink(program(*steps, api="buffered"), (name,), 60)
    assert [step.op for step in less.steps] == ["write", "close"]
    assert less.conns[0].api == "plain"
    assert verdict.form == name
    exec(less.code(), {})
    printed = capfd.readouterr().out
    assert "peer's end: EOF" in printed
    assert any(line.lstrip().startswith("> peer has") for line in printed.splitlines())


def test_crash_is_reported(monkeypatch):
    from attacks.transports import running

    def crash(*args):
        with contextlib.suppress(ValueError):
            import faulthandler

            faulthandler.disable()
        os.abort()

    monkeypatch.setattr(running, "judge", crash)
    (fault,) = running.differing(1, 7, 1, ("loop",))
    assert fault[0] == "1-7"
    assert fault[2].why == "the process ends with -6"


def test_ctask_is_asyncios_like():
    from attacks.transports import running

    assert list(running.differing(1, 0, 15, ("loop", "installed", "debug"))) == []


def test_bytes_are_known_by_their_place():
    from attacks.transports.peer import PERIOD, Checked, pattern

    checked = Checked()
    checked.add(pattern(0, 10))
    checked.add(pattern(10, PERIOD))
    assert repr(checked) == f"{PERIOD + 10}"
    checked.add(pattern(checked.count, 5)[::-1])
    assert repr(checked).startswith(f"{PERIOD + 15}, wrong from")
    assert sys.getsizeof(pattern(3, 2 * PERIOD)) > 2 * PERIOD
