"""Every allocation and every system call of the loop fails in turn.

`wrap.c` is what lets them fail, `scenarios.py` what is attacked, `child.py` the process in which
that is done, and `calls.py` says with which errors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.native import compiled

from .._interpreter import ROOT, command, environment

KINDS = ("syscalls", "malloc", "memory")

STOCK_TRANSPORT = "is used by transport <_SelectorSocketTransport"


class Accepted(NamedTuple):
    """What is not ctask's, with the reason; all else are patterns."""

    fault: str
    why: str
    scenario: str = ""
    call: str = ""
    how: str = ""
    beside: str = ""  # what has to have been raised in the same case, and where; see told_beside()


ACCEPTED = [
    Accepted(
        "nothing was raised",
        "accepting is silent but in debug mode",
        scenario="^(transports|streams)",
        call="memory",
    ),
    Accepted(
        r"^crash \(signal 11\) while running",
        "CPython's compiler does not look at each allocation (3.13.0)",
        scenario="^import_$",
        call="^memory$",
        beside="^compiled$",
    ),
    Accepted(
        r"^strange exception raised: SystemError: .* returned a result with an exception set",
        "CPython runs what it could not compile (3.13.0)",
        scenario="^import_$",
        call="^memory$",
        beside="^compiled$",
    ),
    Accepted(STOCK_TRANSPORT, "is registered though asyncio's constructor failed", call="memory"),
    Accepted(
        "not hidden",
        "sock_accept() raises it",
        scenario="sock_accept",
        call="accept4",
        how="ECONNABORTED",
    ),
    Accepted(
        "not hidden", "no kernel cuts a datagram", scenario="datagrams", call="send", how="SHORT"
    ),
    Accepted(
        r"^strange exception told: ValueError: 3 \(Task exception was never retrieved\)",
        "gather() has failed itself, and nobody else asks a child for its exception",
        scenario="^gather$",
        call="^(memory|malloc)$",
        beside="^raised: MemoryError",
    ),
    Accepted(
        r"^strange exception told: AttributeError: 'NoneType' object has no attribute 'close'"
        r" \(Exception in callback SubprocessStreamProtocol\.pipe_connection_lost\(\)\)",
        "asyncio's protocol closes its transport with each pipe, having been told of none",
        scenario="^subprocess$",
        call="^(memory|malloc)$",
        beside=r"^told: MemoryError: .*SubprocessStreamProtocol\.connection_made\(\)"
        r"|^raised: MemoryError:  \(\) _loop\.py",  # or no memory to tell of it either
    ),
]


def is_accepted(entry: Accepted, case: dict[str, Any], fault: str, beside: list[str]) -> bool:
    asked = (
        (entry.fault, fault),
        (entry.scenario, case["scenario"]),
        (entry.call, case["call"]),
        (entry.how, case["how"]),
    )
    told = not entry.beside or any(re.search(entry.beside, text) for text in beside)
    return told and all(re.search(pattern, text) for pattern, text in asked)


def told_beside(outcome: dict[str, Any]) -> list[str]:
    """What was raised and where; and whether the interpreter's compiler was without memory."""
    told = [f"{where}: {text}" for where, text, *_ in outcome.get("raised", ())]
    return [*told, "compiled"] if outcome.get("compiled") else told


def not_accepted(case: dict[str, Any], faults: list[str], outcome: dict[str, Any]) -> list[str]:
    """Of what was found; a loop that is broken cannot be closed either."""
    left = []
    beside = told_beside(outcome)
    for fault in faults:
        if not any(is_accepted(entry, case, fault, beside) for entry in ACCEPTED):
            left.append(fault)
        elif fault.startswith("the loop is broken"):
            return []
    return left


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks faults", description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--scenario", action="append", default=[], help="default: all")
    parser.add_argument(
        "--file", action="append", default=[], help="Python code with more scenarios"
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--candidate", default="ctask", choices=("ctask", "asyncio"))
    parser.add_argument(
        "--everybody", action="store_true", help="the interpreter's own calls fail, too"
    )
    parser.add_argument("--given-up", action="store_true", help="these are printed, too")
    parser.add_argument(
        "--case", action="append", default=[], help="one that was reported, to see it again"
    )
    args = parser.parse_args(options)
    args.kind = args.kind or list(KINDS)
    return args


FIELDS = ("scenario", "kind", "call", "n", "how", "times")


def written(case: dict[str, Any]) -> str:
    return ":".join(str(case[field]) for field in FIELDS)


def read(text: str) -> dict[str, Any]:
    scenario, kind, call, n, how, times = text.split(":")
    return {
        "scenario": scenario,
        "kind": kind,
        "call": call,
        "n": int(n),
        "how": how,
        "times": int(times),
    }


def functions(offsets: list[int], path: str | None) -> list[str]:
    """The names of ctask's functions that called what failed, if binutils are here."""
    if path is None or not offsets:
        return []
    command = ["addr2line", "-fse", path, *(hex(offset - 1) for offset in offsets)]
    try:
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        return list(map(hex, offsets))
    return [
        name if place[0] == "?" else f"{name} {place}"
        for name, place in zip(lines[::2], lines[1::2], strict=True)
    ]


def library() -> Path:
    """wrap.c, to preload."""
    return compiled(
        Path(__file__).with_name("wrap.c"),
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        libraries=("-ldl",),
        suffix=".so",
        folder=ROOT / "build" / "attacks",
    )


def report(told: dict[str, Any], aloud: bool) -> None:
    print(f"  --case {written(told['case'])}")
    outcome = told["outcome"]
    for fault in told["found"]:
        print(f"      {fault}")
    if outcome.get("given_up"):
        print(f"      given up while {outcome['step']}")
        for where, text, _ in outcome["raised"]:
            print(f"      {where}: {text}")
    print("      failed:", " < ".join(functions(outcome.get("where", []), told["library"])))
    if aloud:
        print(json.dumps(outcome, indent=2).replace("\\n", "\n"))
    elif outcome["trace"]:
        lines = [line.strip() for line in outcome["trace"].splitlines() if " line " in line]
        print(*(f"        {line}" for line in lines[:4]), sep="\n")


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is a case that crashes, hangs, is busy, leaks, breaks the loop, or ends strangely.

    `count` is how many cases of each scenario and kind are tried; 0: all.
    """
    args = parse(options)
    plan = {
        "seed": seed,
        "count": count,
        "kinds": [read(case)["kind"] for case in args.case] or args.kind,
        "scenarios": args.scenario,
        "files": args.file,
        "candidate": args.candidate,
        "everybody": args.everybody or args.candidate == "asyncio",
        "cases": [read(case) for case in args.case],
    }
    faults, tried = 0, Counter[str]()
    with subprocess.Popen(
        command(args.python, "faults.child", plan),
        env=environment(LD_PRELOAD=str(library())),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            told = json.loads(line)
            if "done" in told:
                tried[told["kind"]] += told["cases"]
                print(
                    f"{told['kind']:9} {told['done']:32} {told['cases']:5} of {told['of']:5} cases,"
                    f" {told['fired']:5} failed, {told['given_up']} given up,"
                    f" {told['seconds']:5.1f} s",
                    flush=True,
                )
                continue
            told["found"] = not_accepted(told["case"], told["found"], told["outcome"])
            faults += bool(told["found"])
            given_up = args.given_up and told["outcome"].get("given_up")
            if told["found"] or given_up or args.case:
                report(told, bool(args.case))
    if process.returncode:
        print(f"the attacked interpreter ended with {process.returncode}")
        faults += 1
    print(", ".join(f"{number} {kind}" for kind, number in tried.items()))
    return faults
