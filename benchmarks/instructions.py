"""Instructions per operation, counted by valgrind: `python -m benchmarks --instructions`.

A contender is started once under callgrind (without its cache simulation). For every scenario it
then forks three processes one after the other, which perform n, 3n and again n operations; a
fork goes on counting from what its parent has counted. The second less the mean of the others,
divided by 2n, is the cost of one operation: start-up cancels out, and so does what the parent
spends between the forks. Only user space is counted: what the kernel does in a system call is
not. All contenders run with PYTHONHASHSEED=0, and after the warm-up with the cyclic collector
frozen and off, so that a collection more or less cannot move a figure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import contenders, progress
from .core import Scenario


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


def count(name: str, scenarios: list[tuple[Scenario, int]]) -> dict[str, Any]:
    """Measure one contender; {"absent": why}, or its "proof" and "values" by scenario."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        valgrind = [
            "valgrind",
            "--tool=callgrind",
            f"--log-file={log}",
            "--callgrind-out-file=/dev/null",
        ]
        worker = contenders.start(
            ["instructions", name, *[f"{s.name}:{n}" for s, n in scenarios]],
            prefix=valgrind,
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
    totals = {
        int(pid): int(total) for pid, total in re.findall(r"==(\d+)== Collected : (\d+)", counted)
    }
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
