"""examples/interpreters.py measured: loops in interpreters, in processes, in threads, and one.

    python -m benchmarks.drivers.interpreters [ROUNDS]

In each round each way takes its turn: it is started, the client keeps a request in flight on each
of 32 connections for a second and a half, and memory is read.  Nothing is pinned.  Printed are
medians, and in brackets the ratio to one loop in the same round: median, least and greatest.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .. import native
from ..paths import ROOT

WAYS = {
    "one loop": ("threads", 1, "there"),
    "2 threads": ("threads", 2, "there"),
    "2 interpreters": ("interpreters", 2, "there"),
    "2 interpreters, descriptors": ("interpreters", 2, "here"),
    "2 processes": ("processes", 2, "there"),
    "8 interpreters": ("interpreters", 8, "there"),
    "8 processes": ("processes", 8, "there"),
}
WORK = 20_000  # sum(range()) in each request
COLUMNS = (
    "requests a second",
    "CPU per request, us",
    "memory, MB",
    "start: CPU, ms",
    "start: real, ms",
)


def family(pid: int) -> list[int]:
    """The process and its children."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return [pid, *children]


def cpu(pids: list[int]) -> float:
    """Seconds of user and system time of all their threads."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pids: list[int]) -> float:
    """Megabytes, what is shared divided by those that share it (Pss)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def measure(kind: str, workers: int, accept: str) -> list[float]:
    command = [sys.executable, str(ROOT / "examples" / "interpreters.py"), "--of", kind]
    command += ["--workers", str(workers), "--accept", accept, "--work", str(WORK)]
    began = time.monotonic()
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    port = server.stdout.readline().strip()
    real = time.monotonic() - began
    try:
        pids = family(server.pid)
        start = cpu(pids)
        client = [str(native.program("client.c")), "-p", port, "-c", "32", "-s", "64"]
        before = cpu(pids)
        done = subprocess.run([*client, "-w", "0", "-d", "1.5"], stdout=subprocess.PIPE, check=True)
        used = cpu(pids) - before
        answer = json.loads(done.stdout)
        return [
            answer["requests"] / answer["seconds"],
            used / answer["requests"] * 1e6,
            memory(pids),
            start * 1e3,
            real * 1e3,
        ]
    finally:
        server.communicate()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            found[name].append(measure(*way))
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} cores, medians of {rounds} rounds")
    print("|", " | ".join(["", *COLUMNS]), "|")
    print("|---|" + "---:|" * len(COLUMNS))
    for name, values in found.items():
        cells = []
        for column, one in enumerate(zip(*values, strict=True)):
            text = f"{statistics.median(one):,.0f}"
            if column == 0:
                ratios = [a / b[0] for a, b in zip(one, found["one loop"], strict=True)]
                text += (
                    f" ({statistics.median(ratios):.2f}: {min(ratios):.2f} to {max(ratios):.2f})"
                )
            cells.append(text)
        print("|", " | ".join([name, *cells]), "|")


if __name__ == "__main__":
    main()
