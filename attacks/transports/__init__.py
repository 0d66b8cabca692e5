"""Programs over real sockets, run on asyncio and on ctask, and compared: see ../README.md."""

from __future__ import annotations

from .judge import Verdict, judge
from .program import Conn, Program, Step
from .running import run, show

__all__ = ["Conn", "Program", "Step", "Verdict", "judge", "run", "show"]
