"""How long a loop keeps others waiting: `python -m benchmarks --latency`.

A server that is busy with something (loads.py) echoes the requests of one connection, of a client
in C on another core, each as soon as the one before is answered. In the same process, before that,
it is measured how late timers fire, how long a signal takes from the kill() of another process to
its handler, and a child from its end to the return of wait(). For each load the contenders take
turns, each with a process of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import contenders, native, progress, real, report
from .network import Address, Unable, answer_of, attempt, cores, ended, told

LOADS = {
    "idle": "nothing else to do",
    "tasks:0.00002": "3 tasks, 20 us at a time",
    "tasks:0.001": "3 tasks, 1 ms at a time",
    "tasks:0.005": "3 tasks, 5 ms at a time",
    "upload": "an upload, 1 ms for each 256 KiB",
    "connections": "1000 other busy connections",
    "timers": "100 000 timers, 10 000 a second",
    "calls": "a flood of call_soon_threadsafe()",
    "clients": "a Redis and a PostgreSQL client",
}
KINDS = {
    "echo": "Echo, round trip",
    "signal": "Signal, kill() to its handler",
    "timer": "Timer, how late",
    "child": "Child process, end to wait() returned",
}
WARM_UP, SECONDS, ECHO_SECONDS = 0.5, 2.0, 4.0
QUICK_WARM_UP, QUICK_SECONDS, QUICK_ECHO_SECONDS = 0.2, 0.4, 1.0
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "worst": 1.0}
CURVE = [1 - 10 ** (-i / 8) for i in range(33)]  # shares, to one in 10 000
SIZE = 1024


def at_share(ordered: list[float], share: float) -> float:
    """The delay that this share of all does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(delays: list[float]) -> dict[str, Any]:
    ordered = sorted(delays)
    figures: dict[str, Any] = {name: at_share(ordered, share) for name, share in SHARES.items()}
    enough = [share for share in CURVE if share <= 1 - 1 / len(ordered)]
    curve = [(share, at_share(ordered, share)) for share in enough]
    return {**figures, "samples": len(ordered), "curve": curve, "value": figures["p99"]}


def from_counts(counts: list[tuple[float, int]], worst: float) -> list[float]:
    """Delays in seconds from the client's microseconds and how many there were of each."""
    delays = [us / 1e6 for us, count in counts for _ in range(count)]
    delays[-1] = worst / 1e6
    return delays


def echo(address: Address, seconds: float) -> list[float]:
    """Round trips, in seconds. Raises Unable."""
    command = [*real.on_other_core(native.program("client.c")), *address.arguments]
    command += ["-s", str(SIZE), "-w", "0.1", "-d", str(seconds), "-l"]
    client = contenders.piped(command)
    output, errors = told(client, real.LIMIT)
    if client.returncode:
        raise Unable(errors.strip() or f"the client ended with status {client.returncode}")
    run = json.loads(output)
    return from_counts(run["latencies"], run["worst"])


def run_once(name: str, load: str, kinds: list[str], places: dict[str, str], quick: bool) -> Any:
    """What was measured, of each kind, and the proof of what ran. Raises Unable, Absent."""
    request = {
        "load": load,
        "places": places,
        "prefix": real.on_other_core(),
        "warm_up": QUICK_WARM_UP if quick else WARM_UP,
        "seconds": QUICK_SECONDS if quick else SECONDS,
        "measurements": [kind for kind in kinds if kind != "echo"],
    }
    with tempfile.TemporaryDirectory() as directory:
        errors = Path(directory) / "errors"
        with errors.open("w") as file:
            server = contenders.start(["delays", name, json.dumps(request)], stderr=file)
        try:
            os.sched_setaffinity(server.pid, {cores()[0]})
            answer = answer_of(server, errors) | answer_of(server, errors)
            found = {kind: summary(delays) for kind, delays in answer["delays"].items()}
            if "echo" in kinds:
                address = Address(server.pid, ["-p", str(answer["port"])], answer, errors)
                seconds = QUICK_ECHO_SECONDS if quick else ECHO_SECONDS
                found["echo"] = summary(echo(address, seconds))
        finally:
            ended(server)
    return found, contenders.proof(name, answer, answer)


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


def measure(names: list[str], loads: list[str], kinds: list[str], quick: bool) -> dict[str, Any]:
    """found["values"]["kind/load"][contender] has p50, p99, p999 and worst in seconds, samples, and
    curve, a list of shares with their delays.
    """
    rows = {f"{kind}/{load}": f"{KINDS[kind]}: {LOADS[load]}" for kind in kinds for load in loads}
    found: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "failed": {},
        "titles": rows,
        "values": {row: {} for row in rows},
    }
    runs: dict[str, Any] = {"values": {load: {} for load in loads}, **found_parts(found)}
    for load in loads:
        try:
            with beside(load) as places:
                for name in names:

                    def run(name: str = name, load: str = load) -> dict[str, Any]:
                        figures, proof = run_once(name, load, kinds, places, quick)
                        found["contenders"][name] = proof
                        return dict(figures)

                    attempt(runs, load, name, run)
        except (Unable, KeyError, OSError) as error:
            runs["failed"][load] = dict.fromkeys(names, contenders.described(error))
        for name, cell in runs["values"][load].items():
            for kind, figures in cell["runs"][0].items():
                found["values"][f"{kind}/{load}"][name] = figures
    progress.show()
    return found


def found_parts(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("absent", "failed")}


# ---- what is printed ----


def cell(row: dict[str, Any], name: str) -> str:
    """p50, p99, p99.9 and the worst in ms; those that there are too few samples for left out."""
    if name not in row:
        return "-"
    told = [("p50", 1), ("p99", 100), ("p999", 1000), ("worst", 1)]
    figures = row[name]
    return " / ".join(
        in_ms(figures[key]) if figures["samples"] >= needed else "-" for key, needed in told
    )


def in_ms(seconds: float) -> str:
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
                lines.append([load, *[cell(row, name) for name in names]])
        if len(lines) > 1:
            tables.append(report.aligned(lines))
    return "\n\n".join([*tables, *report.failures(result)])
