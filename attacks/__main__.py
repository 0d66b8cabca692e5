"""The command line: which attack, from which seed, how long."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time

from . import __path__ as here


def main() -> int:
    names = sorted(info.name for info in pkgutil.iter_modules(here) if info.name[0] != "_")
    parser = argparse.ArgumentParser(prog="python -m attacks", description="Attacks ctask.")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--count", type=int, default=100, help="of what the attack makes")
    parser.add_argument("name", choices=names)
    args, options = parser.parse_known_args()
    seed = int(time.time()) if args.seed is None else args.seed
    print(f"{args.name}: seed {seed}, count {args.count}", flush=True)
    attack = importlib.import_module(f".{args.name}", __package__)
    begun = time.monotonic()
    found: int = attack.run(seed, args.count, options)
    took = time.monotonic() - begun
    print(f"{args.name}: {found or 'nothing'} found, {took:.0f} s")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
