"""examples/interpreters.py: each of its workers serves, and it ends when it is told to."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "interpreters.py"
WAYS = {
    "shared port": ("--of", "interpreters"),
    "descriptors": ("--of", "interpreters", "--accept", "here"),
    "processes": ("--of", "processes"),
    "threads": ("--of", "threads"),
    "threads, descriptors": ("--of", "threads", "--accept", "here"),
}


def asked(connection, request):
    connection.sendall(request)
    return connection.recv(100)


@pytest.mark.ctask_only
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_worker_serves(tmp_path, way):
    if "interpreters" in way and sys.version_info < (3, 12):
        pytest.skip("interpreters with a lock of their own came with 3.12")
    program = subprocess.Popen(
        [sys.executable, EXAMPLE, "--workers", "2", *way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    with program, contextlib.ExitStack() as connections:
        port = int(program.stdout.readline())
        numbers = set()
        # The kernel spreads connections by chance.
        for _ in range(200):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert asked(connection, b"hello") == b"hello"
            numbers.add(int(asked(connection, b"who?")))
            if len(numbers) == 2:
                break
        assert numbers == {0, 1}
        _, errors = program.communicate(timeout=100)
    assert errors == ""
    assert program.returncode == 0
