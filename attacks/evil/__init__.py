"""Objects whose Python code does the worst, at every point where C calls Python.

`points.py` finds those points in the C source, `points.tsv` is the table of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

from .._interpreter import command, environment
from . import points
from .programs import PROGRAMS

GAVE_UP = 77
SECONDS = 12  # for a program, then it hangs
STEPS = 40

# What is not ctask's, with the reason: part of what was reported.
ACCEPTED: list[tuple[str, str]] = []


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks evil", description=__doc__)
    parser.add_argument("--points", action="store_true", help="list those of the source")
    parser.add_argument("--check", action="store_true", help="is the table that of the source?")
    parser.add_argument("--write", action="store_true", help="make the table that of the source")
    parser.add_argument("--program", action="append", choices=sorted(PROGRAMS), help="default: all")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each program")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--no-shrink", action="store_true", help="report programs as they were")
    parser.add_argument(
        "--mark", action="store_true", help="write into the table whom the programs reached"
    )
    parser.add_argument("--verbose", action="store_true", help="tell of each program")
    parser.add_argument("--case", help="one that was reported, to see it again")
    return parser.parse_args(options)


def check() -> int:
    """How many differences there are; and how far the attack has come."""
    table = points.read()
    found = points.differences(points.listed(), table, set(PROGRAMS))
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        print("python -m attacks evil --write writes the rows; look at what they are about")
    state = Counter({"-": 0, "none": 0})
    state.update(row.programs if row.programs in ("-", "none") else "attacked" for row in table)
    print(
        f"evil table: {len(table)} functions, {state['attacked']} attacked,"
        f" {state['none']} where nothing foreign runs, {state['-']} not attacked yet"
    )
    return len(found)


class Case(NamedTuple):
    program: str
    seed: str
    steps: tuple[int, ...]

    def written(self) -> str:
        return f"{self.program}:{self.seed}:{','.join(map(str, self.steps))}"


class Outcome(NamedTuple):
    fault: str
    out: str
    err: str


def play(python: str, case: Case, marks: bool = False, aloud: bool = False) -> Outcome:
    """One program in a process of its own; a fault is a crash, a hang, a SystemError."""
    plan = {**case._asdict(), "marks": marks, "aloud": aloud}
    with subprocess.Popen(
        command(python, "evil.child", plan),
        env={"PYTHONMALLOC": "debug", **environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        fault = ""
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            fault = "hangs"
    if process.returncode < 0 and not fault:
        fault = f"crash (signal {-process.returncode})"
    elif "SystemError: " in out:
        fault = next(line for line in out.splitlines() if line.startswith("SystemError: "))
    elif process.returncode == GAVE_UP:
        fault = "gave up"
    elif not fault and ("stands" not in out or process.returncode):
        fault = f"ended with {process.returncode}"
    return Outcome(fault, out, err)


def shrunk(python: str, case: Case, fault: str, seconds: float) -> Case:
    """Fewer steps that end the same way: by halves, then one by one."""
    end = time.monotonic() + seconds
    size = len(case.steps) // 2
    while size:
        begin = 0
        while begin < len(case.steps) and time.monotonic() < end:
            fewer = case._replace(steps=case.steps[:begin] + case.steps[begin + size :])
            if play(python, fewer).fault == fault:
                case = fewer
            else:
                begin += size
        size //= 2
    return case


def reached(path: str, places: set[int]) -> set[tuple[str, str]]:
    """The functions of the table in which these return addresses are, inlined or not."""
    if not places:
        return set()
    command = ["addr2line", "-fie", path, "-a", *(hex(place - 1) for place in sorted(places))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {row.place for row in points.read()}
    found = set()
    fresh = False
    for name, where in pairwise(lines):
        if name.startswith("0x"):
            fresh = True
        elif fresh and ":" in where and "/" in where:
            file = where.split(":")[0]
            file = file.rpartition("/src/")[2] if "/src/" in file else file.rpartition("/")[2]
            if (file, name) in rows:
                found.add((file, name))
                fresh = False
    return found


def mark(found: dict[tuple[str, str], set[str]]) -> None:
    """Programs are added to the rows; who has been there once is not forgotten."""
    rows = []
    for row in points.read():
        if row.place in found:
            said = set() if row.programs in ("-", "none") else set(row.programs.split())
            names = " ".join(sorted(said | found[row.place], key=list(PROGRAMS).index))
            row = row._replace(programs=names, note="" if row.programs == "none" else row.note)
        rows.append(row)
    points.write(rows)


def report(case: Case, outcome: Outcome) -> None:
    print(f"  --case {case.written()}")
    print(f"      {outcome.fault}")
    lines = outcome.err.splitlines()
    for line in [line for line in lines if not line.startswith("step ")][:14]:
        print(f"      {line[:150]}")
    sys.stdout.flush()


def attack(seed: int, count: int, args: argparse.Namespace) -> int:
    names = args.program or list(PROGRAMS)
    ends = Counter[str]()
    found: dict[tuple[str, str], set[str]] = {}
    places: dict[str, tuple[str, set[int]]] = {}
    faults = 0
    for number in range(args.first, args.first + count):
        case = Case(names[number % len(names)], f"{seed}.{number}", tuple(range(args.steps)))
        outcome = play(args.python, case, args.mark)
        known = any(text in outcome.fault + outcome.err for text, _ in ACCEPTED)
        if args.verbose:
            print(case.program, case.seed, outcome.fault or "stands", flush=True)
        ends["known" if known else outcome.fault.partition(":")[0] or "stand"] += 1
        if args.mark and outcome.out.count("{"):
            told: dict[str, Any] = json.loads(outcome.out[outcome.out.index("{") :].splitlines()[0])
            places.setdefault(case.program, (told["path"], set()))[1].update(told["places"])
        if outcome.fault and outcome.fault != "gave up" and not known:
            faults += 1
            if not args.no_shrink and outcome.fault != "hangs":
                case = shrunk(args.python, case, outcome.fault, 60)
                outcome = play(args.python, case)
            report(case, outcome)
    for program, (path, there) in places.items():
        for place in reached(path, there):
            found.setdefault(place, set()).add(program)
    if args.mark:
        mark(found)
        print(f"{len(found)} functions were reached")
    print(", ".join(f"{number} {end}" for end, number in ends.most_common()))
    return faults


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is a program that crashes, hangs, or meets a SystemError."""
    args = parse(options)
    if args.write:
        points.write(points.merged(points.listed(), points.read()))
    if args.points:
        for row in points.listed():
            print(f"src/{row.file}: {row.function}(): {row.kinds}")
        return 0
    if args.check or args.write:
        return check()
    if args.case:
        program, seeds, steps = args.case.split(":")
        case = Case(program, seeds, tuple(map(int, filter(None, steps.split(",")))))
        outcome = play(args.python, case, aloud=True)
        print(outcome.out, outcome.err, sep="\n")
        return int(bool(outcome.fault))
    return attack(seed, count, args)
