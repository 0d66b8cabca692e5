"""The command line: what to measure, on whom, and where to write it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import chart, instructions, memory, report, timing
from .contenders import BASELINE, CONTENDERS
from .core import SCENARIOS

HOW = {
    "time": "CPU time (user and system), median of the rounds; ratios to asyncio with the least "
    "and the greatest of any round; garbage collector on, as users have it; smaller is better",
    "instructions": "callgrind, user space, differences of n and 3n operations; hash seed 0, "
    "garbage collector frozen and off; ratios to asyncio in brackets; smaller is better",
    "memory": "growth of the resident set per object; ratios to asyncio in brackets; "
    "smaller is better",
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ctask against asyncio and other event loops.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions with valgrind instead of time",
    )
    mode.add_argument(
        "--memory",
        action="store_true",
        help="bytes per pending task, future and timer instead of time",
    )
    mode.add_argument(
        "--list", action="store_true", help="list the scenarios and what one operation of each is"
    )
    mode.add_argument(
        "--from", dest="source", metavar="JSON", type=Path, help="show earlier results again"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        metavar="NAME",
        help="only this (repeatable)",
    )
    parser.add_argument(
        "--contender", action="append", choices=CONTENDERS, help="only this (repeatable)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer operations and rounds: rough figures"
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the results")
    parser.add_argument(
        "--chart", metavar="OUT.svg", type=Path, help="draw them, as SVG and PNG (needs matplotlib)"
    )
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in CONTENDERS if not options.contender or name in options.contender]
    chosen = [s for s in SCENARIOS.values() if not options.scenario or s.name in options.scenario]
    titles = {s.name: s.title for s in chosen}
    if options.memory:
        mode, titles = "memory", dict(memory.KINDS)
        found = memory.measure(names, options.quick)
    elif options.instructions:
        mode = "instructions"
        found = instructions.measure(names, chosen, options.quick)
    else:
        mode = "time"
        found = timing.measure(names, chosen, options.quick)
    return {
        "mode": mode,
        "unit": report.UNITS[mode][0],
        "how": HOW[mode] + ("; quick, hence rough" if options.quick else ""),
        "host": report.host(),
        "titles": titles,
        **found,
    }


def main() -> None:
    options = parse()
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:22}{scenario.operation}")
        return
    result = json.loads(options.source.read_text()) if options.source else measure(options)
    print(report.text(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.chart:
        if BASELINE not in result["contenders"] or len(result["contenders"]) < 2:
            raise SystemExit(f"a chart needs {BASELINE} and another contender")
        chart.draw(result, options.chart)


if __name__ == "__main__":
    main()
