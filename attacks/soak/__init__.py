"""Long runs: does memory grow, do descriptors, threads or tasks, is somebody not served?

`scenarios.py` is what runs, `watch.py` runs one in a process of its own, looks at that process
after each of its parts, and says whether it is flat.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from .._interpreter import command, environment


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks soak", description=__doc__)
    parser.add_argument("--scenario", action="append", default=[], help="default: all")
    parser.add_argument("--file", action="append", default=[], help="Python code with more of them")
    parser.add_argument("--candidate", default="ctask", choices=("ctask", "asyncio"))
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--patience", type=float, default=0, help="seconds for a part; 0: enough")
    return parser.parse_args(options)


def play(plan: dict[str, Any], python: str) -> list[dict[str, Any]]:
    """What the process told; a crash is a fault as well."""
    done = subprocess.run(
        command(python, "soak.watch", plan, "-X", "faulthandler"),
        capture_output=True,
        text=True,
        env=environment(),
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not told:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        told.append({"faults": [f"ended with {done.returncode}\n{tail}"], "text": ""})
    return told


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is a scenario that is not flat or serves somebody not; `count` scales all of them.

    100 take a minute, 10000 are the long form.
    """
    args = parse(options)
    plan = {
        "seed": seed,
        "count": count,
        "candidate": args.candidate,
        "files": args.file,
        "patience": args.patience or max(60, count / 10),
    }
    names = args.scenario
    if not names:
        (told,) = play({**plan, "scenario": None}, args.python)
        names = told["names"]
    found = 0
    for name in names:
        for told in play({**plan, "scenario": name}, args.python):
            print(f"{name:14} {told['text']}", flush=True)
            for fault in told["faults"]:
                found += 1
                print(f"  --scenario {name}: {fault}", flush=True)
    return found
