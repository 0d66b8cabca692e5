"""What a target makes of the bytes that libFuzzer gives it, and how it tells what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Supply:
    """Bytes that are taken from the front; at the end there are zeros, and nothing."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def number(self) -> int:
        """Of two bytes."""
        return self.byte() << 8 | self.byte()

    def take(self, n: int) -> bytes:
        taken = self.data[self.at : self.at + n]
        self.at += len(taken)
        return taken

    def piece(self) -> bytes:
        """Its length is in front of it."""
        return self.take(self.byte())

    def text(self) -> str:
        return self.piece().decode("utf-8", "surrogateescape")

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]


def raised(error: BaseException | None, deep: int = 2) -> str:
    """An exception, with what it was raised from and while."""
    if error is None:
        return "None"
    told = f"{type(error).__module__}.{type(error).__qualname__}{error.args!r}"
    told += "".join(
        f" {name}={getattr(error, name)!r}"
        for name in ("partial", "expected", "consumed", "errno")
        if hasattr(error, name)
    )
    if deep and (error.__cause__ or error.__context__):
        told += f" from {raised(error.__cause__, deep - 1)}"
        told += f" while {raised(error.__context__, deep - 1)}"
    return told


def short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


class Differs(AssertionError):
    """The candidate did something else than asyncio, or broke a rule."""


def same(candidate: Sequence[object], asyncio: Sequence[object], what: str = "") -> None:
    """Raises Differs, and tells where two logs part."""
    for i in range(max(len(candidate), len(asyncio))):
        pair = [repr(log[i]) if i < len(log) else "(nothing)" for log in (asyncio, candidate)]
        if pair[0] != pair[1]:
            told = "".join(f"\n         {short(repr(entry))}" for entry in candidate[:i][-8:])
            raise Differs(f"{what}{told}\nasyncio: {short(pair[0])}\nctask:   {short(pair[1])}")
