"""Fixtures for programs that people run: real servers and clients on ctask's loop.

As in the tests beside it, `impl` is ctask, or asyncio with CTASK_TESTS_ON=asyncio.  `run` proves
that its loop is the one that ran; a program in a process of its own tells it (programs/which.py).

A program that is missing is a failure, never a skip: tools/integration installs what is needed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    PATIENCE,
    Certificates,
    Load,
    Process,
    environment,
    find_program,
    free_port,
    unprivileged,
)


def pytest_configure(config: pytest.Config) -> None:
    # Other people's warnings are theirs, but nobody may leave a transport or a loop open.
    config.addinivalue_line("filterwarnings", "default")
    config.addinivalue_line("filterwarnings", "error::ResourceWarning")


@pytest.fixture
def time_limit() -> Iterator[None]:
    def stuck(signum: int, frame: Any) -> None:
        raise TimeoutError("the test hangs")

    saved = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(90)
    faulthandler.dump_traceback_later(150, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, saved)


@pytest.fixture(autouse=True)
def nothing_left_behind(time_limit, logs, unraisable) -> Iterator[None]:
    """Less than for the tests beside it, since libraries keep what they like: nothing was raised
    where nobody could catch it, and asyncio logged nothing.
    """
    yield
    gc.collect()
    assert unraisable == []
    messages = [record.getMessage() for record in logs]
    # In debug mode: these programs are slow on a busy machine, whatever the loop.
    assert [text for text in messages if not text.startswith("Executing ")] == []


@pytest.fixture
def run(impl) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on a new loop of the implementation under test, and proves that it did."""

    async def proved(main: Coroutine[Any, Any, Any]) -> Any:
        assert type(asyncio.get_running_loop()) is impl.EventLoop
        return await main

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
            return runner.run(proved(main))

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts programs; those that still run at the end are killed."""
    started: list[Process] = []

    def start(*command: Any, env: dict[str, str] | None = None, **options: Any) -> Process:
        process = Process(list(command), env=environment(**(env or {})), **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        print(process.text)  # pytest shows it if the test has failed


@pytest.fixture
def python(start) -> Callable[..., Process]:
    def python(*arguments: Any, **options: Any) -> Process:
        return start(sys.executable, "-X", "faulthandler", *arguments, **options)

    return python


# ---- load ----


@pytest.fixture
def wrk() -> Callable[..., Load]:
    """Puts a server under load, and wants each answer to be a good one."""
    program = find_program("wrk", "wrk")

    def wrk(url: str, *, connections: int = 32, seconds: int = 1) -> Load:
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        assert "Socket errors" not in text, text
        assert "Non-2xx" not in text, text
        requests = re.search(r"(\d+) requests in", text)
        rate = re.search(r"Requests/sec: +([\d.]+)", text)
        assert requests and rate and int(requests[1]) > 0, text
        return Load(int(requests[1]), float(rate[1]), text)

    return wrk


# ---- directories, ports, certificates ----


@pytest.fixture(scope="session")
def public_directory() -> Iterator[Path]:
    """A directory with a short name (a Unix socket's has 107 bytes) that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="ctask-it-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ctask-it-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def certificates(public_directory) -> Certificates:
    return Certificates(public_directory)


# ---- PostgreSQL ----


@pytest.fixture(scope="session")
def postgresql(public_directory, certificates) -> Iterator[types.SimpleNamespace]:
    """A PostgreSQL with a user `us`: its `port` on localhost, with and without TLS, and its `home`,
    the directory of its Unix socket.
    """
    programs = "/usr/lib/postgresql/*/bin/"
    user = unprivileged("postgres", public_directory)
    home = public_directory / "postgres"
    home.mkdir(mode=0o700)
    key = home / "key.pem"
    shutil.copyfile(certificates.key, key)
    key.chmod(0o600)
    if user:
        for path in (home, key):
            shutil.chown(path, user["user"], user["group"])
    initdb = find_program("initdb", "postgresql", programs + "initdb")
    made = subprocess.run(
        [initdb, "-D", home / "data", "-U", "us", "-A", "trust", "-E", "UTF8", "--no-sync"],
        capture_output=True,
        text=True,
        env=environment(LC_ALL="C"),
        **user,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": home,
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": certificates.chain,
        "ssl_key_file": key,
    }
    process = Process(
        [
            find_program("postgres", "postgresql", programs + "postgres"),
            *("-D", home / "data", "-p", port),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        env=environment(LC_ALL="C"),
        **user,
    )
    try:
        process.expect("ready to accept connections")
        yield types.SimpleNamespace(port=port, home=home)
    finally:
        process.popen.send_signal(signal.SIGQUIT)  # at once, but it tidies up behind it
        process.popen.wait()
        process.kill()
