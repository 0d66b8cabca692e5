"""Faults that ctask had, brought back one by one: does an attack find each?

`table.py` has them, each with the edit that brings it, or one of exactly its kind, back, and with
the attack that has to find it. The same attacks have to be silent about the source as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .._edits import built
from .._interpreter import ROOT
from .table import MENDS, Mend

NOTHING = "nothing"  # the control: the source as it is
OPTIONS = {
    "transports": ("--faults", "1", "--shrink", "0"),
    "programs": ("--stop", "1", "--no-shrink"),
    "evil": ("--no-shrink",),
}
# How an attack says that it has found something, and the number of what it had made by then.
REPORTS = {
    "transports": (re.compile(r"---- 1: program \d+-(\d+)"), 1, "programs"),
    "programs": (re.compile(r"==== seed (\d+)"), 0, "programs"),
    "evil": (re.compile(r"  --case [\w-]+:\d+\.(\d+):"), 1, "programs"),
    "interrupts": (re.compile(r"  --first (\d+): "), 1, "times 500 signals"),
    "soak": (re.compile(r"  --scenario (?=\w)()"), 0, "scenario"),
    "faults": (re.compile(r"  --case ()"), 0, "case"),
    "tests": (re.compile(r"FAILED ()|ERROR "), 0, "test"),
}


class Outcome(NamedTuple):
    after: str  # "" if nothing was found
    seconds: float
    output: str


def command(attack: tuple[str, ...], seed: int) -> list[str]:
    name, *args = attack
    if name == "tests":
        paths = [str(ROOT / "tests" / arg) if arg.endswith(".py") else arg for arg in args]
        return [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-rfE",
            "-p",
            "no:cacheprovider",
            *paths,
        ]
    options = OPTIONS.get(name, ())
    return [sys.executable, "-u", "-m", "attacks", name, "--seed", str(seed), *args, *options]


def attacked(attack: tuple[str, ...], seed: int, package: Path, seconds: float = 400) -> Outcome:
    """Run an attack on the ctask in this folder until it finds something."""
    report, offset, unit = REPORTS[attack[0]]
    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT}", "PYTHONSAFEPATH": "1"}
    if attack[0] == "tests" and "test_evil" in attack[1]:
        environment["PYTHONMALLOC"] = "debug"  # what was freed is no object any more
    begun = time.monotonic()
    output = found = ""
    with subprocess.Popen(
        command(attack, seed),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=package.parent,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        while not found:
            left = begun + seconds - time.monotonic()
            if left < 0 or not select.select([descriptor], [], [], left)[0]:
                output += "\nno time left"
                break
            data = os.read(descriptor, 1 << 16)
            if not data:
                status = process.wait()
                if attack[0] == "tests" and (status == 1 or status < 0):
                    found = f"1 {unit}"  # it hung or crashed, and was ended without a word
                break
            output += data.decode(errors="replace")
            if match := report.search(output):
                number = match[1] or ""
                counts = number and int(number) + offset - (
                    seed - 1 if attack[0] == "programs" else 0
                )
                found = f"{counts} {unit}".strip() if number else f"1 {unit}"
        end(process)
    return Outcome(found, time.monotonic() - begun, output)


def end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def line(name: str, attack: tuple[str, ...], told: str, seconds: float) -> str:
    return f"| {name} | `{' '.join(attack)}` | {told} | {seconds:.0f} |"


def brought_back(mend: Mend, seed: int, seconds: float, verbose: bool) -> bool:
    """Print the row of a fault; was it found?"""
    with tempfile.TemporaryDirectory() as folder:
        outcome = attacked(mend.attack, seed, built(mend.edits, Path(folder)), seconds)
    print(line(mend.name, mend.attack, outcome.after or "NOT FOUND", outcome.seconds), flush=True)
    if verbose:
        print(outcome.output)
    return bool(outcome.after)


def silent(attacks: list[tuple[str, ...]], seed: int, seconds: float) -> int:
    """Print a row for each attack on the source as it is; how many found something."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        package = built((), Path(folder))
        for attack in attacks:
            outcome = attacked(attack, seed, package, seconds)
            told = f"FOUND, {outcome.after}" if outcome.after else "nothing"
            print(line(NOTHING, attack, told, outcome.seconds), flush=True)
            if outcome.after:
                wrong += 1
                print(outcome.output)
    return wrong


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is one that is not found, or one that is found though nothing was edited."""
    names = [mend.name for mend in MENDS]
    parser = argparse.ArgumentParser(prog="python -m attacks mends", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help=f"of a fault, of a group, or {NOTHING}"
    )
    parser.add_argument("--seconds", type=float, default=400, help="at most, for an attack")
    parser.add_argument("--verbose", action="store_true", help="print what the attack said")
    args = parser.parse_args(options)
    only = args.only or [*names, NOTHING]
    if unknown := set(only) - {*names, *(mend.group for mend in MENDS), NOTHING}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    here = [mend for mend in MENDS if mend.since <= sys.version_info[:2] <= mend.until]
    wrong = 0
    print("| fault that was brought back | attack | found after | seconds |\n|---|---|---|---|")
    for mend in here:
        if mend.name in only or mend.group in only:
            wrong += not brought_back(mend, seed, args.seconds, args.verbose)
    if NOTHING in only:
        wrong += silent(list(dict.fromkeys(mend.attack for mend in here)), seed, args.seconds)
    for mend in MENDS:
        if mend not in here and mend.name in only:
            print(f"{mend.name}: not on this version of Python")
    return wrong
