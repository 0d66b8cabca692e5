"""The stubs say what the extension has, and users' code gets precise types from them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")
pytestmark = pytest.mark.ctask_only


def check(tmp_path, *command):
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_users_code_gets_precise_types(tmp_path, time_limit):
    check(tmp_path, "mypy", "--strict", str(Path(__file__).with_name("users_code.py")))


def test_stubs_are_what_the_extension_has(tmp_path):
    check(tmp_path, "mypy.stubtest", "ctask")
