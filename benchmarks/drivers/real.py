"""Real programs: `python -m benchmarks --programs`.

The program has one core, and what it talks to the other: wrk for a server, PostgreSQL, Redis or a
plain HTTP server for a client. Contenders take turns (A B C, A B C, ...), each time in a new
process. Of each run the requests per second are kept, and the program's CPU time per request.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import contenders, native
from ..drawing import progress
from .network import Unable, cores, summarise, within

ROUNDS, QUICK_ROUNDS = 5, 2
WARM_UP, SECONDS = 0.5, 3.0
QUICK_WARM_UP, QUICK_SECONDS = 0.3, 2.0
CONNECTIONS = 64  # of wrk
LIMIT = 60  # seconds for anything


@dataclass(frozen=True)
class Program:
    name: str
    title: str
    program: str  # in programs.SERVERS or programs.CLIENTS
    beside: str  # what it talks to
    tls: bool = False


PROGRAMS = {
    program.name: program
    for program in (
        Program("uvicorn", "uvicorn (httptools), plain ASGI", "uvicorn", "wrk"),
        Program("uvicorn_tls", "uvicorn (httptools), TLS", "uvicorn", "wrk", tls=True),
        Program("fastapi", "FastAPI on uvicorn", "fastapi", "wrk"),
        Program("aiohttp", "aiohttp, server", "aiohttp", "wrk"),
        Program("aiohttp_tls", "aiohttp, server, TLS", "aiohttp", "wrk", tls=True),
        Program("aiohttp_client", "aiohttp, client", "aiohttp_client", "http"),
        Program("asyncpg", "asyncpg, pool of 10", "asyncpg", "postgres"),
        Program("redis", "redis-py, 50 connections", "redis", "redis"),
        Program("dask", "Dask, scheduler and client", "dask", "worker"),
    )
}


# ---- what programs talk to, on the core that they do not have ----


def found(name: str, *elsewhere: str) -> str:
    """Return where a program is. Raises Unable."""
    for candidate in (shutil.which(name), *(path for p in elsewhere for path in glob.glob(p))):
        if candidate:
            return candidate
    raise Unable(f"{name} is not installed")


def on_other_core(*command: Any) -> list[str]:
    return ["taskset", "-c", str(cores()[1]), *map(str, command)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def started(command: list[str], ready: str, **options: Any) -> Iterator[None]:
    """A server of somebody else, until the end of the block; it says when it is ready."""
    with tempfile.TemporaryFile("w+") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
        try:
            begun = time.monotonic()
            while True:
                output.seek(0)
                text = output.read()
                if ready in text:
                    break
                if server.poll() is not None or time.monotonic() > begun + LIMIT:
                    raise Unable(f"{command[3]} does not start: {text.strip()[-200:]}")
                time.sleep(0.05)
            yield
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        entry = pwd.getpwnam("postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    data, port = directory / "data", free_port()
    initdb = found("initdb", "/usr/lib/postgresql/*/bin/initdb")
    subprocess.run(
        [initdb, "-D", data, "-U", "us", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        **user,
    )
    command = on_other_core(
        *(Path(initdb).with_name("postgres"), "-D", data, "-p", port),
        *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"),
        *("-c", "fsync=off"),
    )
    with started(command, "ready to accept connections", **user):
        place = {"host": "127.0.0.1", "port": port, "user": "us", "database": "postgres"}
        yield json.dumps({**place, "ssl": False})


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    port = free_port()
    command = on_other_core(
        *(found("redis-server"), "--port", port, "--bind", "127.0.0.1"), *("--save", "")
    )
    with started(command, "eady to accept connections", cwd=directory):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def http(directory: Path) -> Iterator[str]:
    with server("asyncio", Program("raw", "", "raw", ""), cores()[1]) as answer:
        yield f"http://127.0.0.1:{answer['port']}/"


@contextmanager
def nothing(directory: Path) -> Iterator[str]:
    yield ""


@contextmanager
def worker(directory: Path) -> Iterator[str]:
    yield " ".join(on_other_core())  # the program starts its worker itself


BESIDE = {"postgres": postgres, "redis": redis, "http": http, "worker": worker, "wrk": nothing}


# ---- one run ----


@contextmanager
def process(name: str, program: Program, place: str, quick: bool, core: int) -> Iterator[Any]:
    """A contender's process, and a function that reads its next answer. The function raises Unable
    and contenders.Absent.
    """
    window = [QUICK_WARM_UP, QUICK_SECONDS] if quick else [WARM_UP, SECONDS]
    request = json.dumps([program.program, place, *window])
    with tempfile.TemporaryFile("w+") as errors:
        worker = contenders.start(["program", name, request], stderr=errors)
        os.sched_setaffinity(worker.pid, {core})

        def answer() -> dict[str, Any]:
            assert worker.stdout
            with within(worker, LIMIT):
                line = worker.stdout.readline()
                if not line:
                    errors.seek(0)
                    told = (errors.read().strip().splitlines() or [""])[-1]
                    raise Unable(f"ended with status {worker.wait()}: {told}")
            said: dict[str, Any] = json.loads(line)
            if "absent" in said:
                raise contenders.Absent(said["absent"])
            if "unable" in said:
                raise Unable(said["unable"])
            return said

        try:
            yield worker, answer
        finally:
            worker.kill()
            worker.communicate()


@contextmanager
def server(name: str, program: Program, core: int) -> Iterator[dict[str, Any]]:
    """A server that runs, and what it said of itself: pid, port, version, loop, task."""
    try:
        certificate = str(native.certificate()) if program.tls else ""
    except native.NotBuilt as error:
        raise Unable(str(error)) from None
    with process(name, program, certificate, False, core) as (worker, answer):
        yield {**answer(), **answer(), "pid": worker.pid}


def cpu_clock(pid: int) -> float:
    """CPU seconds of a process so far: the kernel makes a clock's number from the process's."""
    return time.clock_gettime(~pid << 3 | 2)


def put_under_load(program: Program, running: dict[str, Any], quick: bool) -> dict[str, Any]:
    scheme = "https" if program.tls else "http"
    url = f"{scheme}://127.0.0.1:{running['port']}/"
    text = ""
    for seconds in (1, QUICK_SECONDS if quick else SECONDS):  # the first is the warm-up
        before = cpu_clock(running["pid"])
        command = on_other_core(found("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{int(seconds)}s", url)
        text = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT).stdout
        used = cpu_clock(running["pid"]) - before
    counted = re.search(r"(\d+) requests in ([\d.]+)s", text)
    if not counted or "Socket errors" in text or "Non-2xx" in text or counted[1] == "0":
        raise Unable(f"wrk: {' '.join(text.split())[-200:]}")
    return {"requests": int(counted[1]), "server_cpu": used, "seconds": float(counted[2])}


def run_once(name: str, program: Program, place: str, quick: bool) -> tuple[Any, dict[str, str]]:
    """Return a run's figures and the proof of what ran. Raises Unable, contenders.Absent."""
    if program.beside == "wrk":
        with server(name, program, cores()[0]) as running:
            proof = contenders.proof(name, running, running)
            return put_under_load(program, running, quick), proof
    with process(name, program, place, quick, cores()[0]) as (_, answer):
        said = {**answer(), **answer()}
        proof = contenders.proof(name, said, said)
    if not said["requests"]:
        raise Unable("nothing was done in the window")
    return {key: said[key] for key in ("requests", "server_cpu", "seconds")}, proof


