"""The module once more, while something else stands in the place of what it imports."""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..._interpreter import ROOT
from ..objects import World
from .things import Meta, Thing, asked


@functools.cache
def imported() -> list[tuple[str, str]]:
    """Modules and their attributes, as src/ has them."""
    found = []
    for path in sorted((ROOT / "src").glob("*/state.h")):
        found += re.findall(r'X\(\w+,\s*"([\w.]+)",\s*"(\w+)"\)', path.read_text())
    return [(module, name) for module, name in found if hasattr(sys.modules.get(module), name)]


def another(world: World, value: Any) -> Any:
    if isinstance(value, type) and world.rng.random() < 0.9:
        meta = type("Meta", (Meta, type(value)), {"world": world})
        return meta(value.__name__, (value,), {})
    return world.value() if world.rng.random() < 0.3 else Thing(world)


@contextlib.contextmanager
def replaced(world: World) -> Iterator[None]:
    before: list[tuple[Any, str, Any]] = [(builtins, "__import__", builtins.__import__)]
    builtins.__import__ = asked(world, builtins.__import__)
    for module_name, name in world.rng.sample(imported(), world.rng.randrange(4)):
        module = sys.modules[module_name]
        before.append((module, name, getattr(module, name)))
        with world.quietly():
            setattr(module, name, another(world, getattr(module, name)))
    try:
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


def anew(world: World) -> Any:
    spec = sys.modules["ctask._ctask"].__spec__
    assert spec is not None and spec.loader is not None
    with replaced(world):
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def part(world: World) -> Any:
    """One of the classes or functions of such a module."""
    module = anew(world)
    names = [name for name in sorted(vars(module)) if name[0] != "_"]
    return getattr(module, world.rng.choice(names))


IMPORTS: list[Callable[[World], Any]] = [anew, anew, part]
