"""Whole programs, on asyncio and on ctask: what they do, and in which order, must be the same."""

from __future__ import annotations


def run(seed: int, count: int, options: list[str]) -> int:
    from .campaign import run  # here, as worker processes import this package, too

    return run(seed, count, options)
