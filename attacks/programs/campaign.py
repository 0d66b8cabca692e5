"""The command: many programs, and the smallest form of each that differs."""

from __future__ import annotations

import argparse
import difflib
import time
from pathlib import Path

from . import mutants
from .driver import MODES, Team, reference, steady
from .generate import Program, generate
from .shrink import shrink

BATCH = 100
BUILT = Path(__file__).resolve().parents[2] / "build" / "attacks" / "programs"


def report(team: Team, program: Program, mode: str, small: bool) -> None:
    """Print the smallest program that differs, and how."""
    print(f"==== seed {program.seed}, mode {mode}")
    if small:
        program = shrink(program, lambda p: steady(team, p.source(), mode, 2) is not None)
        print(program.source())
        BUILT.mkdir(parents=True, exist_ok=True)
        path = BUILT / f"{program.seed}-{mode}.py"
        path.write_text(program.source())
        print(f"# python -m attacks.programs.world {path} {mode}, or {reference(mode)}")
    logs = steady(team, program.source(), mode, 1) or ("", "")
    right, found = (text.split("\n") for text in logs)
    told = difflib.unified_diff(right, found, reference(mode), f"ctask, {mode}", lineterm="", n=2)
    for text in told:
        print("   ", text)
    print(flush=True)


def attack(team: Team, seed: int, count: int, stop: int, small: bool) -> tuple[int, int, int]:
    """Returns how many programs were played, differed, and differed now and then only."""
    played = found = unsteady = 0
    while played < count and found < stop:
        first = seed + played
        programs = [generate(s) for s in range(first, min(first + BATCH, seed + count))]
        sources = [program.source() for program in programs]
        for program, source, modes in zip(programs, sources, team.play(sources), strict=True):
            for mode in modes:
                if steady(team, source, mode) is None:
                    unsteady += 1
                    print(f"unsteady: seed {program.seed}, {mode}", flush=True)
                    continue
                found += 1
                if found <= stop:
                    report(team, program, mode, small)
                break
        played += len(programs)
    return played, found, unsteady


def run(seed: int, count: int, options: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks programs")
    parser.add_argument("--modes", default=",".join(MODES), help="some of the four")
    parser.add_argument("--stop", type=int, default=10, help="after so many differences")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--show", action="store_true", help="only print the program of the seed")
    parser.add_argument("--mutants", action="store_true", help="does it find planted faults?")
    args = parser.parse_args(options)
    if args.show:
        print(generate(seed).source())
        return 0
    if args.mutants:
        return mutants.hunt(seed, count)
    begun = time.monotonic()
    with Team(args.modes.split(",")) as team:
        played, found, unsteady = attack(team, seed, count, args.stop, not args.no_shrink)
    took = time.monotonic() - begun
    print(f"{played} programs in each of {args.modes}, {played / took:.0f}/s; {unsteady} unsteady")
    return found
