"""Scenes: what the programs of `programs.py` do not come upon by themselves.

Each makes the state and the objects that some functions of C need to call Python, and goes on.
"""

from __future__ import annotations

from . import imports, secure, waiting
from .waiting import Scene

SCENES: dict[str, list[Scene]] = {
    "sync": waiting.SYNC,
    "combinators": waiting.COMBINATORS,
    "tls": secure.TLS,
    "imports": imports.IMPORTS,
}
