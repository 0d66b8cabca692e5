"""Tables and JSON from what the measuring modules found. A result is a dictionary, as written to
JSON:

mode, unit       what the values are: "time", "network" and "programs" in seconds, "instructions",
                 or "memory" in bytes
host             Python, CPU, system, date
contenders       of each: version, loop type, task type
absent           contenders left out, and why
titles           of each row
values           of each row and contender: value; for time also rounds and, as ratios, spread; for
                 the network and programs also rate (requests per second), and what was said of each
                 run; for latency p50, p99 (which is the value), p999, worst and curve
failed           of each row and contender, for these and memory: why it has no value
"""

from __future__ import annotations

import datetime
import gc
import math
import platform
import sysconfig
from typing import Any

from ..contenders import BASELINE, CONTENDERS, LIMITS, NETWORK_CONTENDERS, OBSERVED, WHEEL

UNITS = {
    "time": ("s", "CPU time per operation", 1e6, "us"),
    "instructions": ("instructions", "Instructions per operation (user space)", 1, "instr."),
    "scale": ("s", "CPU time per operation", 1e9, "ns"),
    "latency": ("s", "Delay", 1e3, "ms"),
    "floors": ("instructions", "Instructions per operation (user space)", 1, "instr."),
    "memory": ("bytes", "Memory per object", 1, "bytes"),
    "network": ("s", "Server's CPU time per request", 1e6, "us"),
    "programs": ("s", "Program's CPU time per request", 1e6, "us"),
}
WITH_RATES = ("network", "programs")


def host() -> dict[str, str]:
    cpu = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    build = "debug" if sysconfig.get_config_var("Py_DEBUG") else "release"
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()} ({build})",
        "cpu": cpu or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "gc": f"thresholds {gc.get_threshold()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def columns(result: dict[str, Any]) -> list[str]:
    order = (*CONTENDERS, *OBSERVED, WHEEL, *NETWORK_CONTENDERS[len(CONTENDERS) :])
    return [name for name in order if name in result["contenders"]]


def ratio(row: dict[str, Any], name: str) -> float | None:
    """This contender's value with asyncio's as 1; None where either is missing."""
    if name not in row or BASELINE not in row:
        return None
    return float(row[name]["value"] / row[BASELINE]["value"])


def geometric_mean(result: dict[str, Any], name: str) -> float | None:
    """Of the ratios of all rows; None unless every row has one and there are several.

    Never of memory: tasks, futures and timers are not samples of one thing.
    """
    ratios = [ratio(row, name) for row in result["values"].values()]
    known = [value for value in ratios if value]
    if result["mode"] == "memory" or len(known) < max(2, len(ratios)):
        return None
    return math.exp(sum(map(math.log, known)) / len(known))


def cell(result: dict[str, Any], row: dict[str, Any], name: str) -> str:
    """The value itself for asyncio and where there is no ratio; else the ratio, with the rounds'
    spread.
    """
    if name not in row:
        return "-"
    share = ratio(row, name)
    value = row[name]["value"] * UNITS[result["mode"]][2]
    precise = result["mode"] in ("time", *WITH_RATES)
    absolute = f"{value:,.2f}" if precise else f"{value:,.0f}"
    if name == BASELINE or share is None:
        return absolute
    if result["mode"] in WITH_RATES:
        return f"{absolute} ({share:.2f})"
    if "spread" in row[name]:
        low, high = row[name]["spread"]
        return f"{share:.2f} ({low:.2f}-{high:.2f})"
    return f"{absolute} ({share:.3f})"


def table(result: dict[str, Any]) -> str:
    """A Markdown table: asyncio's own figures, then everybody's ratios to them, then their
    geometric mean.
    """
    names = columns(result)
    _, what, _, unit = UNITS[result["mode"]]
    head = [what]
    for name in names:
        plain = name == BASELINE or BASELINE not in names
        head.append(f"{name}, {unit}" if plain else name)
    lines = [head]
    for key, row in result["values"].items():
        lines.append([result["titles"][key], *[cell(result, row, name) for name in names]])
    means = [geometric_mean(result, name) for name in names]
    if len(names) > 1 and any(means):
        lines.append(["geometric mean", *[f"{mean:.3f}" if mean else "-" for mean in means]])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Markdown; the first line is the head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]
    printed = []
    for first, *rest in [lines[0], rule, *lines[1:]]:
        right = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        printed.append("| " + " | ".join([first.ljust(widths[0]), *right]) + " |")
    return "\n".join(printed)


def limits_table(result: dict[str, Any], limit: str) -> str:
    """Everybody's values as multiples of this limit's; empty without it."""
    names = columns(result)
    lines = [[f"{UNITS[result['mode']][1]}, {limit} = 1", *names]]
    for key, row in result["values"].items():
        if limit in row:
            of = [row[name]["value"] / row[limit]["value"] if name in row else 0 for name in names]
            lines.append([result["titles"][key], *[f"{x:.2f}" if x else "-" for x in of]])
    return aligned(lines) if len(lines) > 1 else ""


def rates_table(result: dict[str, Any]) -> str:
    names = columns(result)
    lines = [["Requests per second of real time", *names]]
    for key, row in result["values"].items():
        rates = [f"{row[name]['rate']:,.0f}" if name in row else "-" for name in names]
        lines.append([result["titles"][key], *rates])
    return aligned(lines)


def failures(result: dict[str, Any]) -> list[str]:
    """Who has no figure, why and where; what has the same reason in one line."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row, failed in result["failed"].items():
        for name, why in failed.items():
            rows.setdefault((name, why), []).append(row)
    names: dict[str, list[str]] = {}
    for (name, why), where in rows.items():
        names.setdefault(f"{why} ({', '.join(where)})", []).append(name)
    return [f"{', '.join(who)}: {what}" for what, who in names.items()]


def text(result: dict[str, Any], body: str | None = None) -> str:
    """The table, or this body instead, with what is needed to read it."""
    machine = result["host"]
    lines = [f"{machine['python']}, {machine['cpu']}, {machine['system']}, {machine['date']}"]
    for name in columns(result):
        ran = result["contenders"][name]
        lines.append(f"{name} {ran['version']}: {ran['loop']}, {ran['task']}")
    lines += [f"{name} is absent: {why}" for name, why in result["absent"].items()]
    if body is not None:
        return "\n".join([*lines, result["how"], "", body])
    lines += [result["how"], "", table(result)]
    more = []
    if result["mode"] != "memory":
        more = [limits_table(result, limit) for limit in LIMITS]
    if result["mode"] in WITH_RATES:
        more.append(rates_table(result))
    for further in filter(None, more):
        lines += ["", further]
    if result.get("failed"):
        lines += ["", *failures(result)]
    return "\n".join(lines)
