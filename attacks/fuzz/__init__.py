"""What parses the bytes of a peer or of the user gets bytes that libFuzzer makes.

Each target is a module with a class Target, whose objects are called with the bytes of one case
and raise what is wrong. `supply.py` makes decisions out of bytes, `wire.c` stands in for the kernel
where a target wants it to, `build.py` compiles, `child.py` is the process in which it happens.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .._interpreter import ROOT
from . import build, planted

# How many cases there are for each of --count.
TARGETS = {"reader": 100, "addresses": 100, "datagrams": 50, "tls": 10, "command": 1}
CORPUS = Path(__file__).with_name("corpus")
SECONDS = 60  # for one case, then it hangs
LONGEST = {"reader": 400, "addresses": 160, "datagrams": 200, "tls": 120, "command": 24}


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--seconds", type=int, default=0, help="at most so long for a target")
    parser.add_argument("--case", help="a file that was reported, with its --target: again")
    parser.add_argument("--write", action="store_true", help="keep what reaches something new")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that is attacked")
    parser.add_argument("--planted", action="store_true", help="is found what is planted?")
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout that is attacked")
    args = parser.parse_args(options)
    args.target = args.target or list(TARGETS)
    if args.case and len(args.target) != 1:
        parser.error("--case needs its --target")
    return args


def told(output: str) -> list[str]:
    """The lines of libFuzzer's output that say what is wrong."""
    lines = output.splitlines()
    begins = [
        i
        for i, line in enumerate(lines)
        if re.search(r"Traceback|ERROR: |runtime error:|Error(: |$)|Differs", line)
    ]
    here = [line for line in lines[begins[0] :] if not re.match(r" +#\d+ .*(python|driver)", line)]
    end = next((i for i, line in enumerate(here) if i and re.match(r"={5}|SUMMARY|NOTE", line)), 30)
    return here[: min(end, 30)] if begins else lines[-10:]


def fuzz(target: str, seed: int, count: int, args: argparse.Namespace, folder: Path) -> int:
    """One run; returns how many faults it found: one, as it ends there."""
    program = build.program(target, args.source, args.python)
    fresh = folder / target
    fresh.mkdir()
    found = build.BUILT / "found" / f"{target}-"
    found.parent.mkdir(exist_ok=True)
    kept = CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    command = [
        str(program),
        f"-seed={seed}",
        f"-runs={count * TARGETS[target]}",
        f"-timeout={SECONDS}",
        f"-artifact_prefix={found}",
        f"-max_len={LONGEST[target]}",
        "-len_control=0",  # long ones from the beginning: a program of some steps
        f"-max_total_time={args.seconds}",
        "-print_final_stats=1",
    ]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, args.case] if args.case else [*command, str(fresh), str(kept)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    took = time.monotonic() - begun
    runs = re.search(r"number_of_executed_units: *(\d+)", done.stdout)
    features = re.findall(r" ft: (\d+) ", done.stdout)
    print(
        f"{target:10} {runs[1] if runs else '?':>8} cases, {(features or ['?'])[-1]:>6} features,"
        f" {len(list(fresh.iterdir()))} new, {took:.1f} s",
        flush=True,
    )
    if done.returncode == 0:
        if args.write and not args.case:
            merge(program, kept, fresh)
        return 0
    case = re.search(r"Test unit written to (\S+)", done.stdout)
    print(f"  --target {target} --case {case[1] if case else args.case}")
    print(*(f"      {line}" for line in told(done.stdout)), sep="\n", flush=True)
    return 1


def merge(program: Path, kept: Path, fresh: Path) -> None:
    """The smallest cases that reach all that is reached by these, in place of what was kept."""
    smaller = fresh.with_name(f"{kept.name}-merged")
    smaller.mkdir()
    command = [str(program), "-merge=1", "-use_counters=0", str(smaller), str(fresh), str(kept)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    for path in kept.iterdir():
        path.unlink()
    for path in smaller.iterdir():
        shutil.copy(path, kept)


def find_planted(seed: int, count: int, args: argparse.Namespace, folder: Path) -> int:
    """How many faults of planted.py are not found."""
    missed = 0
    for number, faults in enumerate(planted.builds()):
        copy = folder / str(number)
        copy.mkdir()
        planted.plant(faults, args.source, copy)
        for fault in faults:
            if fault.target in args.target:
                print(f"{fault.target}: {fault.what}")
                attacked = argparse.Namespace(**{**vars(args), "source": copy, "write": False})
                missed += not fuzz(fault.target, seed, count, attacked, copy)
    return missed


def run(seed: int, count: int, options: list[str]) -> int:
    """A fault is what a target raises, what a sanitizer reports, a crash, and no end.

    `count` is a hundredth of the cases of a fast target.
    """
    args = parse(options)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if args.planted:
                return find_planted(seed, count, args, Path(folder))
            return sum(fuzz(name, seed, count, args, Path(folder)) for name in args.target)
    except build.NotBuilt as error:
        print(f"fuzz: {error}", file=sys.stderr)
        sys.exit(2)
