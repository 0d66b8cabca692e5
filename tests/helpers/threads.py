"""What the kernel tells of a thread."""

from __future__ import annotations

import threading
from pathlib import Path


def sleeps_of(thread: threading.Thread) -> int:
    """How often it has given up its processor to wait."""
    for line in Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "voluntary_ctxt_switches":
            return int(value)
    raise AssertionError("the kernel does not tell")
