"""How long a loop keeps others waiting: `python -m benchmarks --latency`.

A server that is busy with something (loads.py) echoes the requests of one connection, of a client
in C on another core, each as soon as the one before is answered. In the same process, before that,
it is measured how late timers fire, how long a signal takes from the kill() of another process to
its handler, and a child from its end to the return of wait(). In each round the contenders take
turns with each load, each time with a new process.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import contenders, native
from ..drawing import progress, report
from . import real
from .network import Address, Unable, answer_of, cores, ended, told, within

LOADS = {
    "idle": "nothing else to do",
    "tasks:0.00002": "3 tasks, 20 us at a time",
    "tasks:0.001": "3 tasks, 1 ms at a time",
    "tasks:0.005": "3 tasks, 5 ms at a time",
    "upload": "an upload, 1 ms for each 256 KiB",
    "connections": "1000 other busy connections",
    "timers": "100 000 timers, 10 000 a second",
    "calls:50000": "50 000 call_soon_threadsafe() a second",
    "calls:inf": "call_soon_threadsafe() without a pause",
    "clients": "a Redis and a PostgreSQL client",
}
KINDS = {
    "echo": "Echo, round trip",
    "signal": "Signal, kill() to its handler",
    "timer": "Timer, how late",
    "child": "Child process, end to wait() returned",
}
ROUNDS, QUICK_ROUNDS = 5, 2
TRIES = 2  # rounds in which a measurement may fail before it is given up
WARM_UP, SECONDS, ECHO_SECONDS = 0.3, 0.7, 1.8
QUICK_WARM_UP, QUICK_SECONDS, QUICK_ECHO_SECONDS = 0.2, 0.4, 1.0
LIMIT = 8  # seconds for a measurement, beyond its own; a loop that hangs is killed then
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
CURVE = [1 - 10 ** (-i / 8) for i in range(33)]  # shares, to one in 10 000
SIZE = 1024
LOST = math.inf  # the delay of what was never told of


# ---- figures ----


def at_share(ordered: list[float], share: float) -> float:
    """The delay that this share of all does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def enough(samples: int, share: float) -> bool:
    return samples * (1 - share) >= 1 - 1e-9


def figure(rounds: list[list[float]], share: float) -> float:
    """The median of what the rounds have for this share, if each has enough samples for it; else
    what all of them have together. (The median is not touched by one round that was disturbed.)
    """
    if all(enough(len(ordered), share) for ordered in rounds):
        return statistics.median_low([at_share(ordered, share) for ordered in rounds])
    return at_share(sorted(delay for delays in rounds for delay in delays), share)


def summary(rounds: list[list[float]]) -> dict[str, Any]:
    """None stands for the delay of what was never told of."""
    rounds = [sorted(delays) for delays in rounds]
    samples = sum(map(len, rounds))
    figures = {name: figure(rounds, share) for name, share in SHARES.items()}
    figures["worst"] = max(ordered[-1] for ordered in rounds)
    curve, least = [], 0.0
    for share in CURVE:
        if enough(samples, share):
            least = max(least, figure(rounds, share))
            curve.append((share, least))
    return {
        **{name: known(delay) for name, delay in figures.items()},
        "samples": samples,
        "rounds": [
            {name: known(at_share(ordered, share)) for name, share in SHARES.items()}
            for ordered in rounds
        ],
        "curve": [(share, delay) for share, delay in curve if delay != LOST],
        "value": known(figures["p99"]),
    }


def known(delay: float) -> float | None:
    return None if delay == LOST else delay


def from_counts(counts: list[tuple[float, int]], worst: float) -> list[float]:
    """Delays in seconds from the client's microseconds and how many there were of each."""
    delays = [us / 1e6 for us, count in counts for _ in range(count)]
    delays[-1] = worst / 1e6
    return delays


# ---- one process ----


def echo(address: Address, seconds: float) -> list[float]:
    """Round trips, in seconds. Raises Unable."""
    command = [*real.on_other_core(native.program("client.c")), *address.arguments]
    command += ["-s", str(SIZE), "-w", "0.1", "-d", str(seconds), "-l"]
    client = contenders.piped(command)
    output, errors = told(client, seconds + LIMIT)
    if client.returncode:
        raise Unable(errors.strip() or f"the client ended with status {client.returncode}")
    run = json.loads(output)
    return from_counts(run["latencies"], run["worst"])


@dataclass
class Run:
    """What one process came to."""

    delays: dict[str, list[float]] = field(default_factory=dict)  # of each kind
    failed: dict[str, str] = field(default_factory=dict)  # why a kind has none
    proof: dict[str, str] = field(default_factory=dict)  # of what ran


def said(server: subprocess.Popen[str], errors: Path, limit: float) -> dict[str, Any]:
    """What the server says next. One that says nothing for so long is killed. Raises Unable,
    Absent.
    """
    with within(server, limit):
        return answer_of(server, errors)


