"""What the tests have in common: which loop, processes, certificates."""

from __future__ import annotations

import collections
import datetime
import glob
import os
import pwd
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
STOCK = os.environ.get("CTASK_TESTS_ON", "ctask") == "asyncio"
# What a program is given to make its loops with, and the type that it has to report.
FACTORY = "asyncio:SelectorEventLoop" if STOCK else "ctask:new_event_loop"
LOOP_TYPE = "asyncio.unix_events._UnixSelectorEventLoop" if STOCK else "ctask._loop.EventLoop"

PATIENCE = 30  # seconds that any one thing may take


def needs(package: str) -> pytest.MarkDecorator:
    """For a test of what pyproject.toml has no release of for the newest Python."""
    missing = sys.version_info >= (3, 15) and find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} has no release for this Python")


# ---- processes ----


class Process:
    """A program that runs beside the test; what it prints is read line by line as it comes."""

    def __init__(self, command: list[Any], **options: Any) -> None:
        self.command = [str(part) for part in command]
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self.popen = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            **options,
        )
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.lines.append(line)
            self._coming.put(line)
        self._coming.put(None)

    @property
    def text(self) -> str:
        return f"$ {' '.join(self.command)}\n{''.join(self.lines)}"

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line with the pattern; fail if the program ends, or is silent, before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._coming.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no {pattern!r} in {PATIENCE} s:\n{self.text}")
            if line is None:
                pytest.fail(f"ended with {self.popen.wait()} before {pattern!r}:\n{self.text}")
            if found := re.search(pattern, line):
                return found

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return the exit status (negative: the signal's number)."""
        status = self.popen.wait(seconds)
        self._pump.join(PATIENCE)
        return status

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.popen.send_signal(signum)
        return self.wait()

    def kill(self) -> None:
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)  # with what it started
        except ProcessLookupError:
            pass
        self.popen.wait()
        self._pump.join(PATIENCE)
        assert self.popen.stdout
        self.popen.stdout.close()


def environment(**extra: str) -> dict[str, str]:
    """For a program of ours: it finds what the tests find, and no option is inherited."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = [str(PROGRAMS), *(entry for entry in sys.path if entry)]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **extra}


def find_program(name: str, package: str, *elsewhere: str) -> str:
    candidates = [shutil.which(name), *(f for p in elsewhere for f in sorted(glob.glob(p)))]
    for found in filter(None, reversed(candidates)):
        return found
    pytest.fail(f"{name} is not installed (Debian's package {package})")


Load = collections.namedtuple("Load", "requests rate text")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Certificates:
    """An authority and a certificate of it for localhost, made for this run."""

    def __init__(self, path: Path) -> None:
        import trustme

        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1", not_after=until)
        self.authority = path / "authority.pem"
        self.chain = path / "chain.pem"
        self.key = path / "key.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        issued.private_key_pem.write_to_path(str(self.key))
        self.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def for_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context

    def for_client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def unprivileged(name: str, directory: Path) -> dict[str, Any]:
    """Options of Popen for a server that does not run as root: the package's own user, or nobody.

    The directory becomes writable for it.
    """
    if os.getuid() != 0:
        return {}
    for user in (name, "nobody"):
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            continue
        directory.chmod(0o777)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.fail(f"neither a user {name} nor nobody")
