"""tools/screen.py draws what a command shows on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.ctask_only

SCREEN = Path(__file__).parents[2] / "tools" / "screen.py"
PROGRAM = r"""
import shutil
print("before\x1b[H\x1b[J", end="")
print(shutil.get_terminal_size().columns, "<&>")
print("x" * 45)
"""


def test_the_last_screen_with_long_lines_broken():
    done = subprocess.run(
        [
            sys.executable,
            SCREEN,
            "--size",
            "40x10",
            "--seconds",
            "60",
            sys.executable,
            "-c",
            PROGRAM,
        ],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (0, "")
    picture = ElementTree.fromstring(done.stdout)
    rows = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert rows == ["40 <&>", "x" * 40, "xxxxx"]