@contextmanager
def running(name: str, request: dict[str, Any]) -> Iterator[tuple[Any, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        errors = Path(directory) / "errors"
        with errors.open("w") as file:
            server = contenders.start(["delays", name, json.dumps(request)], stderr=file)
        try:
            os.sched_setaffinity(server.pid, {cores()[0]})
            yield server, errors
        finally:
            ended(server)


def run_on(
    name: str, request: dict[str, Any], kinds: list[str], quick: bool, run: Run
) -> list[str]:
    """Measure these in a process, and return those that are left after one in which it died.
    Raises Unable if it cannot even begin, Absent.
    """
    seconds = QUICK_ECHO_SECONDS if quick else ECHO_SECONDS
    with running(name, request) as (server, errors):
        answer = said(server, errors, LIMIT) | said(server, errors, LIMIT)
        run.proof = contenders.proof(name, answer, answer)
        for i, kind in enumerate(kinds):
            try:
                if kind == "echo":
                    address = Address(server.pid, ["-p", str(answer["port"])], answer, errors)
                    run.delays[kind] = echo(address, seconds)
                else:
                    told_of = said(server, errors, 3 * request["seconds"] + LIMIT)
                    delays = told_of["delays"] + [LOST] * told_of["lost"]
                    if not delays:
                        raise Unable("nothing happened")
                    run.delays[kind] = delays
            except Unable as unable:
                run.failed[kind] = str(unable)
                if server.poll() is not None:
                    return kinds[i + 1 :]
    return []


def run_once(name: str, load: str, kinds: list[str], places: dict[str, str], quick: bool) -> Run:
    """One failure takes only its own kind: the others are measured in another process if it was
    the end of this one. Raises Absent.
    """
    run = Run()
    left = sorted(kinds, key="echo".__eq__)  # the last one: it is not the server that measures it
    while left:
        request = {
            "load": load,
            "places": places,
            "prefix": real.on_other_core(),
            "warm_up": QUICK_WARM_UP if quick else WARM_UP,
            "seconds": QUICK_SECONDS if quick else SECONDS,
            "measurements": [kind for kind in left if kind != "echo"],
        }
        try:
            left = run_on(name, request, left, quick, run)
        except (Unable, native.NotBuilt) as error:
            run.failed.update(dict.fromkeys(left, str(error)))
            break
    return run


# ---- all of them ----


@contextmanager
def beside(load: str) -> Iterator[dict[str, str]]:
    """Where the servers of somebody else are that this load asks. Raises Unable."""
    with ExitStack() as stack:
        places = {}
        for name in ("redis", "postgres") if load == "clients" else ():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            directory.chmod(0o777)  # for a server that runs as another user
            places[name] = stack.enter_context(real.BESIDE[name](directory))
        yield places


@dataclass
class Cell:
    """A contender's, of one kind under one load."""

    rounds: list[list[float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def why(self, count: int) -> str:
        return f"{self.failures[0]}; {len(self.rounds)} of {count} rounds count"


Cells = dict[tuple[str, str, str], Cell]  # of kind, load and contender


def run_round(
    found: dict[str, Any], cells: Cells, load: str, turn: list[str], kinds: list[str], quick: bool
) -> None:
    """Each of these contenders once under this load."""
    try:
        with beside(load) as places:
            for name in turn:
                left = [kind for kind in kinds if len(cells[kind, load, name].failures) < TRIES]
                if name in found["absent"] or not left:
                    continue
                progress.show(f"{LOADS[load]}: {name}")
                try:
                    run = run_once(name, load, left, places, quick)
                except contenders.Absent as absent:
                    found["absent"][name] = str(absent)
                    continue
                if run.proof:
                    found["contenders"][name] = run.proof
                for kind, delays in run.delays.items():
                    cells[kind, load, name].rounds.append(delays)
                for kind, why in run.failed.items():
                    cells[kind, load, name].failures.append(why)
    except (Unable, KeyError, OSError) as error:
        for kind in kinds:
            for name in turn:
                cells[kind, load, name].failures.append(contenders.described(error))


def measure(names: list[str], loads: list[str], kinds: list[str], quick: bool) -> dict[str, Any]:
    """found["values"]["kind/load"][contender] has p50, p99, p999 and worst in seconds, samples,
    rounds, and curve, a list of shares with their delays; found["failed"] what is not in them.
    """
    rows = {f"{kind}/{load}": f"{KINDS[kind]}: {LOADS[load]}" for kind in kinds for load in loads}
    found: dict[str, Any] = {"contenders": {}, "absent": {}, "failed": {}, "titles": rows}
    cells = {(kind, load, name): Cell() for kind in kinds for load in loads for name in names}
    count = QUICK_ROUNDS if quick else ROUNDS
    for i in range(count):
        first = i % len(names)
        for load in loads:
            run_round(found, cells, load, names[first:] + names[:first], kinds, quick)
    progress.show()
    found["values"] = {row: {} for row in rows}
    for (kind, load, name), cell in cells.items():
        row = f"{kind}/{load}"
        if cell.rounds:
            found["values"][row][name] = summary(cell.rounds)
        if cell.failures:
            found["failed"].setdefault(row, {})[name] = cell.why(count)
    return found


# ---- what is printed ----


def cell_text(row: dict[str, Any], name: str, failed: bool = False) -> str:
    """p50, p99, p99.9 and the worst in ms; those that there are too few samples for left out."""
    if name not in row:
        return "failed" if failed else "-"
    told = [*SHARES.items(), ("worst", 0)]
    figures = row[name]
    return " / ".join(
        in_ms(figures[key]) if enough(figures["samples"], share) else "-" for key, share in told
    )


def in_ms(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    ms = seconds * 1000
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def text(result: dict[str, Any]) -> str:
    """A table for each kind; the loads are its rows."""
    names = report.columns(result)
    tables = []
    for kind, title in KINDS.items():
        lines = [[f"{title}; ms", *names]]
        for key, row in result["values"].items():
            if key.startswith(f"{kind}/"):
                load = result["titles"][key].split(": ", 1)[1]
                failed = result["failed"].get(key, {})
                lines.append([load, *[cell_text(row, name, name in failed) for name in names]])
        if len(lines) > 1:
            tables.append(report.aligned(lines))
    return "\n\n".join([*tables, *report.failures(result)])
