"""Signal handlers raise at random moments, and the loop is run on.

`members.py` is what is at work, each with what it promises; `ride.py` runs the loop, sends the
signals and looks at what came of it, in a process of its own for some hundreds of signals.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from random import Random
from typing import Any

from .._interpreter import command, environment

EACH = 500  # signals of one process


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks interrupts", description=__doc__)
    parser.add_argument("--candidate", default="ctask", choices=("ctask", "asyncio"))
    parser.add_argument("--member", action="append", default=[], help="only these; default: all")
    parser.add_argument("--sender", action="append", choices=("timer", "thread", "child"))
    parser.add_argument("--file", action="append", default=[], help="Python code that is run first")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--first", type=int, default=0, help="the number of the first process")
    parser.add_argument("--seconds", type=float, default=120, help="for a process")
    return parser.parse_args(options)


def play(plan: dict[str, Any], python: str) -> dict[str, Any]:
    """What a process tells at its end; a crash or a hang in its place."""
    try:
        done = subprocess.run(
            command(python, "interrupts.ride", plan, "-X", "faulthandler"),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=plan["seconds"] + 60,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return {"faults": ["hangs"]}
    last = done.stdout.splitlines()[-1:]
    if done.returncode or not last:
        tail = "\n".join(done.stderr.splitlines()[-30:])
        return {"faults": [f"ended with {done.returncode}\n{tail}"]}
    told: dict[str, Any] = json.loads(last[0])
    return told


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is a promise of a member that was not kept; `count` is the number of signals."""
    args = parse(options)
    found, signals, places = 0, 0, Counter[str]()
    for number in range(args.first, args.first + -(-count // EACH)):
        random = Random(f"{seed}-{number}")
        told = play(
            {
                "seed": random.random(),
                "signals": min(EACH, count - signals) if count > signals else EACH,
                "members": args.member,
                "senders": args.sender or ["timer", "thread", "child"],
                "candidate": args.candidate,
                "files": args.file,
                "seconds": args.seconds,
            },
            args.python,
        )
        signals += told.get("raised", 0)
        places.update(told.get("places", {}))
        found += len(told["faults"])
        for fault in told["faults"]:
            print(f"  --first {number}: {fault}", flush=True)
    print(
        f"{signals} signals raised:", *(f"{n} in {where}," for where, n in places.most_common(12))
    )
    return found
