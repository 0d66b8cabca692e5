"""wrap.c, compiled when first used, into build/attacks/."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "wrap.c"
BUILT = Path(__file__).resolve().parents[2] / "build" / "attacks"
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden"]


def library() -> Path:
    """The library to preload; a digest of the source is in its name: no old one is taken."""
    digest = hashlib.sha256(SOURCE.read_bytes() + "\0".join(FLAGS).encode()).hexdigest()[:12]
    target = BUILT / f"faults-{digest}.so"
    if not target.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        temporary = BUILT / f"{os.getpid()}-{target.name}"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, *FLAGS, "-o", str(temporary), str(SOURCE), "-ldl"], check=True)
        os.replace(temporary, target)
    return target
