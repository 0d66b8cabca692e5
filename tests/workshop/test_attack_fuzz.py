"""The attack `fuzz`: it finds what is planted, and its kept cases pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.checkout import ROOT

pytestmark = [pytest.mark.ctask_only, pytest.mark.slow]

COMMAND = [sys.executable, "-m", "attacks", "fuzz", "--seed", "1"]
TARGETS = ["reader", "addresses", "datagrams", "tls", "command"]

needs_clang = pytest.mark.skipif(
    shutil.which("clang") is None or "libasan" in Path("/proc/self/maps").read_text(),
    reason="no clang, or another sanitizer",
)


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A copy of the source with one fault for each target."""
    sys.path.insert(0, str(ROOT))
    try:
        from attacks.fuzz import planted
    finally:
        sys.path.remove(str(ROOT))
    if not (ROOT / "ctask" / "__init__.py").exists():
        pytest.skip("no source here")
    folder = tmp_path_factory.mktemp("wrong")
    planted.plant(planted.builds()[0], ROOT, folder)
    return folder


@needs_clang
@pytest.mark.parametrize("target", TARGETS)
def test_planted_fault_is_found_and_seen_again(wrong, target, capfd, monkeypatch):
    from attacks import fuzz

    monkeypatch.delenv("PYTHONPATH", raising=False)
    options = ["--target", target, "--source", str(wrong)]
    assert fuzz.run(1, 500, options) == 1  # ends with the first
    out = capfd.readouterr().out
    case = out.partition(f"--target {target} --case ")[2].split("\n")[0]
    assert "Differs" in out, out
    assert fuzz.run(1, 1, [*options, "--case", case]) == 1
    assert "Differs" in capfd.readouterr().out
    os.unlink(case)


def test_every_planted_fault_has_its_place(tmp_path):
    from attacks.fuzz import planted

    builds = planted.builds()
    assert {fault.target for fault in builds[0]} == set(TARGETS)
    if not (ROOT / "ctask" / "__init__.py").exists():
        pytest.skip("no source here")
    for number, faults in enumerate(builds):
        (tmp_path / str(number)).mkdir()
        planted.plant(faults, ROOT, tmp_path / str(number))


def test_reader_does_as_asyncio_does_in_the_kept_cases():
    from attacks.fuzz import CORPUS, reader

    target = reader.Target()
    cases = sorted((CORPUS / "reader").iterdir())
    try:
        for case in cases:
            target(case.read_bytes())
    finally:
        target.close()
    assert cases


def test_without_clang_it_says_so():
    environment = {**os.environ, "PATH": "/nonexistent", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "fuzz: clang: No such file or directory\n"
