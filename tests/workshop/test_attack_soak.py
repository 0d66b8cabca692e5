"""attacks/soak: that it finds what grows and who is not served, and nothing in what is flat."""

import pytest
from helpers.checkout import ROOT

pytestmark = [pytest.mark.ctask_only, pytest.mark.by_chance]

PLANTED = """
import asyncio
import os
import threading
from attacks.soak.scenarios import Scenario, Timers

kept = []

class Planted(Scenario):
    \"\"\"planted\"\"\"
    at = None

    async def part(self, number):
        for _ in range(self.size):
            {fault}

class Fewer(Timers):
    \"\"\"a timer is lost\"\"\"

    async def part(self, number):
        loop = asyncio.get_running_loop()
        if number == 7:
            loop.call_later = lambda when, call, *args: loop.call_at(
                loop.time() + when + 100 * (args == (1,)), call, *args
            )
        await super().part(number)
"""


@pytest.fixture
def attack(monkeypatch, tmp_path, capfd):
    """Run a scenario, perhaps with this in its parts; how many faults, and the output."""
    monkeypatch.syspath_prepend(str(ROOT))
    from attacks import soak

    def attack(name, fault="pass", count=400):
        (tmp_path / "planted.py").write_text(PLANTED.replace("{fault}", fault))
        options = ["--scenario", name, "--file", str(tmp_path / "planted.py"), "--patience", "10"]
        return soak.run(1, count, options), capfd.readouterr().out

    return attack


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("kept.append(bytearray(20_000))", "RSS grow: "),
        ("kept.append(object()), kept.append(object())", "blocks grow: "),
        ("kept.append(os.dup(0))", "descriptors grow: "),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads grow: "),
        ("kept.append(asyncio.create_task(asyncio.sleep(60)))", "tasks grow: "),
        ("await asyncio.sleep(60)", "part 0 does not end within 10 s"),
        ("assert not number, 'not served'", "part 1: not served"),
        ("os.abort()", "ended with -6"),
    ],
)
def test_planted_fault_is_found(attack, fault, told):
    found, out = attack("planted", fault, 2000 if "object" in fault else 400)
    assert found > 0, out
    assert told in out


def test_a_timer_that_is_lost_is_found(attack):
    found, out = attack("fewer", count=10)
    assert found == 1, out
    assert "part 7: not all timers struck" in out


@pytest.mark.parametrize("name", ["planted", "open", "churn", "timers", "queues", "children"])
def test_what_is_flat_is_no_fault(attack, name):
    found, out = attack(name, count=20)
    assert found == 0, out
    assert ", flat" in out
