"""A server's CPU time per request: `python -m benchmarks --network`.

Server and client have a process each, and with more than one connection a core each. The client
is a C program, the same for all. It reads the server's CPU clock (user and system, all threads) at
both ends of a window, in which it counts the answered requests. Contenders take turns within each
row (A B C, A B C, ...); a round starts new servers. The figure is the median of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import contenders, native
from ..drawing import progress
from ..subjects.servers import Place, port_of
from ..subjects.traffic import Load, Scenario

ROUNDS, QUICK_ROUNDS = 5, 3
WARM_UP, SECONDS = 0.3, 1.0
QUICK_WARM_UP, QUICK_SECONDS = 0.1, 0.3
END_LIMIT = 10  # seconds that a server may take to end
RUN_LIMIT = 60  # seconds for one run of the client, beyond its window

# Malloc gives freed memory back to the kernel, and takes big blocks from it, above these.
RAISED_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
}


@dataclass
class Address:
    """Where a running server can be reached, and what it said of itself."""

    pid: int
    arguments: list[str]  # of the client
    answer: dict[str, Any]
    errors: Path | None = None  # what it wrote to standard error


def complaint(errors: Path | None) -> str:
    """The last line that a server wrote to standard error, with a separator."""
    lines = errors.read_text().splitlines() if errors else []
    return f"; server: {lines[-1][:200]}" if lines else ""


class Unable(Exception):
    """A contender cannot do this; the message says why."""


def cores() -> tuple[int, int]:
    """The server's, and the client's with many connections.

    With one they take turns in any case. On two cores each request would then wake an idle core
    twice, which costs more than anything a server does, on a virtual machine five times as much.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def client_arguments(place: Place, port: int) -> list[str]:
    if place.link == "unix":
        return ["-u", place.path]
    return ["-p", str(port), *(["-U"] if place.link == "udp" else [])]


