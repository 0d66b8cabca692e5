"""Fails when a scenario costs more instructions than was recorded: `python -m benchmarks.guard`.

recorded.json has ctask's instructions per operation (see instructions.py) by version of Python,
with what they were counted on. On the same interpreter, compiler and libraries a figure repeats
within 0.2 %: if one grew by more than 3 %, the source has made it so, and the status is 1.

Elsewhere the same source has other figures, and asyncio's own, counted beside them, do not tell
by how much (README.md has the measurement). There the guard builds the commit that recorded the
figures, with this interpreter and compiler, and counts both. Where it cannot, for want of the
repository or of setuptools, it says so and the status is 0: nothing is known.

A module and not a script: what is measured is the interpreter that runs it, and its ctask.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from . import contenders
from .drawing import report
from .drivers import instructions
from .paths import ROOT
from .subjects.core import SCENARIOS, Scenario

RECORD = Path(__file__).with_name("recorded.json")
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
ALLOWED = 0.03
# What repeats less well may grow by so much.
LOOSE = {
    "call_soon_threadsafe": (
        0.12,
        "the kernel decides in which order its two threads run: it repeats within 6 %",
    )
}

Figures = dict[str, float]  # by scenario


class Unknown(Exception):
    """There is nothing to compare with; the message says why."""


# ---- what is measured ----


def compiler(extension: bytes) -> str:
    """Who compiled it, with the options if it has debugging information."""
    for pattern in (rb"GNU (?:C|GIMPLE)\d*[^\0]+", rb"(?:GCC: \(|clang version )[^\0]+"):
        if found := re.search(pattern, extension):
            return found[0].decode(errors="replace")
    return "unknown"


def environment() -> dict[str, str]:
    """All that decides, beside the source, how many instructions an operation takes."""
    contenders.prefer_compiled()
    spec = importlib.util.find_spec("ctask._ctask")
    if spec is None or spec.origin is None:
        raise SystemExit("ctask is not compiled here")
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True)
    return {
        "python": " ".join(sys.version.split()),
        "compiler": compiler(Path(spec.origin).read_bytes()),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "unknown",
        "machine": platform.machine(),
        "valgrind": valgrind.stdout.strip(),
    }


def count(scenarios: list[Scenario]) -> Figures:
    """Of this interpreter's ctask."""
    found = instructions.measure(["ctask"], scenarios, quick=False)
    if found["absent"]:
        raise SystemExit(f"ctask is absent: {found['absent']['ctask']}")
    return {name: row["ctask"]["value"] for name, row in found["values"].items()}


def git(*arguments: str) -> bytes:
    """Raises Unknown."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise Unknown("there is no git here") from None
    except subprocess.CalledProcessError as failed:
        raise Unknown(f"git: {failed.stderr.decode().strip()}") from None


def recording_commit() -> str:
    """The last one that changed the record. Raises Unknown."""
    if git("rev-parse", "--is-shallow-repository").strip() == b"true":
        raise Unknown("the repository is shallow: which commit recorded the figures is not in it")
    commit = git("log", "-1", "--format=%H", "--", f"benchmarks/{RECORD.name}").decode().strip()
    if not commit:
        raise Unknown("the record has not been committed")
    return commit


def count_commit(commit: str, scenarios: list[Scenario]) -> Figures:
    """Of that commit's ctask, built and counted here, in today's scenarios. Raises Unknown."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        archive = git("archive", commit)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(tree, filter="data")
        build = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tree,
            capture_output=True,
            text=True,
        )
        if build.returncode:
            raise Unknown(f"commit {commit[:12]} cannot be built here: {build.stderr[-500:]}")
        shutil.rmtree(tree / "benchmarks", ignore_errors=True)
        shutil.copytree(Path(__file__).parent, tree / "benchmarks")
        counted = tree / "counted.json"
        mode = ("--instructions", "--contender", "ctask")
        chosen = [argument for s in scenarios for argument in ("--scenario", s.name)]
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *mode, *chosen, "--json", str(counted)],
            cwd=tree,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        values = json.loads(counted.read_text())["values"]
    return {name: row["ctask"]["value"] for name, row in values.items()}


# ---- the comparison ----


def allowed(name: str) -> float:
    return LOOSE[name][0] if name in LOOSE else ALLOWED


def growth(old: Figures, new: Figures, name: str) -> float:
    return new[name] / old[name] - 1


