"""Worker processes, and what of a program's log differs between them."""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from . import world
from .wire import read, write

MODES = ("loop", "installed", "debug", "tasks")
AGAIN = 12  # times that a difference has to be seen: a set of two has either order by chance
SECONDS = 30  # that a program may take before it counts as hanging


def reference(mode: str) -> str:
    return "asyncio-debug" if "debug" in mode else "asyncio"


def compiled(source: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # programs are odd on purpose
        return marshal.dumps(compile(source, world.FILE, "exec", dont_inherit=True))


class Worker:
    """A process in one mode, started again when it dies."""

    def __init__(self, mode: str, mutant: str = "", path: str = "") -> None:
        self.mode, self.mutant, self.path = mode, mutant, path
        self.process: subprocess.Popen[bytes] | None = None
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ, PYTHONHASHSEED="0")
        if self.path:
            environment["PYTHONPATH"] = os.pathsep.join(
                [self.path, environment.get("PYTHONPATH", "")]
            )
        self.errors.seek(0)
        self.errors.truncate()
        command = [sys.executable, "-m", "attacks.programs.worker", self.mode, self.mutant]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,  # what select() says is all there is
            env=environment,
        )

    def play(self, codes: Sequence[bytes]) -> list[str]:
        """The logs of some programs; of one that ends the process: CRASH and what it left."""
        logs: list[str] = []
        while len(logs) < len(codes):
            if self.process is None:
                self.process = self.start()
            process = self.process
            assert process.stdin is not None and process.stdout is not None
            left = codes[len(logs) :]
            feeder = threading.Thread(target=self.feed, args=(process.stdin, left), daemon=True)
            feeder.start()
            for _ in left:
                answer = None
                ready, _, _ = select.select([process.stdout], [], [], SECONDS)
                if not ready:
                    process.kill()
                else:
                    answer = read(process.stdout)  # type: ignore[arg-type]
                if answer is None:
                    logs.append(self.bury(process, "CRASH" if ready else "HANGS"))
                    break
                logs.append(answer.decode())
            feeder.join()
        return logs

    @staticmethod
    def feed(stream: IO[bytes], codes: Sequence[bytes]) -> None:
        try:
            for code in codes:
                write(stream, code)  # type: ignore[arg-type]
        except (OSError, ValueError):
            pass  # it died

    def bury(self, process: subprocess.Popen[bytes], word: str) -> str:
        status = process.wait()
        self.close()
        self.errors.seek(0)
        return f"{word} {status}\n{self.errors.read().decode(errors='replace')[:3000]}"

    def close(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def end(self) -> None:
        self.close()
        self.errors.close()


class Team:
    """A worker for each mode, those of asyncio included."""

    def __init__(self, modes: Sequence[str], mutant: str = "", path: str = "") -> None:
        self.modes = tuple(modes)
        names = dict.fromkeys([*map(reference, modes)])
        self.workers = {name: Worker(name) for name in names}
        self.workers |= {f"candidate {mode}": Worker(mode, mutant, path) for mode in modes}
        self.pool = ThreadPoolExecutor(len(self.workers))

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_args: object) -> None:
        for worker in self.workers.values():
            worker.end()
        self.pool.shutdown()

    def step(self, name: str) -> int:
        """Every which program a worker plays: one of four in debug mode, as it is slow."""
        return 4 if "debug" in name and len(self.modes) > 1 else 1

    def play(self, sources: Sequence[str]) -> Iterator[dict[str, tuple[str, str]]]:
        """For each program: of each mode that differs, asyncio's log and ctask's."""
        codes = [*map(compiled, sources)]
        done = self.pool.map(
            lambda name: self.workers[name].play(codes[:: self.step(name)]), self.workers
        )
        logs = dict(zip(self.workers, done, strict=True))
        for i in range(len(codes)):
            differ = {}
            for mode in self.modes:
                step = self.step(mode)
                if i % step:
                    continue
                right, found = (
                    logs[reference(mode)][i // step],
                    logs[f"candidate {mode}"][i // step],
                )
                if not alike(right, found):
                    differ[mode] = right, found
            yield differ


def alike(right: str, found: str) -> bool:
    """Are asyncio's log and ctask's the same, but for what the two may differ in?

    Both stop a program that calls itself without end where the stack is full, and below that lie
    fewer frames on ctask. When an object dies nobody says: its context may be entered then.
    """
    if right == found or ("RecursionError" in right and "RecursionError" in found):
        return True
    if world.UNHEARD in right or world.UNHEARD in found:
        return right.partition("\nLATE\n")[0] == found.partition("\nLATE\n")[0]
    return False


def steady(team: Team, source: str, mode: str, times: int = AGAIN) -> tuple[str, str] | None:
    """The two logs, if asyncio's is always the same, and ctask's never is it.

    Of a program with timers and tasks that yield ctask's has to be always the same as well: what is
    due goes before such tasks once a turn took long (docs/differences.md), as on a busy machine.
    """
    rights, founds = set(), set()
    timers = re.search(r"call_(later|at)\(|timeout|\nclock = 'real'\n", source)
    most = 1 if timers and "sleep(" in source else times
    right = found = ""
    code = [compiled(source)]
    for _ in range(times):
        (right,) = team.workers[reference(mode)].play(code)
        (found,) = team.workers[f"candidate {mode}"].play(code)
        rights.add(right)
        founds.add(found)
        unsteady = len(rights) > 1 or len(founds) > most
        met = any(alike(right, found) for right in rights for found in founds)
        if unsteady or met or right.startswith("HANGS"):
            return None
    return right, found
