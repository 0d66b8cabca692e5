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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import contenders, native, progress
from .servers import Place, port_of

ROUNDS, QUICK_ROUNDS = 5, 3
WARM_UP, SECONDS = 0.3, 1.0
QUICK_WARM_UP, QUICK_SECONDS = 0.1, 0.3
START_LIMIT = 60  # seconds until a server must have said where it listens
RUN_LIMIT = 60  # seconds for one run of the client, beyond its window

# Malloc gives freed memory back to the kernel, and takes big blocks from it, above these.
RAISED_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
}

Load = tuple[int, int]  # bytes of a request, connections

K = 1024


@dataclass(frozen=True)
class Scenario:
    """Some rows of the table: a server under several loads."""

    name: str
    title: str
    program: str  # in servers.SERVERS
    link: str  # Place.link
    loads: tuple[Load, ...]
    mode: str = "echo"  # of the client
    idle: int = 0  # connections more, on which nothing happens
    limits: tuple[str, ...] = ("protocol-limit", "epoll-limit")

    def row(self, load: Load) -> str:
        size, connections = load
        return f"{self.name}/{short(size)}/{connections}"

    def row_title(self, load: Load) -> str:
        size, connections = load
        beside = f" beside {self.idle} idle" if self.idle else ""
        return f"{self.title}, {short(size)}, {connections}{beside}"


def short(size: int) -> str:
    return f"{size // K}k" if size % K == 0 else str(size)


def size_of(text: str) -> int:
    """The size that `short` wrote: 1k, 100k, 500."""
    return int(text[:-1]) * K if text.endswith("k") else int(text)


ONE, MANY, CROWD = (K, 1), (K, 100), (K, 1000)
LARGE, HUGE = (10 * K, 100), (100 * K, 100)
NO_LIMITS: tuple[str, ...] = ()

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "protocol",
            "TCP, Protocol",
            "protocol",
            "tcp",
            (ONE, MANY, CROWD, (10 * K, 1), LARGE, (100 * K, 1), HUGE),
        ),
        Scenario("buffered", "TCP, BufferedProtocol", "buffered", "tcp", (ONE, MANY, HUGE)),
        Scenario(
            "two_pieces", "TCP, Protocol, two writes", "two_pieces", "tcp", (ONE, MANY, LARGE)
        ),
        Scenario("streams", "TCP, streams, read", "streams", "tcp", (ONE, MANY, LARGE, HUGE)),
        Scenario("lines", "TCP, streams, readline", "lines", "tcp", (ONE, MANY)),
        Scenario(
            "streams_two_pieces",
            "TCP, streams, two writes",
            "streams_two_pieces",
            "tcp",
            (MANY,),
            limits=NO_LIMITS,
        ),
        Scenario("sock", "TCP, sock_recv", "sock", "tcp", (ONE, MANY, HUGE)),
        Scenario("sock_into", "TCP, sock_recv_into", "sock_into", "tcp", (ONE, MANY)),
        Scenario("unix", "Unix, Protocol", "protocol", "unix", (ONE, MANY)),
        Scenario("unix_streams", "Unix, streams, read", "streams", "unix", (ONE, MANY)),
        Scenario(
            "tls", "TLS, Protocol", "protocol", "tls", (ONE, MANY, LARGE, HUGE), limits=NO_LIMITS
        ),
        Scenario(
            "tls_buffered", "TLS, BufferedProtocol", "buffered", "tls", (MANY,), limits=NO_LIMITS
        ),
        Scenario("tls_streams", "TLS, streams, read", "streams", "tls", (MANY,), limits=NO_LIMITS),
        Scenario("udp", "UDP, Protocol", "datagrams", "udp", (ONE, MANY), limits=("epoll-limit",)),
        Scenario(
            "connect", "TCP, Protocol, with connect", "protocol", "tcp", (ONE, MANY), "connect"
        ),
        Scenario(
            "connect_streams", "TCP, streams, with connect", "streams", "tcp", (MANY,), "connect"
        ),
        Scenario(
            "connect_tls",
            "TLS, Protocol, with connect",
            "protocol",
            "tls",
            (ONE, (K, 20)),
            "connect",
            limits=NO_LIMITS,
        ),
        Scenario("idle", "TCP, Protocol", "protocol", "tcp", (MANY,), idle=5000),
    )
}


@dataclass
class Address:
    """Where a running server can be reached, and what it said of itself."""

    pid: int
    arguments: list[str]  # of the client
    answer: dict[str, Any]
    errors: Path | None = None  # what it wrote to standard error

    def complaint(self) -> str:
        """The last line of it, with a separator."""
        lines = self.errors.read_text().splitlines() if self.errors else []
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


@contextmanager
def limit_server(scenario: Scenario, place: Place) -> Iterator[Address]:
    listener = place.socket()
    mode = {"two_pieces": ["t"], "datagrams": ["u"]}.get(scenario.program, [])
    server = subprocess.Popen(
        [str(native.echo_server()), str(listener.fileno()), *mode], pass_fds=[listener.fileno()]
    )
    try:
        os.sched_setaffinity(server.pid, {cores()[0]})
        arguments = client_arguments(place, port_of(listener, place))
        listener.close()
        yield Address(server.pid, arguments, {"version": "-", "loop": "echo_epoll.c", "task": "-"})
    finally:
        server.kill()
        server.wait()


