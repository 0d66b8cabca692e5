"""Instructions per operation, counted by valgrind: `python -m benchmarks --instructions`.

A contender is started once under callgrind (without its cache simulation). For every scenario it
then forks three processes one after the other, which perform n, 3n and again n operations; a
fork goes on counting from what its parent has counted. The second less the mean of the others,
divided by 2n, is the cost of one operation: start-up cancels out, and so does what the parent
spends between the forks. Only user space is counted: what the kernel does in a system call is
not. All contenders run with PYTHONHASHSEED=0, and after the warm-up with the cyclic collector
frozen and off, so that a collection more or less cannot move a figure.

With --network each fork is a server, which ends after n, 3n and again n requests.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .. import contenders
from ..drawing import progress
from ..subjects.core import Scenario
from ..subjects.traffic import Load
from ..subjects.traffic import Scenario as Traffic
from . import network


def fork(jobs: Sequence[Callable[[], None]]) -> None:
    """In the worker: run each job in a forked process. Exits with status 1 as soon as one fails."""
    for job in jobs:
        child = os.fork()
        if not child:
            try:
                job()
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)  # without the interpreter's finalization, which nobody wants to count
        if os.waitpid(child, 0)[1]:
            raise SystemExit(1)


def serve_forked(serve: Callable[[], None], times: int) -> None:
    """In the worker: run a server in so many forked processes one after the other, each until it
    is killed. Stops at one that cannot serve, which has said so.
    """
    for _ in range(times):
        child = os.fork()
        if not child:
            gc.collect()
            gc.freeze()
            gc.disable()
            serve()
            os._exit(1)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return


def valgrind(log: Path) -> list[str]:
    """What a command is prefixed with."""
    options = [f"--log-file={log}", "--callgrind-out-file=/dev/null"]
    return ["valgrind", "--tool=callgrind", *options]


def collected(log: str) -> dict[int, int]:
    """Instructions by process, from valgrind's log."""
    return {int(pid): int(total) for pid, total in re.findall(r"==(\d+)== Collected : (\d+)", log)}


def count(name: str, scenarios: list[tuple[Scenario, int]]) -> dict[str, Any]:
    """Measure one contender; {"absent": why}, or its "proof" and "values" by scenario."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        worker = contenders.start(
            ["instructions", name, *[f"{s.name}:{n}" for s, n in scenarios]],
            prefix=valgrind(log),
            PYTHONHASHSEED="0",
        )
        assert worker.stdout
        first = worker.stdout.readline()
        if not first:
            raise RuntimeError(f"{name}: ended with status {worker.wait()} before it could start")
        hello = json.loads(first)
        if "absent" in hello:
            worker.communicate()
            return {"absent": hello["absent"]}
        answers = []
        for line in worker.stdout:
            answers.append(json.loads(line))
            progress.show(f"{name}: {answers[-1]['scenario']}")
        worker.communicate()
        counted = log.read_text()
        if worker.returncode:
            raise RuntimeError(f"{name}: failed after it started {answers[-1:]}\n{counted}")
    totals = collected(counted)
    values = {}
    for i, (scenario, n) in enumerate(scenarios):
        once, thrice, again = (totals[answer["pid"]] for answer in answers[3 * i : 3 * i + 3])
        values[scenario.name] = (thrice - (once + again) / 2) / (2 * n)
    return {"proof": contenders.proof(name, hello, answers[0]), "values": values}


def measure(names: list[str], scenarios: list[Scenario], quick: bool) -> dict[str, Any]:
    """Instructions per operation: found["values"][scenario][contender]["value"]."""
    if not shutil.which("valgrind"):
        raise SystemExit("--instructions needs valgrind")
    found: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "values": {s.name: {} for s in scenarios},
    }
    sizes = [(s, s.rounded(s.small // 4) if quick else s.small) for s in scenarios]
    for name in names:
        progress.show(name)
        one = count(name, sizes)
        if "absent" in one:
            found["absent"][name] = one["absent"]
            continue
        found["contenders"][name] = one["proof"]
        for scenario, value in one["values"].items():
            found["values"][scenario][name] = {"value": value}
    progress.show()
    return found


REQUESTS, QUICK_REQUESTS = 2000, 500


def count_served(
    found: dict[str, Any], name: str, scenario: Traffic, load: Load, n: int
) -> dict[str, Any]:
    """Instructions per request of one contender. Raises Unable, Absent, NotBuilt."""
    pids = []
    with tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder, "log"), Path(folder, "errors")
        place = network.place_for(name, scenario, Path(folder))
        if name == "c-limit":
            for times in (1, 3, 1):
                with network.limit_server(scenario, place, valgrind(log)) as server:
                    network.load(scenario, load, server, "-n", str(times * n))
                pids.append(server.pid)
                found["contenders"][name] = server.answer
                with errors.open("a") as file:
                    file.write(log.read_text())
            log = errors
        else:
            arguments = ["count", name, scenario.program, json.dumps(asdict(place)), "3"]
            with errors.open("w") as file:
                worker = contenders.start(
                    arguments, prefix=valgrind(log), stderr=file, PYTHONHASHSEED="0"
                )
            try:
                hello = network.answer_of(worker, errors)
                for times in (1, 3, 1):
                    answer = network.answer_of(worker, errors)
                    pids.append(answer["pid"])
                    to = network.client_arguments(place, answer["port"])
                    address = network.Address(answer["pid"], to, answer, errors)
                    try:
                        network.load(scenario, load, address, "-n", str(times * n))
                    finally:
                        os.kill(answer["pid"], signal.SIGTERM)
                worker.communicate()
            finally:
                network.ended(worker)
            found["contenders"][name] = contenders.proof(name, hello, answer)
        totals = collected(log.read_text())
    once, thrice, again = (totals[pid] for pid in pids)
    return {"value": (thrice - (once + again) / 2) / (2 * n)}


def measure_network(
    names: list[str], chosen: dict[Traffic, list[Load]], quick: bool
) -> dict[str, Any]:
    """Instructions per request: found["values"][row][contender]["value"]."""
    if not shutil.which("valgrind"):
        raise SystemExit("--instructions needs valgrind")
    found = network.rows({s: loads for s, loads in chosen.items() if s.link != "process"})
    for scenario, loads in chosen.items():
        if scenario.link == "process":
            continue  # the forked child would be counted, or not, up to its exec
        for load in loads:
            row = scenario.row(load)
            n = max(QUICK_REQUESTS if quick else REQUESTS, 5 * load[1])
            for name in network.able(found, names, scenario):
                run = partial(count_served, found, name, scenario, load, n)
                network.attempt(found, row, name, run)
    for row in found["values"].values():
        for name, cell in row.items():
            row[name] = cell["runs"][0]
    progress.show()
    return found
