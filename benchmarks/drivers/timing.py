"""CPU time per operation: `python -m benchmarks`.

A round starts one process per contender and takes the scenarios one by one, each on all
contenders in turn (A B C, A B C, ...), so that whatever else the machine does meets all of them
alike. Rounds differ in memory layout and hash seed. The figure is the median of the rounds; the
spread is the least and the greatest ratio to asyncio within one round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from typing import Any

from .. import contenders
from ..drawing import progress
from ..subjects.core import Scenario

ROUNDS = 7
QUICK_ROUNDS = 3


def ask(name: str, worker: subprocess.Popen[str], **request: Any) -> dict[str, Any]:
    """Return a worker's next answer: to this request, or its greeting."""
    assert worker.stdin and worker.stdout
    if request:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{name} {request}: ended with status {worker.wait()}")
    result: dict[str, Any] = json.loads(answer)
    return result


def run_round(
    found: dict[str, Any], names: list[str], scenarios: list[Scenario], quick: bool
) -> None:
    """Measure every scenario once on every contender, appending to
    found["values"][scenario][contender]["rounds"].
    """
    workers = {name: contenders.start(["time", name]) for name in names}
    try:
        hellos = {name: ask(name, worker) for name, worker in workers.items()}
        for name, hello in hellos.items():
            if "absent" in hello:
                found["absent"][name] = hello["absent"]
        present = [name for name in names if name not in found["absent"]]
        for scenario in scenarios:
            progress.show(scenario.title)
            n = scenario.rounded(scenario.n // 4) if quick else scenario.n
            for name in present:
                answer = ask(name, workers[name], scenario=scenario.name, n=n)
                found["contenders"][name] = contenders.proof(name, hellos[name], answer)
                cell = found["values"][scenario.name].setdefault(name, {"rounds": []})
                cell["rounds"].append(answer["seconds"] / n)
    finally:
        for worker in workers.values():
            worker.communicate()


def measure(names: list[str], scenarios: list[Scenario], quick: bool) -> dict[str, Any]:
    """Seconds of CPU per operation: found["values"][scenario][contender] has value, rounds and,
    beside asyncio, spread.
    """
    found: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "values": {s.name: {} for s in scenarios},
    }
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        run_round(found, [name for name in names if name not in found["absent"]], scenarios, quick)
    for row in found["values"].values():
        baseline = row.get(contenders.BASELINE)
        for cell in row.values():
            cell["value"] = statistics.median(cell["rounds"])
            if baseline:
                ratios = [a / b for a, b in zip(cell["rounds"], baseline["rounds"], strict=True)]
                cell["spread"] = [min(ratios), max(ratios)]
    progress.show()
    return found