@contextmanager
def python_server(
    name: str, scenario: Scenario, place: Place, directory: Path, environment: dict[str, str]
) -> Iterator[Address]:
    """Raises Unable where the contender cannot run this server, contenders.Absent."""
    request = json.dumps(asdict(place))
    errors = directory / f"{name}.err"
    with errors.open("w") as file:
        server = contenders.start(
            ["serve", name, scenario.program, request], stderr=file, **environment
        )
    assert server.stdout
    try:
        os.sched_setaffinity(server.pid, {cores()[0]})
        answer: dict[str, Any] = {}
        for _ in range(2):  # the version; the port
            line = server.stdout.readline()
            if not line:
                raise Unable(f"the server ended with status {server.wait()}")
            answer |= json.loads(line)
            if "absent" in answer:
                raise contenders.Absent(answer["absent"])
            if "unable" in answer:
                raise Unable(answer["unable"])
        yield Address(server.pid, client_arguments(place, answer["port"]), answer, errors)
    finally:
        server.kill()
        server.communicate()


def started(
    name: str, scenario: Scenario, directory: Path, environment: dict[str, str]
) -> Any:  # a context manager that gives an Address
    path = str(directory / f"{name}.sock") if scenario.link == "unix" else ""
    certificate = str(native.certificate()) if scenario.link == "tls" else ""
    place = Place(scenario.link, path, certificate)
    if name == "epoll-limit":
        return limit_server(scenario, place)
    return python_server(name, scenario, place, directory, environment)


def load(scenario: Scenario, chosen: Load, address: Address, quick: bool) -> dict[str, Any]:
    """One run of the client. Raises Unable if it did not get its answers."""
    size, connections = chosen
    command = [str(native.client(scenario.link == "tls")), *address.arguments]
    command += ["-m", scenario.mode, "-s", str(size), "-c", str(connections)]
    command += ["-i", str(scenario.idle), "-P", str(address.pid)]
    command += ["-w", str(QUICK_WARM_UP if quick else WARM_UP)]
    command += ["-d", str(QUICK_SECONDS if quick else SECONDS)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.sched_setaffinity(client.pid, {cores()[connections > 1]})
    try:
        output, errors = client.communicate(timeout=RUN_LIMIT)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        raise Unable(f"not done after {RUN_LIMIT} s") from None
    if client.returncode:
        told = errors.strip() or f"the client ended with status {client.returncode}"
        raise Unable(told + address.complaint())
    answer: dict[str, Any] = json.loads(output)
    if not answer["requests"]:
        raise Unable("no request was answered in the window")
    return answer


def run_round(
    found: dict[str, Any],
    names: list[str],
    scenario: Scenario,
    loads: list[Load],
    environment: dict[str, str],
    quick: bool,
) -> None:
    """Put every load of this scenario once on every contender, appending to
    found["values"][row][contender]["runs"].
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses: dict[str, Address] = {}
        for name in names:
            try:
                address = stack.enter_context(started(name, scenario, directory, environment))
            except contenders.Absent as absent:
                found["absent"][name] = str(absent)
                continue
            except Unable as unable:
                for row in map(scenario.row, loads):
                    found["failed"].setdefault(row, {})[name] = str(unable)
                continue
            found["contenders"][name] = contenders.proof(name, address.answer, address.answer)
            addresses[name] = address
        for chosen in loads:
            row = scenario.row(chosen)
            for name, address in addresses.items():
                if name in found["failed"].get(row, {}):
                    continue
                progress.show(f"{row}: {name}")
                try:
                    answer = load(scenario, chosen, address, quick)
                except Unable as unable:
                    found["failed"].setdefault(row, {})[name] = str(unable)
                    continue
                cell = found["values"][row].setdefault(name, {"runs": []})
                cell["runs"].append(answer)


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
            ratios = [a / b for a, b in zip(cell["rounds"], baseline["rounds"], strict=False)]
            cell["spread"] = [min(ratios), max(ratios)]


def selected(scenario: Scenario, sizes: list[int], connections: list[int]) -> list[Load]:
    """The scenario's own loads, or every combination of the sizes and connections asked for."""
    if not sizes and not connections:
        return list(scenario.loads)
    sizes = sizes or sorted({size for size, _ in scenario.loads})
    connections = connections or sorted({count for _, count in scenario.loads})
    return [(size, count) for size in sizes for count in connections]


def measure(
    names: list[str],
    chosen: list[Scenario],
    *,
    sizes: list[int],
    connections: list[int],
    raised_malloc: bool,
    quick: bool,
) -> dict[str, Any]:
    """found["values"][row][contender] has value, rounds, spread, rate and runs;
    found["failed"][row][contender] says why there is none.
    """
    loads = {scenario.name: selected(scenario, sizes, connections) for scenario in chosen}
    titles = {s.row(load): s.row_title(load) for s in chosen for load in loads[s.name]}
    found: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "failed": {},
        "titles": titles,
        "values": {row: {} for row in titles},
    }
    environment = RAISED_MALLOC if raised_malloc else {}
    for scenario in chosen:
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            able = [
                name
                for name in names
                if name not in found["absent"]
                and (name not in contenders.LIMITS or name in scenario.limits)
            ]
            run_round(found, able, scenario, loads[scenario.name], environment, quick)
    for row, failures in found["failed"].items():
        for name in failures:  # in one round, or in all
            found["values"][row].pop(name, None)
    for row in found["values"].values():
        summarise(row)
    progress.show()
    return found
