"""The stubs say what the extension has, and users' code gets precise types from them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")
pytestmark = pytest.mark.ctask_only


@pytest.fixture
def check(tmp_path, time_limit, put_off):
    def check(*command):
        signal.alarm(0)  # a cold mypy on a busy machine takes longer than any test should
        put_off(350)
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return check


def test_users_code_gets_precise_types(check):
    check("mypy", "--strict", str(Path(__file__).with_name("users_code.py")))


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Task adds no fields of its own there; the stub cannot tell"
)
def test_stubs_are_what_the_extension_has(check):
    check("mypy.stubtest", "ctask")
