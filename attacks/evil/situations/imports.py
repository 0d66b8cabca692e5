"""The module once more: each thing that it imports is evil in its turn."""

# mypy: ignore-errors

from __future__ import annotations

import _socket
import builtins
import importlib.util
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from ..objects import World
from ..scenes.imports import another, imported
from ..scenes.things import Meta
from .tools import acting, collecting, patched


def execute() -> Callable[[], Any]:
    spec = sys.modules["ctask._ctask"].__spec__
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    return lambda: spec.loader.exec_module(module)


def each_in_its_turn(world: World) -> None:
    for module_name, name in imported():
        module = sys.modules[module_name]
        with world.quietly(), patched(module, name, another(world, getattr(module, name))):
            execute()()


def importers(world: World) -> None:
    with patched(builtins, "__import__", acting(world, __import__)), world.quietly():
        execute()()


def another_socket_class(world: World) -> None:
    """It is looked for among those that are derived from the one in C."""
    meta = type("Meta", (Meta,), {"world": world})
    kinds = [meta("socket", (_socket.socket,), {"__slots__": ("evil",)}) for _ in range(2)]
    with patched(socket, "socket", world.Last()), world.quietly():
        execute()()
    with patched(socket, "socket", kinds[0]), world.quietly():
        execute()()
    kinds.clear()


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""
    collecting(world, execute)
    tasks = sys.modules["asyncio.tasks"]
    for other in (world.Last(), types.SimpleNamespace(**vars(tasks))):
        with patched(sys.modules["asyncio"], "tasks", other):
            sys.modules["asyncio.tasks"] = other
            try:
                collecting(world, execute)
            finally:
                sys.modules["asyncio.tasks"] = tasks


SITUATIONS: list[Callable[[World], Any]] = [
    each_in_its_turn,
    importers,
    another_socket_class,
    collections,
]
