"""One scenario in PARTS equal parts, a look at the process after each, and the verdict.

The rule: the first parts warm up and do not count; of the others, the median of the second half is
compared with that of the first. It may be larger by what SLACK has for it, and by a part of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from statistics import median
from typing import Any

from .._interpreter import begin
from .scenarios import SCENARIOS, Scenario

PARTS = 20
WARM = 4
# What it may grow by: so much, and this share of what it was.
SLACK = {
    "RSS": (1.0, 0.02),  # MiB: the allocators' arenas
    "blocks": (300, 0.005),  # of the interpreter's allocator
    "descriptors": (0, 0),
    "threads": (0, 0),
    "tasks": (0, 0),
}


def sample() -> dict[str, float]:
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "RSS": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "tasks": len(asyncio.all_tasks()),
    }


def halves(samples: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """The median of each measure in the first half, and in the second."""
    counted = samples[WARM:]
    middle = len(counted) // 2
    return {
        name: (
            median(one[name] for one in counted[:middle]),
            median(one[name] for one in counted[middle:]),
        )
        for name in SLACK
    }


def verdict(samples: list[dict[str, float]]) -> list[str]:
    found = []
    for name, (first, second) in halves(samples).items():
        fixed, share = SLACK[name]
        if second - first > fixed + share * first:
            course = " ".join(f"{one[name]:.5g}" for one in samples)
            found.append(f"{name} grow: {first:.5g} -> {second:.5g} ({course})")
    return found


async def play(scenario: Scenario, patience: float) -> dict[str, Any]:
    samples, faults = [], []
    begun = time.monotonic()
    async with asyncio.timeout(patience):
        await scenario.open()
    for number in range(PARTS):
        try:
            async with asyncio.timeout(patience):
                await scenario.part(number)
        except TimeoutError:
            faults.append(f"part {number} does not end within {patience:.0f} s")
            break
        except AssertionError as exc:
            faults.append(f"part {number}: {exc}")
            break
        await asyncio.sleep(0.001)
        samples.append(sample())
    try:
        async with asyncio.timeout(patience):
            await scenario.close()
    except TimeoutError:
        faults.append("does not close")
    text = f"{scenario.describe()} in {time.monotonic() - begun:.1f} s"
    if not faults:
        faults = verdict(samples)
        figures = [
            f"{name} {a:.4g} -> {b:.4g}" if name == "RSS" else f"{name} {b:.6g}"
            for name, (a, b) in halves(samples).items()
        ]
        text += f": {', '.join(figures)}{'' if faults else ', flat'}"
    return {"text": text, "faults": faults}


def main() -> None:
    plan = begin()
    if plan["scenario"] is None:
        print(json.dumps({"names": list(SCENARIOS)}))
        return
    scenario = SCENARIOS[plan["scenario"]](plan["count"], PARTS)
    loop = asyncio.new_event_loop()
    told = loop.run_until_complete(play(scenario, plan["patience"]))
    print(json.dumps(told), flush=True)
    os._exit(0)
