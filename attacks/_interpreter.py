"""The interpreter that is attacked: how it is started, and how what it plays begins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def command(python: str, module: str, plan: Mapping[str, Any], *options: str) -> list[str]:
    """Runs main() of `attacks.PACKAGE.NAME`, which finds the plan by `planned()`."""
    package, name = module.split(".")
    start = f"import sys; sys.path.append({str(ROOT)!r})"
    start += f"; from attacks.{package} import {name}; {name}.main()"
    return [python, *options, "-c", start, json.dumps(plan)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": "0", **more}


def planned() -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    return plan


def begin() -> dict[str, Any]:
    """The plan, with its candidate installed and its files run."""
    plan = planned()
    if plan["candidate"] == "ctask":
        import ctask

        ctask.install()
    space: dict[str, Any] = {}
    for path in plan["files"]:
        with open(path) as file:
            exec(compile(file.read(), path, "exec"), space)
    return plan
