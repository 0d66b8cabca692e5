"""The scenarios of the network benchmarks: which program, over which link, under which loads."""

from __future__ import annotations

from dataclasses import dataclass

Load = tuple[int, int]  # bytes of a request, connections

K = 1024


@dataclass(frozen=True)
class Scenario:
    """Some rows of the table: a server under several loads."""

    name: str
    title: str
    program: str  # in servers.SERVERS; in spawning.PROGRAMS
    link: str  # servers.Place.link; "process"
    loads: tuple[Load, ...]
    mode: str = "echo"  # of the client
    idle: int = 0  # connections more, on which nothing happens
    limits: tuple[str, ...] = ("protocol-limit", "c-limit")

    def row(self, load: Load) -> str:
        size, connections = load
        return f"{self.name}/{short(size)}/{connections}"

    def row_title(self, load: Load) -> str:
        size, connections = load
        if self.link == "process":
            return f"{self.title}, {connections} at once"
        beside = f" beside {self.idle} idle" if self.idle else ""
        return f"{self.title}, {short(size)}, {connections}{beside}"

    def selected(self, sizes: list[int], connections: list[int]) -> list[Load]:
        """The loads, or instead every combination of the sizes and connections asked for."""
        if not sizes and not connections:
            return list(self.loads)
        if not sizes or self.link == "process":
            sizes = sorted({size for size, _ in self.loads})
        connections = connections or sorted({count for _, count in self.loads})
        return [(size, count) for size in sizes for count in connections]


def short(size: int) -> str:
    return f"{size // K}k" if size % K == 0 else str(size)


def size_of(text: str) -> int:
    """The size that `short` wrote: 1k, 100k, 500."""
    return int(text[:-1]) * K if text.endswith("k") else int(text)


ONE, MANY, CROWD = (K, 1), (K, 100), (K, 1000)
LARGE, HUGE = (10 * K, 100), (100 * K, 100)
C_LIMIT = ("c-limit",)

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
            limits=(),
        ),
        Scenario("sock", "TCP, sock_recv", "sock", "tcp", (ONE, MANY, HUGE)),
        Scenario("sock_into", "TCP, sock_recv_into", "sock_into", "tcp", (ONE, MANY)),
        Scenario("unix", "Unix, Protocol", "protocol", "unix", (ONE, MANY)),
        Scenario("unix_streams", "Unix, streams, read", "streams", "unix", (ONE, MANY)),
        Scenario(
            "tls", "TLS, Protocol", "protocol", "tls", (ONE, MANY, LARGE, HUGE), limits=C_LIMIT
        ),
        Scenario(
            "tls_buffered", "TLS, BufferedProtocol", "buffered", "tls", (MANY,), limits=C_LIMIT
        ),
        Scenario("tls_streams", "TLS, streams, read", "streams", "tls", (MANY,), limits=C_LIMIT),
        Scenario("udp", "UDP, Protocol", "datagrams", "udp", (ONE, MANY), limits=C_LIMIT),
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
            limits=C_LIMIT,
        ),
        Scenario("idle", "TCP, Protocol", "protocol", "tcp", (MANY,), idle=5000),
        Scenario(
            "process", "exec true, wait", "wait", "process", ((0, 1), (0, 10)), limits=C_LIMIT
        ),
        Scenario(
            "process_three_pipes",
            "exec true, three pipes",
            "three_pipes",
            "process",
            ((0, 1), (0, 10)),
            limits=C_LIMIT,
        ),
        Scenario(
            "process_pipes",
            "exec cat, communicate",
            "communicate",
            "process",
            ((0, 1), (0, 10)),
            limits=C_LIMIT,
        ),
    )
}
