"""The attack `programs`: its programs are the same each time, and it finds what is planted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.checkout import ROOT, package

package("attacks")
from attacks._edits import misfits  # noqa: E402
from attacks.programs import driver, generate, mutants, shrink, world  # noqa: E402

pytestmark = [pytest.mark.ctask_only, pytest.mark.slow]


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    """The worker processes import the attack from the checkout, and ctask from where it is."""
    import ctask

    installed = str(next(iter(ctask.__path__))).rpartition("/")[0]
    monkeypatch.setenv("PYTHONPATH", f"{installed}:{ROOT}")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")


def sources(count, seed=1):
    return [generate.generate(s).source() for s in range(seed, seed + count)]


def test_a_seed_is_a_program():
    assert sources(50) == sources(50)
    assert len(set(sources(50))) == 50


def test_every_program_can_be_compiled():
    for source in sources(300, seed=1000):
        driver.compiled(source)


def test_asyncio_does_as_asyncio_does():
    with driver.Team(["asyncio", "asyncio-debug"]) as team:
        for source, differ in zip(sources(100), team.play(sources(100)), strict=True):
            assert not any(driver.steady(team, source, mode) for mode in differ)


def test_no_time_of_the_real_clock_is_compared():
    body = "async def main():\n    log(loop.call_at(12.345678901, log))\n"
    with driver.Team(["asyncio"]) as team:
        codes = [driver.compiled(f"clock = {clock!r}\n{body}") for clock in ("real", "virtual")]
        real, virtual = team.workers["asyncio"].play(codes)
    assert "when=_ " in real
    assert "when=12.345678901 " in virtual


def test_who_hears_of_what_was_never_retrieved_is_not_compared():
    task = "<Task finished exception=ValueError(1)>"
    handler = f"HANDLER exception ValueError(1,); future {task}; message 'It was never retrieved'"
    logger = f"LOGGED ERROR It was never retrieved\ncreated: at\n  a line\nfuture: {task}"
    told = world.own_lines(logger) + " ValueError(1,)"
    assert world.whoever_hears(told) == world.whoever_hears(handler)
    assert world.whoever_hears(handler) != world.whoever_hears(handler.replace("(1)", "(2)"))
    assert world.whoever_hears("WARNING other") == "WARNING other"


def test_generators_that_nobody_could_close_are_not_counted():
    """shutdown_asyncgens() was cut short: when the others die nobody promises."""
    aclose = "WARNING RuntimeWarning coroutine method 'aclose' of 'gen1' was never awaited"
    other = aclose.replace("gen1", "gen2")

    def text(*late, cut_short=True):
        it = world.World(world.SETTINGS)
        it.late.extend(late)
        it.cut_short = cut_short
        return world.normal(it)

    assert text(aclose, aclose) == text(aclose)
    assert text(aclose, other) != text(aclose)
    assert text("WARNING", "WARNING") != text("WARNING")
    assert text(aclose, aclose, cut_short=False) != text(aclose, cut_short=False)


CUT_SHORT = """
async def gen1(n):
    try:
        yield n
    finally:
        raise KeyboardInterrupt
async def co1(n):
    async for x in gen1(n):
        raise Odd
async def main():
    loop.set_task_factory(asyncio.eager_task_factory)
    v.t1 = loop.create_task(co1(1))
    v.t2 = loop.create_task(co1(2))
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="no warning of an aclose()")
def test_a_shutdown_of_generators_that_was_cut_short():
    with driver.Team(["installed", "debug"]) as team:
        (differ,) = team.play([CUT_SHORT])
        (log,) = team.workers["asyncio"].play([driver.compiled(CUT_SHORT)])
    assert "'aclose' of 'gen1'" in log
    assert not differ


def test_what_is_compared_of_two_logs():
    log = "1 2\nLATE\nTask exception was never retrieved"
    assert driver.alike(log, log)
    assert not driver.alike(log, log + "!") and not driver.alike(log, "1 3\nLATE")
    unheard = f"1 2\nLATE\n{world.UNHEARD}"
    assert driver.alike(log, unheard) and driver.alike(unheard, log)
    assert not driver.alike(f"1 3\nLATE\n{world.UNHEARD}", log)
    endless = "7 RecursionError@[1, 2]"
    assert driver.alike(endless, "8 8 RecursionError@[1]") and not driver.alike(endless, log)


def test_ctask_does_as_asyncio_does():
    with driver.Team(driver.MODES) as team:
        for source, differ in zip(sources(100), team.play(sources(100)), strict=True):
            assert not any(driver.steady(team, source, mode) for mode in differ), source


@pytest.mark.parametrize(
    "name",
    [
        "lock_lets_newcomers_pass",
        "event_wakes_one",
        "timeout_is_a_cancellation",
        "wait_waits_for_all",
        "cancelled_handles_run",
    ],
)
def test_it_finds_what_is_planted(name):
    assert mutants.find_python(name, 1, 300) is not None


def test_what_is_planted_in_c_has_its_place_in_the_source():
    assert len(mutants.PYTHON) >= 15 and len(mutants.C) >= 10
    assert misfits(mutants.C.values()) == []


def test_what_differs_is_made_small():
    with driver.Team(["asyncio"], "event_wakes_one") as team:

        def differs(program):
            return driver.steady(team, program.source(), "asyncio", 1) is not None

        seeds = (seed for seed in range(1, 300) if differs(generate.generate(seed)))
        program = generate.generate(next(seeds))
        small = shrink.shrink(program, differs)
        assert differs(small)
    assert len(small.source().splitlines()) < 30
    assert ".set" in small.source() and ".wait" in small.source()


def test_who_ends_the_process_is_known():
    die = "import os\nasync def main():\n    os.kill(os.getpid(), 11)\n"
    live = "async def main():\n    log('here')\n"
    worker = driver.Worker("asyncio")
    try:
        logs = worker.play([driver.compiled(source) for source in (live, die, live, die)])
    finally:
        worker.end()
    assert ["CRASH -11" in log for log in logs] == [False, True, False, True]
    assert "'here'" in logs[0] and logs[0] == logs[2]
    assert "Segmentation fault" in logs[1]


def test_who_hangs_is_known(monkeypatch):
    monkeypatch.setattr(driver, "SECONDS", 3)
    worker = driver.Worker("asyncio")
    try:
        logs = worker.play([driver.compiled("async def main():\n    while True: pass\n")])
    finally:
        worker.end()
    assert logs[0].startswith("HANGS")


def test_the_command_says_what_it_played():
    command = [sys.executable, "-m", "attacks", "programs", "--seed", "1", "--count", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 programs in each of loop,installed,debug,tasks" in done.stdout
    assert "nothing found" in done.stdout
