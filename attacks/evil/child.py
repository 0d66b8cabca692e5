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
from collections.abc import Callable
from typing import Any

import ctask

from .._interpreter import planned
from .objects import World
from .programs import PROGRAMS
from .scenes import SCENES
from .situations import DIRECTED, SITUATIONS

GAVE_UP = 77
MARKS = "marks "
PATIENCE = 20  # times 0.4 seconds, for a step
LIFE = 100  # the same, for all of them


class Stuck(Exception):
    """A program waited for what does not come; it goes on with what is next."""


class Marks:
    """Who of ctask called the Python code that is running: places in the extension's file, each
    the nearest and who of ctask's functions called that.
    """

    def __init__(self) -> None:
        self.path = sys.modules["ctask._ctask"].__file__ or ""
        with open("/proc/self/maps") as file:
            lines = [line.split() for line in file if line.rstrip().endswith(self.path)]
        ends = [[int(end, 16) for end in line[0].split("-")] for line in lines]
        self.begin, self.end = min(begin for begin, _ in ends), max(end for _, end in ends)
        self.chains: set[tuple[int, ...]] = set()
        self._backtrace = ctypes.CDLL(None).backtrace
        self._array = (ctypes.c_void_p * 200)()

    def __call__(self) -> None:
        chain: list[int] = []
        for i in range(self._backtrace(self._array, len(self._array))):
            address = self._array[i] or 0
            if self.begin <= address < self.end:
                chain.append(address - self.begin)
            elif chain:
                break
        if chain:
            self.chains.add(tuple(chain))

    def told(self) -> str:
        return MARKS + json.dumps([self.path, sorted(self.chains)])


def no_names(*args: Any, **kwargs: Any) -> Any:
    raise socket.gaierror("no names here")


class Alarm:
    """Who waits is interrupted; what does not look at signals hangs."""

    def __init__(self, marks: Marks | None) -> None:
        self.marks = marks
        self.seen = self.life = 0
        self.broken: list[str] = []
        signal.signal(signal.SIGALRM, self)
        signal.setitimer(signal.ITIMER_REAL, 0.4, 0.4)

    def __call__(self, number: int, frame: Any) -> None:
        self.seen += 1
        self.life += 1
        if self.seen > PATIENCE or self.life > LIFE:
            tell(self.broken, self.marks)
            os._exit(GAVE_UP)
        raise Stuck

    def step(self) -> None:
        self.seen = 0


def tell(broken: list[str], marks: Marks | None) -> None:
    """In one piece each: what is printed by and by, an alarm may cut in two."""
    for text in broken:
        os.write(1, f"\n{text}\n".encode())
    if marks:
        os.write(1, f"\n{marks.told()}\n".encode())


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


def directed(
    world: World,
    begin: Callable[[], None],
    plan: dict[str, Any],
    alarm: Alarm,
) -> None:
    """Each step is a situation in which evil code can run, and the one thing that it does then."""
    usual = gc.get_threshold()
    situations = SITUATIONS[plan["program"]]
    for number in plan["steps"]:
        if plan["aloud"]:
            print("step", number, file=sys.stderr, flush=True)
        situation, deed = divmod(number, len(World.DEEDS))
        alarm.step()
        world.step(number)
        world.deed = None
        begin()
        world.wait, world.deed = world.rng.choice((0, 0, 1, 2, 3, 5, 8)), World.DEEDS[deed]
        world.littering = world.rng.random() < 0.25
        if world.littering:
            world.litter()
            gc.set_threshold(world.rng.choice((1, 2, 5, 10)))
        with world.quietly():
            situations[situation](world)
        turns(world, 3)
        world.undo.clear()
        world.subjects.clear()
        with world.quietly():
            world.loop.close()
        world.littering = False
        gc.set_threshold(*usual)
        with world.quietly():
            gc.collect()


def play(plan: dict[str, Any], alarm: Alarm) -> None:
    world = World(f"{plan['program']}:{plan['seed']}", alarm.marks)
    alarm.broken = world.broken
    world.directed = plan["program"] in SITUATIONS
    sys.unraisablehook = evil_hook(world)

    def begin() -> None:
        world.loop = ctask.new_event_loop()
        asyncio.set_event_loop(world.loop)
        world.loop.set_exception_handler(evil_handler(world))
        world.loop.set_debug(world.rng.random() < 0.2)
        world.makers = PROGRAMS[plan["program"].removesuffix(DIRECTED)](world)
        world.scenes = SCENES.get(plan["program"], [])

    if plan["program"] in SITUATIONS:
        directed(world, begin, plan, alarm)
        return
    begin()
    if world.rng.random() < 0.2:
        gc.set_threshold(1)
        gc.callbacks.append(lambda phase, info: world.act())
    for number in plan["steps"]:
        if plan["aloud"]:
            print("step", number, file=sys.stderr, flush=True)
        alarm.step()
        world.step(number)
        with world.quietly():
            if world.loop.is_closed():
                begin()
            if world.rng.random() < 0.3:
                turns(world, 2)
            elif world.scenes and world.rng.random() < 0.5:
                world.scene()
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
        ctask.install()
        alarm = Alarm(Marks() if plan["marks"] else None)
        with contextlib.suppress(Stuck):
            play(plan, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0)
        tell(alarm.broken, alarm.marks)
        print("stands", flush=True)
        os.chdir("/")
