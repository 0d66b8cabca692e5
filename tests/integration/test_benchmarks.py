"""`python -m benchmarks --programs` measures what it says, on the loop that it says."""

from __future__ import annotations

import json
import sys

import pytest
from support import PROGRAMS, STOCK

pytestmark = pytest.mark.skipif(STOCK, reason="starts all contenders itself")
ROOT = PROGRAMS.parent.parent.parent
SECONDS = 80  # that it may take: of the 13 on an idle machine most are windows of fixed length


@pytest.mark.parametrize("name", ["aiohttp", "redis"])  # a server, a client
def test_programs(directory, start, name):
    out = directory / "result.json"
    process = start(
        *(sys.executable, "-m", "benchmarks", "--programs", "--quick", "--scenario", name),
        *("--contender", "asyncio", "--contender", "ctask", "--json", out),
        cwd=ROOT,
    )
    assert process.wait(SECONDS) == 0, process.text
    result = json.loads(out.read_text())
    assert not any(result["failed"].values()), result["failed"]
    assert result["contenders"]["ctask"]["loop"] == "ctask._loop.EventLoop"
    assert result["contenders"]["asyncio"]["loop"].startswith("asyncio.")
    for cell in result["values"][name].values():
        assert len(cell["runs"]) == 2
        assert cell["rate"] > 0
        assert cell["value"] > 0
