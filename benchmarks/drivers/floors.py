"""What is left to gain: `python -m benchmarks --floors`.

The floor of a scenario is what its own Python code costs whatever the loop (c/floor.c). Both it and
ctask are counted as in instructions.py, by function; the difference, function by function, says
where ctask's instructions above the floor go. Functions are callgrind's: what a compiler has
inlined counts for the function that it is in.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from .. import contenders
from ..drawing import progress, report
from ..subjects.core import Scenario

NAMED = 5  # functions of each scenario


def functions(profile: str) -> Counter[str]:
    """Instructions by function, from callgrind's output: its own, not those of what it calls."""
    names: dict[str, str] = {}
    cost: Counter[str] = Counter()
    function, called = "", False
    for line in profile.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            # Only where a number comes first is its name given.
            name = names.setdefault(number, name.partition("'")[0])  # f'2 is f within f
            if line.startswith("fn="):
                function = name
        elif line.startswith("calls="):
            called = True  # the next line is what the call cost
        elif re.match(r"[+*\d-]", line):
            if not called:
                cost[function] += int(line.split()[1])
            called = False
    return cost


def count(name: str, scenarios: list[Scenario], found: dict[str, Any]) -> None:
    """Instructions per operation by function: found["values"][scenario][name]."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        prefix = ["valgrind", "--tool=callgrind", f"--log-file={out}/log"]
        prefix.append(f"--callgrind-out-file={out}/%p")
        jobs = [f"{s.name}:{s.small}" for s in scenarios]
        worker = contenders.start(["instructions", name, *jobs], prefix=prefix, PYTHONHASHSEED="0")
        output, _ = worker.communicate()
        if worker.returncode:
            raise RuntimeError(f"{name}: ended with status {worker.returncode}")
        hello, *answers = map(json.loads, output.splitlines())
        if "absent" in hello:
            raise SystemExit(f"{name} is absent: {hello['absent']}")
        found["contenders"][name] = contenders.proof(name, hello, answers[0])
        for i, scenario in enumerate(scenarios):
            progress.show(f"{name}: {scenario.name}")
            pids = [answer["pid"] for answer in answers[3 * i : 3 * i + 3]]
            once, thrice, again = (functions((out / str(pid)).read_text()) for pid in pids)
            cell = {
                function: (thrice[function] - (once[function] + again[function]) / 2)
                / (2 * scenario.small)
                for function in thrice
            }
            found["values"][scenario.name][name] = {
                "value": sum(cell.values()),
                "functions": {key: value for key, value in cell.items() if abs(value) >= 1},
            }


def measure(scenarios: list[Scenario]) -> dict[str, Any]:
    """found["values"][scenario][contender] has value and functions."""
    if not shutil.which("valgrind"):
        raise SystemExit("--floors needs valgrind")
    found: dict[str, Any] = {"contenders": {}, "absent": {}}
    found["values"] = {s.name: {} for s in scenarios}
    for name in (contenders.FLOOR, "ctask"):
        progress.show(name)
        count(name, scenarios, found)
    progress.show()
    return found


def above(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Functions and what they cost above the floor, the dearest first."""
    ctask, floor = Counter(row["ctask"]["functions"]), row[contenders.FLOOR]["functions"]
    ctask.subtract(floor)
    return ctask.most_common()


def text(result: dict[str, Any]) -> str:
    lines = [["Instructions per operation", "floor", "ctask", "above", "of which"]]
    for name, row in result["values"].items():
        floor, ctask = row[contenders.FLOOR]["value"], row["ctask"]["value"]
        named = [f"`{function}` {cost:,.0f}" for function, cost in above(row)[:NAMED] if cost >= 1]
        lines.append(
            [
                result["titles"][name],
                f"{floor:,.0f}",
                f"{ctask:,.0f}",
                f"{ctask - floor:,.0f}",
                ", ".join(named),
            ]
        )
    return report.aligned(lines)
