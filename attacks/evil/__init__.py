"""Objects whose Python code does the worst, at every point where C calls Python.

`points.py` finds those points in the C source, `points.tsv` is the table of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from .._interpreter import command, environment
from . import points
from .objects import World
from .programs import PROGRAMS
from .situations import SITUATIONS

GAVE_UP = 77
SECONDS = 60  # for a program, which gives up earlier if Python code runs at all; then it hangs
STEPS = 40
MARKS = "marks "  # how the line begins in which a program tells from where it was called

# What is not ctask's, with the reason: part of what was reported.
ACCEPTED: list[tuple[str, str]] = [
    (
        "gen_send_ex2: Assertion `!PyErr_ExceptionMatches(PyExc_StopIteration)' failed",
        "a debug build's, of StopIteration thrown into any coroutine that has not begun",
    ),
]

NAMES = [*PROGRAMS, *SITUATIONS]


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks evil", description=__doc__)
    parser.add_argument("--points", action="store_true", help="list those of the source")
    parser.add_argument("--check", action="store_true", help="is the table that of the source?")
    parser.add_argument("--write", action="store_true", help="make the table that of the source")
    parser.add_argument("--program", action="append", choices=sorted(NAMES), help="default: all")
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
    found = points.differences(points.listed(), table, set(NAMES))
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


def steps_of(program: str, turn: int, number: int) -> tuple[int, ...]:
    """Of a directed program those that are next: each is a situation and a deed."""
    if program not in SITUATIONS:
        return tuple(range(number))
    every = len(SITUATIONS[program]) * len(World.DEEDS)
    return tuple(i % every for i in range(turn * number, turn * number + min(number, every)))


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


def reached(path: str, chains: Iterable[tuple[int, ...]]) -> set[tuple[str, str]]:
    """The functions, and macros, of the table whose points these return addresses are.

    The first of a chain called Python. The others called ctask's functions, mostly by dropping what
    was the last reference: they count if their line has a point.
    """
    nearest = {chain[0] for chain in chains}
    places = sorted({place for chain in chains for place in chain})
    if not places:
        return set()
    command = ["addr2line", "-fie", path, "-a", *(hex(place - 1) for place in places)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {row.place for row in points.read()}
    found = set()
    near = False
    for name, where in pairwise(lines):
        if name.startswith("0x"):
            near = int(name, 16) + 1 in nearest
        place = re.match(r".*?(?:/src/|/)((?:\w+/)?\w+\.[ch]):(\d+)", where)
        if not place or name.startswith("0x"):
            continue
        name = name.partition(".")[0]  # of its parts the compiler may make functions
        file = place[1] if "/src/" in where else place[1].rpartition("/")[2]
        line = points.line(file, int(place[2]))
        words = set(re.findall(r"\w+(?=[()])", line))  # CALLED(...), or LIST(CALLED)
        macros = {(at, macro) for at, macro in rows if macro[0] == "#" and macro[1:] in words}
        found |= macros
        if (file, name) in rows and (near or macros or points.kinds_of(line)):
            found.add((file, name))
            near = False
    return found


def mark(found: dict[tuple[str, str], set[str]]) -> None:
    """Programs are added to the rows; who has been there once is not forgotten."""
    rows = []
    for row in points.read():
        if row.place in found:
            said = set() if row.programs in ("-", "none") else set(row.programs.split())
            names = " ".join(sorted(said | found[row.place], key=NAMES.index))
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
    names = args.program or NAMES
    ends = Counter[str]()
    found: dict[tuple[str, str], set[str]] = {}
    places: dict[str, tuple[str, set[tuple[int, ...]]]] = {}
    faults = 0
    for number in range(args.first, args.first + count):
        turn, name = number // len(names), names[number % len(names)]
        case = Case(name, f"{seed}.{number}", steps_of(name, turn, args.steps))
        outcome = play(args.python, case, args.mark)
        known = any(text in outcome.fault + outcome.err for text, _ in ACCEPTED)
        if args.verbose:
            print(case.program, case.seed, outcome.fault or "stands", flush=True)
        ends["known" if known else outcome.fault.partition(":")[0] or "stand"] += 1
        for line in outcome.out.splitlines() if args.mark else ():
            if line.startswith(MARKS):
                path, chains = json.loads(line.removeprefix(MARKS))
                places.setdefault(case.program, (path, set()))[1].update(map(tuple, chains))
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
