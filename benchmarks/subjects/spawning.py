"""Child processes: ordinary asyncio programs that spawn them one after the other. They measure
themselves, since the request is their own.
"""

from __future__ import annotations

import asyncio
import resource
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any

from .. import contenders

MESSAGE = b"x" * 1023 + b"\n"


async def wait() -> None:
    process = await asyncio.create_subprocess_exec("/bin/true")
    if await process.wait():
        raise RuntimeError(f"true ended with status {process.returncode}")


async def communicate() -> None:
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(MESSAGE)
    if output != MESSAGE or process.returncode:
        raise RuntimeError(f"cat gave {output!r} and status {process.returncode}")


async def three_pipes() -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/true", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    if await process.communicate() != (b"", b"") or process.returncode:
        raise RuntimeError(f"true ended with status {process.returncode}")


PROGRAMS: dict[str, Callable[[], Awaitable[None]]] = {
    "wait": wait,
    "three_pipes": three_pipes,
    "communicate": communicate,
}


async def repeat(program: Callable[[], Awaitable[None]], until: float) -> int:
    count = 0
    while time.monotonic() < until:
        await program()
        count += 1
    return count


def childrens_cpu() -> float:
    """Seconds of user and system time that children took which have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def spawn(
    name: str,
    at_once: int,
    warm_up: float,
    seconds: float,
    say: Callable[[dict[str, Any]], None],
) -> None:
    """Tell how many were spawned, `at_once` of them side by side, and this process's CPU time, and
    apart from it that of the children.
    """
    program = PROGRAMS[name]
    try:
        for length in (warm_up, seconds):
            began, cpu, children = time.monotonic(), time.process_time(), childrens_cpu()
            ended = await asyncio.gather(*[repeat(program, began + length) for _ in range(at_once)])
            elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
            children = childrens_cpu() - children
    except Exception as error:
        say({"unable": contenders.described(error)})
        return
    say(
        {
            "requests": sum(ended),
            "seconds": elapsed,
            "server_cpu": cpu,
            "children_cpu": children,
            **contenders.identify(),
        }
    )