def grown(old: Figures, new: Figures) -> list[str]:
    """The scenarios whose growth is not allowed, and those that have no figure to compare with."""
    return [name for name in new if name not in old or growth(old, new, name) > allowed(name)]


def differences(record: dict[str, str], here: dict[str, str]) -> list[str]:
    return [
        f"{key}: {record.get(key, 'unknown')} when recorded, {value} here"
        for key, value in here.items()
        if record.get(key) != value
    ]


def table(old: Figures, new: Figures) -> str:
    lines = [["Instructions per operation", "old", "new", "growth", "verdict"]]
    for name, value in new.items():
        if name not in old:
            lines.append([name, "-", f"{value:,.0f}", "-", "NOT RECORDED"])
            continue
        more = growth(old, new, name)
        word = "GROWN" if more > allowed(name) else "less" if more < -allowed(name) else "ok"
        lines.append([name, f"{old[name]:,.0f}", f"{value:,.0f}", f"{more:+.1%}", word])
    return report.aligned(lines)


def verdict(old: Figures, new: Figures) -> tuple[str, int]:
    """What to print, and the exit status."""
    lines = [table(old, new), ""]
    lines += [
        f"{name} may grow by {share:.0%}: {why}"
        for name, (share, why) in LOOSE.items()
        if name in new
    ]
    failed = grown(old, new)
    missing = [name for name in failed if name not in old]
    if missing:
        lines.append(f"not recorded: {', '.join(missing)}; --record does")
    if more := [name for name in failed if name in old]:
        lines.append(f"grown: {', '.join(more)}")
    if any(growth(old, new, name) < -allowed(name) for name in new if name in old):
        lines.append("what takes less should be recorded (--record), lest it grow back unnoticed")
    lines.append("guard: " + (f"{len(failed)} of {len(new)} failed" if failed else "ok"))
    return "\n".join(lines), 1 if failed else 0


# ---- the record ----


def recorded() -> dict[str, Any]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}  # type: ignore[no-any-return]


def record(here: dict[str, str], new: Figures) -> None:
    """Replace this version's figures. Those of scenarios that were not counted are kept if they
    come from the same environment.
    """
    known = recorded()
    before = known.get(VERSION, {})
    kept = before["instructions"] if before.get("environment") == here else {}
    figures = {name: round(new.get(name, kept.get(name, 0))) for name in SCENARIOS}
    known[VERSION] = {
        "environment": here,
        "instructions": {name: value for name, value in figures.items() if value},
    }
    in_order = dict(sorted(known.items()))
    RECORD.write_text(json.dumps(in_order, indent=1) + "\n")


# ---- the command line ----


def compare(scenarios: list[Scenario], against: str | None) -> tuple[str, int]:
    """What to print, and the exit status. Raises Unknown."""
    here = environment()
    known = recorded().get(VERSION)
    if not against:
        if not known:
            raise Unknown(f"no figures are recorded for Python {VERSION}")
        if differ := differences(known["environment"], here):
            print("These figures do not compare with those recorded:", *differ, sep="\n  ")
            against = recording_commit()
            print(f"Commit {against[:12]}, which recorded them, is built and counted here.")
    old = count_commit(against, scenarios) if against else known["instructions"]
    new = count(scenarios)
    if again := [SCENARIOS[name] for name in grown(old, new) if name in old]:
        # Growth is in both of two runs; what the machine did meanwhile hardly is.
        for name, value in count(again).items():
            new[name] = min(new[name], value)
    return verdict(old, new)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description="Fail when a scenario costs more instructions than was recorded.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--record", action="store_true", help="record this tree's figures")
    mode.add_argument(
        "--against", metavar="COMMIT", help="compare with this commit, built and counted here"
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, metavar="NAME", help="only this"
    )
    options = parser.parse_args()
    scenarios = [s for s in SCENARIOS.values() if s.name in (options.scenario or SCENARIOS)]
    if not shutil.which("valgrind"):
        print("guard: skipped: it needs valgrind")
        return 0
    if options.record:
        here = environment()
        record(here, count(scenarios))
        print(f"guard: recorded for Python {VERSION} in {RECORD}")
        return 0
    try:
        text, status = compare(scenarios, options.against)
    except Unknown as unknown:
        print(f"guard: skipped: {unknown}")
        return 0
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
