"""Objects whose Python code does the worst, at every point where C calls Python.

`points.py` finds those points in the C source, `points.tsv` is the table of them.
"""

from __future__ import annotations

import argparse
from collections import Counter

from . import points

PROGRAMS: dict[str, object] = {}


def parse(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m attacks evil", description=__doc__)
    parser.add_argument("--points", action="store_true", help="list those of the source")
    parser.add_argument("--check", action="store_true", help="is the table that of the source?")
    parser.add_argument("--write", action="store_true", help="make the table that of the source")
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


def run(seed: int, count: int, options: list[str]) -> int:
    args = parse(options)
    if args.write:
        points.write(points.merged(points.listed(), points.read()))
    if args.points:
        for row in points.listed():
            print(f"src/{row.file}: {row.function}(): {row.kinds}")
        return 0
    return check()
