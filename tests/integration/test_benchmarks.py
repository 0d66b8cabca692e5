"""`python -m benchmarks --programs` measures what it says, on the loop that it says."""

from __future__ import annotations

import json
import sys

import pytest
from support import PROGRAMS, STOCK

pytestmark = pytest.mark.skipif(STOCK, reason="starts all contenders itself")
ROOT = PROGRAMS.parent.parent.parent
SERVER, CLIENT = "aiohttp", "redis"


def test_programs(directory, start):
    out = directory / "result.json"
    chosen = ["--contender", "asyncio", "--contender", "ctask", "--scenario", SERVER]
    process = start(
        *(sys.executable, "-m", "benchmarks", "--programs", "--quick", *chosen),
        *("--scenario", CLIENT, "--json", out),
        cwd=ROOT,
    )
    assert process.wait() == 0, process.text
    result = json.loads(out.read_text())
    assert not any(result["failed"].values()), result["failed"]
    assert result["contenders"]["ctask"]["loop"] == "ctask._loop.EventLoop"
    assert result["contenders"]["asyncio"]["loop"].startswith("asyncio.")
    for name in (SERVER, CLIENT):
        for cell in result["values"][name].values():
            assert len(cell["runs"]) == 2
            assert cell["rate"] > 0
            assert cell["value"] > 0
