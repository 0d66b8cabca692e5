"""The command line: what to measure, on whom, and where to write it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .contenders import BASELINE, CONTENDERS, NETWORK_CONTENDERS, OBSERVED, WHEEL, WHEEL_FOLDER
from .drawing import chart, report
from .drivers import floors, instructions, latency, memory, network, real, scale, timing
from .subjects import traffic
from .subjects.core import SCENARIOS

HOW = {
    "time": "CPU time (user and system), median of the rounds; ratios to asyncio with the least "
    "and the greatest of any round; garbage collector on, as users have it; smaller is better",
    "instructions": "callgrind, user space, differences of n and 3n operations; hash seed 0, "
    "garbage collector frozen and off; ratios to asyncio in brackets; smaller is better",
    "memory": "growth of the resident set per object; ratios to asyncio in brackets; "
    "smaller is better",
    "scale": "CPU time (user and system) per operation with so many alive at once, median of the "
    "rounds (with the garbage collector on there is one); callgrind, collector off; growth is from "
    "1000 to the last column; smaller is better",
    "latency": "real time; p50 / p99 / p99.9 / worst, the first three medians of the rounds where "
    "each has enough samples, else of all together, and left out where even these are too few; "
    "one connection with one request in flight, client in C on another core; garbage collector on; "
    "smaller is better",
    "floors": "callgrind, user space, differences of n and 3n operations; hash seed 0, garbage "
    "collector frozen and off; the floor is the scenario's own Python code with asyncio's names "
    "doing nothing; functions by what they cost more than there",
    "served": "callgrind, user space, difference of n and 3n requests to a server; hash seed 0; "
    "ratios to asyncio in brackets; smaller is better",
    "network": "CPU time (user and system, all threads) of the server's process per request; "
    "median of the rounds; ratios to asyncio in brackets; client in C, on another core if there is "
    "more than one connection; garbage collector on; smaller is better",
    "programs": "CPU time (user and system, all threads) of the program's process per request; "
    "median of the rounds; ratios to asyncio in brackets; what it talks to has another core; "
    "garbage collector on; smaller is better, but for the rates",
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
        help="bytes per pending task, timer, queue item, connection and others instead of time",
    )
    mode.add_argument(
        "--programs",
        action="store_true",
        help="requests per second of uvicorn, aiohttp, asyncpg and others",
    )
    mode.add_argument(
        "--scale",
        action="store_true",
        help="cost per operation with 10 to 1 000 000 tasks, timers, callbacks and queue items; "
        "loops in threads",
    )
    mode.add_argument(
        "--latency",
        action="store_true",
        help="how long echoes, signals, timers and children wait while the loop is busy",
    )
    mode.add_argument(
        "--floors",
        action="store_true",
        help="instructions of ctask above those of the scenarios' own Python code, by function",
    )
    mode.add_argument(
        "--list", action="store_true", help="list the scenarios and what one operation of each is"
    )
    mode.add_argument(
        "--from", dest="source", metavar="JSON", type=Path, help="show earlier results again"
    )
    parser.add_argument(
        "--network",
        action="store_true",
        help="CPU time, or --instructions, of servers per request instead of the core's scenarios",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[
            *SCENARIOS,
            *traffic.SCENARIOS,
            *real.PROGRAMS,
            *scale.KINDS,
            *latency.LOADS,
            *latency.KINDS,
        ],
        metavar="NAME",
        help="only this (repeatable)",
    )
    parser.add_argument(
        "--contender",
        action="append",
        choices=(*NETWORK_CONTENDERS, *OBSERVED),
        help="only this (repeatable)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer operations and rounds: rough figures"
    )
    parser.add_argument(
        "--size",
        action="append",
        type=traffic.size_of,
        default=[],
        metavar="BYTES",
        help="network: requests of this size, such as 1k (repeatable)",
    )
    parser.add_argument(
        "--connections",
        action="append",
        type=int,
        default=[],
        metavar="N",
        help="network: so many, each with one request in flight (repeatable)",
    )
    parser.add_argument(
        "--raised-malloc",
        action="store_true",
        help="network: servers keep freed memory (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_)",
    )
    parser.add_argument(
        "--wheel",
        metavar="DIR",
        type=Path,
        help="also measure the ctask in this folder (from pip install --target), as ctask-wheel: "
        "time, --instructions or --scale",
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the results")
    parser.add_argument(
        "--chart", metavar="OUT.svg", type=Path, help="draw them, as SVG and PNG (needs matplotlib)"
    )
    options = parser.parse_args()
    if options.scale and options.chart:
        parser.error("--scale has no chart")
    if options.network and options.memory:
        parser.error("--memory measures connections, too: without --network")
    core_only = (
        options.network or options.programs or options.memory or options.floors or options.latency
    )
    if options.wheel and core_only:
        parser.error("--wheel is for time, --instructions and --scale of the core")
    return options


def chosen(known: Iterable[str], asked: list[str] | None) -> list[str]:
    """Of the known names those asked for, or all; in the order of the tables."""
    return [name for name in known if not asked or name in asked]


def measure_network(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """How it was measured, and what was found."""
    names = chosen(NETWORK_CONTENDERS, options.contender)
    scenarios = [traffic.SCENARIOS[name] for name in chosen(traffic.SCENARIOS, options.scenario)]
    loads = {s: s.selected(options.size, options.connections) for s in scenarios}
    if options.instructions:
        return HOW["served"], instructions.measure_network(names, loads, options.quick)
    found = network.measure(names, loads, raised_malloc=options.raised_malloc, quick=options.quick)
    malloc = "; malloc's thresholds raised" if options.raised_malloc else ""
    return HOW["network"] + malloc, found


def measure_programs(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """How it was measured, and what was found."""
    programs = [real.PROGRAMS[name] for name in chosen(real.PROGRAMS, options.scenario)]
    names = chosen(CONTENDERS, options.contender)
    return HOW["programs"], real.measure(names, programs, options.quick)


def measure_core(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """How it was measured, and what was found."""
    if options.memory:
        known = NETWORK_CONTENDERS if options.contender else CONTENDERS
        found = memory.measure(chosen(known, options.contender), options.quick)
        return HOW["memory"], {"titles": memory.TITLES, **found}
    names = chosen((*CONTENDERS, *OBSERVED) if options.contender else CONTENDERS, options.contender)
    if options.wheel:
        os.environ[WHEEL_FOLDER] = str(options.wheel.resolve())
        names.append(WHEEL)
    if options.scale:
        kinds = chosen(scale.KINDS, options.scenario)
        return HOW["scale"], scale.measure(names, kinds, options.quick)
    scenarios = [SCENARIOS[name] for name in chosen(SCENARIOS, options.scenario)]
    titles = {s.name: s.title for s in scenarios}
    if options.floors:
        return HOW["floors"], {"titles": titles, **floors.measure(scenarios)}
    if options.instructions:
        found = instructions.measure(names, scenarios, options.quick)
        return HOW["instructions"], {"titles": titles, **found}
    return HOW["time"], {"titles": titles, **timing.measure(names, scenarios, options.quick)}


def measure_latency(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """How it was measured, and what was found."""
    loads = [name for name in options.scenario or () if name in latency.LOADS]
    kinds = [name for name in options.scenario or () if name in latency.KINDS]
    names = chosen(CONTENDERS, options.contender)
    return HOW["latency"], latency.measure(
        names, chosen(latency.LOADS, loads), chosen(latency.KINDS, kinds), options.quick
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    known: Iterable[str] = scale.KINDS if options.scale else SCENARIOS
    if options.network or options.programs:
        known = traffic.SCENARIOS if options.network else real.PROGRAMS
    if options.latency:
        known = [*latency.LOADS, *latency.KINDS]
    if options.scenario and not chosen(known, options.scenario):
        raise SystemExit("no such scenario here; --list tells which belong where")
    if options.latency:
        how, found = measure_latency(options)
    elif options.programs:
        how, found = measure_programs(options)
    else:
        how, found = (measure_network if options.network else measure_core)(options)
    mode = "time"
    if options.latency:
        mode = "latency"
    elif options.programs:
        mode = "programs"
    elif options.instructions:
        mode = "instructions"
    elif options.memory:
        mode = "memory"
    elif options.scale:
        mode = "scale"
    elif options.floors:
        mode = "floors"
    elif options.network:
        mode = "network"
    return {
        "mode": mode,
        "unit": report.UNITS[mode][0],
        "how": how + ("; quick, hence rough" if options.quick else ""),
        "host": report.host(),
        **found,
    }


def main() -> None:
    options = parse()
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:22}{scenario.operation}")
        for kind, (title, _) in scale.KINDS.items():
            print(f"{kind:22}--scale: {title}")
        for over_network in traffic.SCENARIOS.values():
            print(f"{over_network.name:22}--network: {over_network.title}")
        for load, title in [*latency.LOADS.items(), *latency.KINDS.items()]:
            print(f"{load:22}--latency: {title}")
        for program in real.PROGRAMS.values():
            print(f"{program.name:22}--programs: {program.title}")
        return
    result = json.loads(options.source.read_text()) if options.source else measure(options)
    own = {"scale": scale.text, "floors": floors.text, "latency": latency.text}.get(result["mode"])
    print(report.text(result, own and own(result)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.chart:
        if BASELINE not in result["contenders"] or len(result["contenders"]) < 2:
            raise SystemExit(f"a chart needs {BASELINE} and another contender")
        draw = chart.draw_curves if result["mode"] == "latency" else chart.draw
        draw(result, options.chart)


if __name__ == "__main__":
    main()
