"""Situations made for evil code: what random programs do not come to, one function for each.

It brings C code to a point where it calls Python, or drops what is somebody's last. `World.DEEDS`
are what happens there, each in its turn; `World.undo` may have what takes the situation back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..objects import World
from . import (
    combinators,
    coro,
    frames,
    handles,
    imports,
    io,
    loop,
    observe,
    process,
    steps,
    streams,
    sync,
    tasks,
    tls,
)

DIRECTED = "-directed"  # the end of such a program's name, after the room's
SITUATIONS: dict[str, list[Callable[[World], Any]]] = {
    f"{room.__name__.rpartition('.')[2]}{DIRECTED}": room.SITUATIONS
    for room in (handles, tasks, loop, coro, combinators, sync, io, streams, tls, imports)
}
for room, more in (("tasks", steps), ("coro", frames), ("loop", observe), ("io", process)):
    SITUATIONS[f"{room}{DIRECTED}"] += more.SITUATIONS