def measure(names: list[str], chosen: list[Program], quick: bool) -> dict[str, Any]:
    """As network.measure."""
    result: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "failed": {},
        "titles": {program.name: program.title for program in chosen},
        "values": {program.name: {} for program in chosen},
    }
    for program in chosen:
        failed = result["failed"].setdefault(program.name, {})
        with tempfile.TemporaryDirectory() as path:
            os.chmod(path, 0o777)  # for a server that runs as another user
            try:
                with BESIDE[program.beside](Path(path)) as place:
                    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
                        run_round(result, names, program, place, quick)
            except Unable as unable:
                failed.update(dict.fromkeys(names, str(unable)))
        row = result["values"][program.name]
        for name in failed:
            row.pop(name, None)
        summarise(row)
    progress.show()
    return result


def run_round(
    result: dict[str, Any], names: list[str], program: Program, place: str, quick: bool
) -> None:
    failed = result["failed"][program.name]
    for name in names:
        if name in result["absent"] or name in failed:
            continue
        progress.show(f"{program.name}: {name}")
        try:
            run, proof = run_once(name, program, place, quick)
        except contenders.Absent as absent:
            result["absent"][name] = str(absent)
            continue
        except Unable as unable:
            failed[name] = str(unable)
            continue
        result["contenders"][name] = proof
        result["values"][program.name].setdefault(name, {"runs": []})["runs"].append(run)
