"""attacks/interrupts: that it finds what is wrong, and nothing where all is right."""

import re

import pytest
from helpers.checkout import ROOT

pytestmark = [pytest.mark.ctask_only, pytest.mark.by_chance]

LOOP = """
import asyncio
import itertools
import os
import signal
import sys
SIGNALS = [signal.SIGINT, signal.SIGALRM]
base = type(asyncio.new_event_loop())
count = itertools.count(1)
class Loop(base):
{body}
asyncio.new_event_loop = Loop
"""

PLANTED = {
    "lost_timer": (
        "calls",
        "calls: never called: ",
        """
    def call_at(self, when, callback, *args, context=None):
        if type(getattr(callback, "__self__", None)) is list and next(count) % 50 == 0:
            callback = lambda *args: None
        return super().call_at(when, callback, *args, context=context)
""",
    ),
    "called_twice": (
        "threadsafe",
        "threadsafe: 0 of ",
        """
    def call_soon_threadsafe(self, callback, *args, context=None):
        if next(count) == 50:
            super().call_soon_threadsafe(callback, *args)
        return super().call_soon_threadsafe(callback, *args)
""",
    ),
    "lost_bytes": (
        "unix",
        "unix: (Plain|Pure): wrong from byte ",
        """
    def create_unix_connection(self, factory, *args, **kwargs):
        def make():
            protocol = factory()
            take = protocol.data_received
            protocol.data_received = lambda data: next(count) % 20 and take(data)
            return protocol
        return super().create_unix_connection(make, *args, **kwargs)
""",
    ),
    "cancels": (
        "tasks",
        " are cancelled",
        """
    def run_forever(self):
        try:
            super().run_forever()
        except BaseException:
            for task in asyncio.all_tasks(self):
                task.cancel()
            raise
""",
    ),
    "swallows": (
        "calls",
        r"swallowed: SystemExit\(",
        """
    def run_forever(self):
        try:
            super().run_forever()
        except SystemExit:
            pass
""",
    ),
    "open_descriptor": (
        "socks",
        "descriptors are left: /dev/null",
        """
    def run_forever(self):
        try:
            super().run_forever()
        except KeyboardInterrupt:
            os.open("/dev/null", os.O_RDONLY)
            raise
""",
    ),
    "crashes": (
        "calls",
        "ended with -6",
        """
    def run_forever(self):
        try:
            super().run_forever()
        except SystemExit:
            os.abort()
""",
    ),
}


@pytest.fixture
def attack(monkeypatch, tmp_path, capfd):
    """Attack a member with a loop of this body; how many faults were found, and the output."""
    monkeypatch.syspath_prepend(str(ROOT))
    from attacks import interrupts

    def attack(body, *members, count=100):
        (tmp_path / "planted.py").write_text(LOOP.format(body=body))
        options = ["--file", str(tmp_path / "planted.py"), "--seconds", "20"]
        for member in members:
            options += ["--member", member]
        return interrupts.run(3, count, options), capfd.readouterr().out

    return attack


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_found(attack, name):
    member, told, body = PLANTED[name]
    found, out = attack(body, member)
    assert found > 0, out
    assert re.search(told, out)


def test_what_is_right_is_no_fault(attack):
    found, out = attack(
        "    pass", "calls", "threadsafe", "tasks", "queues", "unix", "tls", "socks"
    )
    assert found == 0, out
    assert "100 signals raised" in out and " in the loop" in out


def test_what_takes_the_place_of_one_that_a_group_keeps_is_no_fault(attack):
    """Two signals at once: the second handler raises where the first's exception goes through."""
    found, out = attack(
        """
    def create_task(self, coro, **kwargs):
        if sys._getframe(2).f_code.co_name == "group":
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            for number in SIGNALS[:2]:
                signal.raise_signal(number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return super().create_task(coro, **kwargs)
""",
        "tasks",
        count=500,
    )
    assert found == 0, out
    assert " in taskgroups.py:__aexit__" in out
