"""Threads call loops at random moments: is each call that was taken run once, in order, in time?

`histories.py` is what threads do, and the rule; a process plays some dozens of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from typing import Any

from .._interpreter import command, environment

EACH = 50  # histories of one process
KINDS = ("calls", "forks", "signals", "loops", "objects", "imports", "interpreters")


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks threads", description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these; default: all")
    parser.add_argument("--candidate", default="ctask", choices=("ctask", "asyncio"))
    parser.add_argument("--file", action="append", default=[], help="Python code that is run first")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--first", type=int, default=0, help="the number of the first history")
    parser.add_argument("--seconds", type=float, default=60, help="for a history; then it hangs")
    return parser.parse_args(options)


def play(plan: dict[str, Any], python: str) -> tuple[list[dict[str, Any]], str]:
    """What each history told, and how the process ended if it did not as it should."""
    done = subprocess.run(
        command(python, "threads.child", plan, "-X", "faulthandler"),
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    tail = "\n".join(done.stderr.splitlines()[-60:])
    if done.returncode == 0:
        if tail:
            print(tail)  # of a child that was aborted
        return told, ""
    return told, f"hangs or crashes, ended with {done.returncode}\n{tail}"


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is a history in which the rule was broken; `count` is the number of histories."""
    args = parse(options)
    found, played, calls = 0, Counter[str](), 0
    number, end = args.first, args.first + count
    while number < end:
        numbers = list(range(number, min(number + EACH, end)))
        plan = {
            "seed": seed,
            "numbers": numbers,
            "kinds": args.kind or KINDS,
            "candidate": args.candidate,
            "files": args.file,
            "seconds": args.seconds,
        }
        told, ended = play(plan, args.python)
        for one in told:
            played[one["kind"]] += 1
            calls += one["calls"]
            found += len(one["faults"])
            for fault in one["faults"]:
                print(f"  --first {one['number']}: {one['kind']}: {fault}", flush=True)
        number = numbers[-1] + 1
        if ended:
            found += 1
            number = numbers[len(told)] + 1 if len(told) < len(numbers) else number
            print(f"  --first {number - 1}: {ended}", flush=True)
    print(f"{calls} calls by threads in", *(f"{n} {kind}," for kind, n in sorted(played.items())))
    return found
