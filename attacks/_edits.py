"""Faults planted in ctask's own source: a copy of it with some words changed, compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ._interpreter import ROOT

PARTS = ("src", "ctask", "ctask.c", "setup.py", "pyproject.toml", "README.md", "LICENSE")


class Edit(NamedTuple):
    """`old` stands once in the file, and becomes `new`."""

    file: str
    old: str
    new: str


def misfits(edits: Iterable[Edit]) -> list[str]:
    """What does not fit the source as it is, one edit applied after the other."""
    texts: dict[str, str] = {}
    found = []
    for edit in edits:
        text = texts.get(edit.file) or (ROOT / edit.file).read_text()
        times = text.count(edit.old)
        if times != 1:
            found.append(f"{edit.file} has {times} times: {edit.old}")
        texts[edit.file] = text.replace(edit.old, edit.new)
    return found


def built(edits: Iterable[Edit], folder: Path) -> Path:
    """Return the folder, for PYTHONPATH, in which ctask has these edits; without optimizing."""
    edits = list(edits)
    if found := misfits(edits):
        raise LookupError("\n".join(found))
    for part in PARTS:
        source, copy = ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, copy)
    optimized = Edit("setup.py", '"-O3"', '"-O0"')
    for edit in (*edits, optimized):
        path = folder / edit.file
        path.write_text(path.read_text().replace(edit.old, edit.new))
    package = folder / "built"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(package)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"does not compile:\n{done.stderr}")
    shutil.copytree(folder / "ctask", package / "ctask", dirs_exist_ok=True)
    return package
