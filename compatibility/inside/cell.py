"""Runs one suite's process, and the servers that it needs, in a network of its own.

Started by runner.py with a file that says what to run; as the first process of a namespace, if
there is one, so that nothing which a test leaves behind outlives it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

PATIENCE = 30  # seconds for a server to start


def set_network_up() -> None:
    """Loopback alone, with an address of each family that is not ::1 or 127.0.0.1.

    Without one getaddrinfo(AI_ADDRCONFIG) finds that there is no IPv6.
    """
    ip = ["ip", "address", "add", "dev", "lo"]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run([*ip, "192.0.2.1/32"], check=True)
    subprocess.run([*ip, "fd00::1/128"])  # not if the kernel has no IPv6


def set_hosts(directory: str) -> None:
    """Names for both loopback addresses, in our view of the file system; nobody else is there."""
    path = os.path.join(directory, "hosts")
    with open(path, "w") as stream:
        stream.write(f"127.0.0.1 localhost {socket.gethostname()}\n::1 localhost\n")
    subprocess.run(["mount", "--bind", path, "/etc/hosts"], check=True)


def start_redis(directory: str) -> subprocess.Popen[bytes]:
    command = ["redis-server", "--port", "6379", "--save", "", "--dir", directory]
    command += ["--enable-debug-command", "yes", "--enable-module-command", "yes"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 6379)).close()
            return server
        if time.monotonic() > deadline:
            raise TimeoutError("redis-server does not listen")
        time.sleep(0.05)


SERVERS = {"redis": start_redis}


def wait(pid: int) -> int:
    """The process's exit status; what tests have left behind, and is ours, is reaped as well."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def run(request: dict[str, Any]) -> int:
    with tempfile.TemporaryDirectory(prefix="cell-") as directory:
        os.chmod(directory, 0o755)
        if request["isolated"]:
            set_network_up()
            set_hosts(directory)
        # Short: a Unix socket's path has 107 bytes.
        home = os.path.join(directory, "home")
        os.mkdir(home)
        os.chmod(home, 0o777)
        servers = [SERVERS[name](directory) for name in request["servers"]]
        process = subprocess.Popen(
            request["command"],
            cwd=request["directory"],
            env={**request["environment"], "HOME": home, "TMPDIR": home},
            stdin=subprocess.DEVNULL,
        )
        status = wait(process.pid)
        for server in servers:
            server.kill()
        return status


if __name__ == "__main__":
    with open(sys.argv[1]) as stream:
        status = run(json.load(stream))
    sys.exit(128 - status if status < 0 else status)
