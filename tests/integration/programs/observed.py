"""How an observed program runs: `observed.run(main())`, by its arguments FACTORY and "install"."""

import asyncio
import importlib
import sys

import which

FACTORY, LOOP_TYPE, *OPTIONS = sys.argv[1:]

if "install" in OPTIONS:
    importlib.import_module("ctask").install()


def run(main):
    async def proved():
        assert which.loop() == LOOP_TYPE
        return await main

    module, _, name = FACTORY.partition(":")
    factory = getattr(importlib.import_module(module), name)
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(proved())
