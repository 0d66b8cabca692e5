"""The faults of examples/slow_service are found by what docs/observability.md says to type."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import PATIENCE, environment

pytestmark = pytest.mark.ctask_only

FOLDER = Path(__file__).parents[2] / "examples" / "slow_service"
SERVICE = FOLDER / "service.py"


def line_of(text):
    """Where a fault is: the line that has this text, and no other has."""
    lines = SERVICE.read_text().splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if text in line]
    return found


@pytest.fixture
def serve(python):
    """Starts the service as its README says; returns it and its port."""

    def serve(*options):
        service = python(
            *("-m", "ctask", *options, "--watch", "0.1", SERVICE, "0"),
            env={"CTASK_INSPECT": "1"},
            cwd=FOLDER,
        )
        port = service.expect(r"running on http://127.0.0.1:(\d+)")[1]
        return service, port

    return serve


@pytest.fixture
def client(python):
    return lambda what, port: python(FOLDER / "client.py", what, port)


def ask(command, service):
    done = subprocess.run(
        [sys.executable, "-m", "ctask", command, str(service.popen.pid)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def ask_until(command, service, seen):
    """What the command prints once it shows what is to be seen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        text = ask(command, service)
        if seen(text):
            return text
        assert time.monotonic() < deadline, text


def test_slow_the_log_has_the_line_that_blocks(serve, client):
    service, port = serve()
    blocking = line_of("rows = query(")
    while True:  # on a machine that has much to do the thread that watches may come too late
        assert client("slow", port).wait() == 0
        try:
            service.expect(rf"called from .*service.py:{blocking} in rank: rows = query\(")
            break
        except pytest.fail.Exception:
            assert "blocked for" in service.text
    assert service.stop(signal.SIGINT) in (0, -signal.SIGINT)


def test_stuck_ps_has_who_waits_for_the_lock_and_pstree_where_it_is_held(serve, client):
    service, port = serve()
    client("stuck", port)
    wanted, held = line_of("async with selling:"), line_of("await charge(customer)")
    waiting = re.compile(rf"service.py:{wanted} +Lock, held by (\S+)$", re.M)
    text = ask_until("ps", service, waiting.search)
    (holder,) = set(waiting.findall(text))
    assert re.search(rf"^{holder} .* StreamReader.readline\(\) of .*provider.sock$", text, re.M)
    tree = ask("pstree", service)
    branch = tree.partition(f"\n{holder}  waiting")[2].partition("\n\n")[0]
    assert f"order  service.py:{held}\n" in branch, tree


def test_leaks_top_has_where_they_wait_and_stacks_in_debug_mode_who_made_them(serve, client):
    service, port = serve("--debug")
    assert client("leaks", port).wait() == 0
    waiting, created = line_of("await confirmed[number]"), line_of("create_task(confirm(number))")
    top = ask("top", service)
    assert re.search(rf"^ +50 .* confirm +waiting +service.py:{waiting} +a future$", top, re.M), top
    stacks = ask("stacks", service)
    lines = f'  created at\n  File "{SERVICE}", line {created}, in order\n'
    assert stacks.count(lines) == 50, stacks


def test_the_page_shows_the_lines_that_the_service_has():
    page = (FOLDER.parents[1] / "docs" / "observability.md").read_text()
    faults = {
        line_of("rows = query("): "in rank: rows = query(",
        line_of("async with selling:"): "The fault is line {}: the lock",
        line_of("create_task(confirm(number))"): "The fault is line {}: nobody",
    }
    for line, text in faults.items():
        assert text.format(line) in page
    assert f"service.py:{line_of('rows = query(')} in rank" in page
    assert f"service.py:{line_of('await confirmed[number]')} " in page
