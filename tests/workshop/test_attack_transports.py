"""attacks/transports: that it finds what is wrong, and says how to see it again."""

import contextlib
import os
import socket
import sys

import pytest
from helpers.checkout import ROOT

pytestmark = [pytest.mark.ctask_only, pytest.mark.slow]


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


@pytest.mark.parametrize("what", ["nothing", "write", "read", "close"])
def test_what_is_done_to_another_file_of_the_same_number_is_told(what):
    from attacks.transports.stage import Usurper

    ours, theirs = socket.socketpair()
    fd = ours.fileno()
    ours.close()
    usurper = Usurper(fd)
    if what == "write":
        os.write(fd, b"for ours")
    elif what == "read":
        os.read(fd, 10)
    elif what == "close":
        os.close(fd)
    told = usurper.broken()
    theirs.close()
    assert len(told) == (what != "nothing")
    assert all(line.startswith("BROKEN: another's file") for line in told)


def test_what_nobody_may_do_counts_though_asyncio_stumbles(monkeypatch):
    from attacks.transports import Step, judge, stage

    usurped = program(
        Step("out", 0, "usurp"), Step("out", 0, "write", (100, "bytes")), Step("out", 0, "abort")
    )
    assert not judge(usurped, ("loop",))
    monkeypatch.setattr(stage.Usurper, "broken", lambda self: [self.far.close(), "BROKEN"][1:])
    assert judge(usurped, ("loop",)).why == "what nobody may do:"


@pytest.mark.parametrize("kind", ["socks", "tcpsocks"])
def test_sockets_by_themselves(kind):
    from attacks.transports import Conn, Program, Step, judge
    from attacks.transports.judge import once

    steps = [
        Step("soon", 0, "recv", (100,)),
        Step("peer", 0, "send", (100,)),
        Step("out", 0, "sendall", (1000, "bytearray")),
        Step("peer", 0, "drain"),
        Step("out", 0, "dup2"),
        Step("peer", 0, "send", (5,)),
        Step("out", 0, "watch"),
        Step("out", 0, "shut_sock"),
        Step("out", 0, "unwatch"),
    ]
    log = once(Program((Conn(kind),), tuple(steps)), "asyncio")
    assert "peer has 1000" in log["a"]
    assert "data 105" in log["a"]
    assert "unwatch -> True" in log["a"]
    assert not judge(Program((Conn(kind),), tuple(steps)), ("loop",))


@pytest.mark.parametrize("kind", ["tlsmade", "tlsserved"])
@pytest.mark.parametrize("api", ["plain", "buffered", "streams"])
def test_tls_from_the_start_with_data_behind_the_handshake(kind, api):
    from attacks.transports import Conn, Program, Step, judge
    from attacks.transports.judge import once

    steps = (Step("out", 0, "write", (1000, "bytes")), Step("peer", 0, "drain"))
    if api == "streams":
        steps += (Step("out", 0, "readexactly", (5000,)),)
    made = Program((Conn(kind, api=api, early=5000),), steps)
    log = once(made, "asyncio")
    assert "peer has 1000" in log["a"]
    assert "data 5000" in log["a"]
    assert not judge(made, ("loop",))


def test_urgent_data_is_none_of_what_it_comes_between():
    from attacks.transports import Conn, Program, Step, judge
    from attacks.transports.judge import once

    urgent = Program((Conn("tcp"),), (Step("peer", 0, "urgent", (3, 500)),))
    assert "data 503" in once(urgent, "asyncio")["a"]
    assert not judge(urgent, ("loop",))


def alone(kind, *steps, **conn):
    from attacks.transports import Conn, Program

    return Program((Conn(kind, **conn),), steps)


def test_datagrams_that_have_left_count_no_more():
    from attacks.transports import Step, judge
    from attacks.transports.judge import once

    many = Step("out", 0, "sendmany", (15, 1))
    sent = alone("unix_datagram", many, Step("peer", 0, "drain"), Step("out", 0, "size"))
    assert "size -> False" in once(sent, "asyncio")["a"]
    assert not judge(sent, ("loop",))


def test_a_tls_connection_that_closes_sends_what_waits_below():
    from attacks.transports import Step, judge
    from attacks.transports.judge import once

    writes = Step("data", 0, "writelines", ((1000, 700_000), "bytes"), 1)
    ends = alone("tlsmade", writes, Step("peer", 0, "shut"), early=1000)
    assert once(ends, "asyncio")["loop"] == []
    assert not judge(ends, ("loop",))


def test_who_of_two_hears_of_a_reset_is_not_compared():
    from attacks.transports import Step, judge

    steps = [
        Step("out", 0, "sendall", (300_000, "bytes")),
        Step("task", 0, "recv_into", (100,), settle=False),
        Step("peer", 0, "reset"),
    ]
    assert not judge(alone("tcpsocks", *steps), ("loop",))


def test_lines_of_a_report_that_are_the_same_are_counted():
    from attacks.transports import Verdict

    told = str(Verdict("loop", {"a": ["made", *["late"] * 9]}, {"a": ["made"]})).splitlines()
    assert sum("late" in line for line in told) == 3
    assert told[-1].strip() == "(9 times)"
