"""ctask and asyncio's own, by the same names: for tests of what has to see both."""

from __future__ import annotations

import asyncio

import pytest


class Stock:
    """asyncio's own, by the names that ctask has for its."""

    @staticmethod
    def run(main):
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main)

    def __getattr__(self, name):
        return getattr(asyncio, name)


@pytest.fixture(params=["ctask", "asyncio"])
def ns(request):
    if request.param == "asyncio":
        return Stock()
    import ctask  # not before conftest.py has seen to it that it is the installed one

    return ctask