def ended(server: subprocess.Popen[Any]) -> None:
    """End a server by SIGTERM, which lets valgrind tell what it counted."""
    server.terminate()
    try:
        server.communicate(timeout=END_LIMIT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()


@contextmanager
def limit_server(
    scenario: Scenario, place: Place, prefix: list[str] | None = None
) -> Iterator[Address]:
    listener = place.socket()
    server = subprocess.Popen(
        [
            *(prefix or []),
            str(native.program("echo_epoll.c", tls=place.link == "tls")),
            str(listener.fileno()),
            "u" if place.link == "udp" else "e",
            place.certificate,
        ],
        pass_fds=[listener.fileno()],
    )
    try:
        os.sched_setaffinity(server.pid, {cores()[0]})
        arguments = client_arguments(place, port_of(listener, place))
        listener.close()
        yield Address(server.pid, arguments, {"version": "-", "loop": "echo_epoll.c", "task": "-"})
    finally:
        ended(server)


def answer_of(server: subprocess.Popen[str], errors: Path) -> dict[str, Any]:
    """What a server's process says next: its version, its port. Raises Unable, Absent."""
    assert server.stdout
    line = server.stdout.readline()
    if not line:
        raise Unable(f"the server ended with status {server.wait()}{complaint(errors)}")
    answer: dict[str, Any] = json.loads(line)
    if "absent" in answer:
        raise contenders.Absent(answer["absent"])
    if "unable" in answer:
        raise Unable(answer["unable"])
    return answer


@contextmanager
def python_server(
    name: str,
    scenario: Scenario,
    place: Place,
    directory: Path,
    environment: dict[str, Any],
) -> Iterator[Address]:
    """Raises Unable where the contender cannot run this server, contenders.Absent."""
    request = json.dumps(asdict(place))
    errors = directory / f"{name}.err"
    with errors.open("w") as file:
        server = contenders.start(
            ["serve", name, scenario.program, request], stderr=file, **environment
        )
    try:
        os.sched_setaffinity(server.pid, {cores()[0]})
        answer = answer_of(server, errors) | answer_of(server, errors)
        yield Address(server.pid, client_arguments(place, answer["port"]), answer, errors)
    finally:
        ended(server)


def place_for(name: str, scenario: Scenario, directory: Path) -> Place:
    path = str(directory / f"{name}.sock") if scenario.link == "unix" else ""
    certificate = str(native.certificate()) if scenario.link == "tls" else ""
    return Place(scenario.link, path, certificate)


def started(
    name: str, scenario: Scenario, directory: Path, environment: dict[str, str]
) -> Any:  # a context manager that gives an Address
    place = place_for(name, scenario, directory)
    if name == "c-limit":
        return limit_server(scenario, place)
    return python_server(name, scenario, place, directory, environment)


@contextmanager
def within(process: subprocess.Popen[str], limit: float) -> Iterator[None]:
    """For a block that reads from a process, which is killed after so many seconds. Raises Unable
    then.
    """
    hanging = threading.Event()

    def kill() -> None:
        hanging.set()
        process.kill()

    watch = threading.Timer(limit, kill)
    watch.start()
    try:
        yield
    except Unable:
        if hanging.is_set():
            raise Unable(f"nothing within {limit:g} s") from None
        raise
    finally:
        watch.cancel()


def told(process: subprocess.Popen[str], limit: float) -> tuple[str, str]:
    """A client's output and errors. Raises Unable if it does not end."""
    try:
        return process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Unable(f"not done after {limit} s") from None


def checked(run: dict[str, Any]) -> dict[str, Any]:
    if "unable" in run:
        raise Unable(run["unable"])
    if not run["requests"]:
        raise Unable("no request was answered in the window")
    return run


def window(quick: bool) -> tuple[str, str]:
    """Seconds of warm-up and of measuring."""
    return (str(QUICK_WARM_UP), str(QUICK_SECONDS)) if quick else (str(WARM_UP), str(SECONDS))


def load(scenario: Scenario, chosen: Load, address: Address, *extent: str) -> dict[str, Any]:
    """One run of the client, its extent being arguments. Raises Unable if it did not get its
    answers.
    """
    size, connections = chosen
    command = [str(native.program("client.c", tls=scenario.link == "tls")), *address.arguments]
    command += ["-m", scenario.mode, "-s", str(size), "-c", str(connections)]
    command += ["-i", str(scenario.idle), "-P", str(address.pid), *extent]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.sched_setaffinity(client.pid, {cores()[connections > 1]})
    output, errors = told(client, RUN_LIMIT)
    if client.returncode:
        what = errors.strip() or f"the client ended with status {client.returncode}"
        raise Unable(what + complaint(address.errors))
    return checked(json.loads(output))


@contextmanager
def held(scenario: Scenario, chosen: Load, address: Address) -> Iterator[None]:
    """So many connections, each idle after one request. Raises Unable."""
    size, connections = chosen
    command = [str(native.program("client.c", tls=scenario.link == "tls")), *address.arguments]
    command += ["-m", "hold", "-s", str(size), "-c", str(connections)]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert client.stdout
    try:
        if not client.stdout.readline():
            raise Unable(client.communicate()[1].strip() + complaint(address.errors))
        yield
    finally:
        client.communicate()


def spawn(
    found: dict[str, Any], name: str, scenario: Scenario, at_once: int, quick: bool
) -> dict[str, Any]:
    """One run of a program that spawns, with its children on its core. Raises Unable, Absent."""
    if name == "c-limit":
        worker = subprocess.Popen(
            [str(native.program("spawn.c")), scenario.program, *window(quick)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    else:
        arguments = ["spawn", name, scenario.program, str(at_once), *window(quick)]
        worker = contenders.start(arguments, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(worker.pid, {cores()[0]})
    output, _ = told(worker, RUN_LIMIT)
    lines = [json.loads(line) for line in output.splitlines()]
    if lines and "absent" in lines[0]:
        raise contenders.Absent(lines[0]["absent"])
    run: dict[str, Any] = lines[-1] if lines else {}
    if worker.returncode or not (lines and ("requests" in run or "unable" in run)):
        raise Unable(f"ended with status {worker.returncode}")
    checked(run)
    hello = {"version": "-", "loop": "-", "task": "-"} if name == "c-limit" else lines[0]
    found["contenders"][name] = contenders.proof(name, hello, hello | run)
    return run


Attempt = Callable[[], dict[str, Any]]


def attempt(found: dict[str, Any], row: str, name: str, run: Attempt) -> None:
    """Append what `run` returns to found["values"][row][name]["runs"], or note why there is
    nothing: then this row is not tried again.
    """
    if name in found["failed"].get(row, {}) or name in found["absent"]:
        return
    progress.show(f"{row}: {name}")
    try:
        answer = run()
    except contenders.Absent as absent:
        found["absent"][name] = str(absent)
    except (Unable, native.NotBuilt) as unable:
        found["failed"].setdefault(row, {})[name] = str(unable)
    else:
        found["values"][row].setdefault(name, {"runs": []})["runs"].append(answer)


def run_round(
    found: dict[str, Any],
    names: list[str],
    scenario: Scenario,
    loads: list[Load],
    environment: dict[str, str],
    quick: bool,
) -> None:
    """Put every load of this scenario once on every contender."""
    if scenario.link == "process":
        for chosen in loads:
            for name in names:
                run = partial(spawn, found, name, scenario, chosen[1], quick)
                attempt(found, scenario.row(chosen), name, run)
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses: dict[str, Address] = {}
        for name in names:
            try:
                address = stack.enter_context(started(name, scenario, directory, environment))
            except contenders.Absent as absent:
                found["absent"][name] = str(absent)
                continue
            except (Unable, native.NotBuilt) as unable:
                for row in map(scenario.row, loads):
                    found["failed"].setdefault(row, {})[name] = str(unable)
                continue
            found["contenders"][name] = contenders.proof(name, address.answer, address.answer)
            addresses[name] = address
        for chosen in loads:
            warm_up, seconds = window(quick)
            for name, address in addresses.items():
                run = partial(load, scenario, chosen, address, "-w", warm_up, "-d", seconds)
                attempt(found, scenario.row(chosen), name, run)


def summarise(row: dict[str, Any]) -> None:
    """From a row's runs: value (seconds of CPU per request), spread (the least and the greatest
    ratio to asyncio in one round) and rate (requests per second of real time).
    """
    for cell in row.values():
        cell["rounds"] = [run["server_cpu"] / run["requests"] for run in cell["runs"]]
        cell["value"] = statistics.median(cell["rounds"])
        cell["rate"] = statistics.median(run["requests"] / run["seconds"] for run in cell["runs"])
    baseline = row.get(contenders.BASELINE)
    for cell in row.values():
        if baseline:
            ratios = [a / b for a, b in zip(cell["rounds"], baseline["rounds"], strict=True)]
            cell["spread"] = [min(ratios), max(ratios)]


def able(found: dict[str, Any], names: list[str], scenario: Scenario) -> list[str]:
    """Those of the contenders that are there and that the scenario is for."""
    return [
        name
        for name in names
        if name not in found["absent"]
        and (name not in contenders.LIMITS or name in scenario.limits)
        and (name != "aiofastnet" or scenario.link != "process")  # not its subject
    ]


def rows(chosen: dict[Scenario, list[Load]]) -> dict[str, Any]:
    """A result without figures."""
    titles = {s.row(load): s.row_title(load) for s, loads in chosen.items() for load in loads}
    return {
        "contenders": {},
        "absent": {},
        "failed": {},
        "titles": titles,
        "values": {row: {} for row in titles},
    }


def measure(
    names: list[str], chosen: dict[Scenario, list[Load]], *, raised_malloc: bool, quick: bool
) -> dict[str, Any]:
    """found["values"][row][contender] has value, rounds, spread, rate and runs;
    found["failed"][row][contender] says why there is none.
    """
    found = rows(chosen)
    environment = RAISED_MALLOC if raised_malloc else {}
    for scenario, loads in chosen.items():
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            run_round(found, able(found, names, scenario), scenario, loads, environment, quick)
    for row, failures in found["failed"].items():
        for name in failures:
            found["values"][row].pop(name, None)  # what it had before it failed
    for row in found["values"].values():
        summarise(row)
    progress.show()
    return found
