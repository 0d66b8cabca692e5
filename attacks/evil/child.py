"""The attacked interpreter: it plays one program. Started with a plan, in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import warnings
from typing import Any

from .._interpreter import planned
from .objects import World
from .programs import PROGRAMS

GAVE_UP = 77
PATIENCE = 20  # times 0.4 seconds


class Stuck(Exception):
    """A program waited for what does not come; it goes on with what is next."""


class Marks:
    """Who of ctask called the Python code that is running: places in the extension's file."""

    def __init__(self) -> None:
        self.path = sys.modules["ctask._ctask"].__file__ or ""
        with open("/proc/self/maps") as file:
            lines = [line.split() for line in file if line.rstrip().endswith(self.path)]
        ends = [[int(end, 16) for end in line[0].split("-")] for line in lines]
        self.begin, self.end = min(begin for begin, _ in ends), max(end for _, end in ends)
        self.places: set[int] = set()
        self._backtrace = ctypes.CDLL(None).backtrace
        self._array = (ctypes.c_void_p * 200)()

    def __call__(self) -> None:
        for i in range(self._backtrace(self._array, len(self._array))):
            address = self._array[i] or 0
            if self.begin <= address < self.end:
                self.places.add(address - self.begin)
                return

    def told(self) -> str:
        return json.dumps({"path": self.path, "places": sorted(self.places)})


def no_names(*args: Any, **kwargs: Any) -> Any:
    raise socket.gaierror("no names here")


def alarms() -> None:
    """Who waits is interrupted; what does not look at signals hangs."""
    seen: list[int] = []

    def alarm(number: int, frame: Any) -> None:
        seen.append(number)
        if len(seen) > PATIENCE:
            os._exit(GAVE_UP)
        raise Stuck

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.4, 0.4)


def turns(world: World, number: int) -> None:
    for _ in range(number):
        with world.quietly():
            world.loop.call_soon(world.loop.stop)
            world.loop.run_forever()


def evil_handler(world: World) -> Any:
    def handler(loop: Any, context: Any) -> None:
        if type(context) is dict:
            world.told(context.get("exception"))
        world.act()

    return handler


def evil_hook(world: World) -> Any:
    def hook(told: Any) -> None:
        world.told(told.exc_value)
        world.act()

    return hook


def play(plan: dict[str, Any]) -> None:
    import ctask

    ctask.install()
    marks = Marks() if plan["marks"] else None
    world = World(f"{plan['program']}:{plan['seed']}", marks)
    sys.unraisablehook = evil_hook(world)

    def begin() -> None:
        world.loop = ctask.new_event_loop()
        asyncio.set_event_loop(world.loop)
        world.loop.set_exception_handler(evil_handler(world))
        world.loop.set_debug(world.rng.random() < 0.2)
        world.makers = PROGRAMS[plan["program"]](world)

    begin()
    if world.rng.random() < 0.2:
        gc.set_threshold(1)
    for number in plan["steps"]:
        if plan["aloud"]:
            print("step", number, file=sys.stderr, flush=True)
        world.step(number)
        with world.quietly():
            if world.loop.is_closed():
                begin()
            if world.rng.random() < 0.3:
                turns(world, 2)
            else:
                world.something()
    world.step(-1)
    turns(world, 3)
    world.subjects.clear()
    with world.quietly():
        world.loop.close()
    with world.quietly():
        gc.collect()
    world.budget = 0
    for text in world.broken:
        print(text, flush=True)
    if marks:
        print(marks.told(), flush=True)


def main() -> None:
    plan = planned()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda told: None
    socket.getaddrinfo = no_names
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        alarms()
        with contextlib.suppress(Stuck):
            play(plan)
        with contextlib.suppress(Stuck):
            print("stands", flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir("/")
