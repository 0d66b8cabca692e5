"""The process that is attacked: it plays histories, one after the other, and tells of each."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
import threading
import warnings
from random import Random
from typing import Any

from .._interpreter import begin
from . import histories

SWITCHES = (5e-3, 1e-4, 1e-5, 1e-6)  # seconds until a thread has to let others run


class Reports(logging.Handler):
    """What was logged, and what was raised where nobody could catch it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        sys.unraisablehook = threading.excepthook = self.unraisable
        for name in ("asyncio", "concurrent.futures"):
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += f": {record.exc_info[1]!r}"
        self.texts.append(text)

    def unraisable(self, what: Any) -> None:
        self.texts.append(f"raised unseen: {what.exc_value!r}")

    def take(self, closed: bool) -> list[str]:
        """Those that are faults. What a closed loop has dropped is told of, as by asyncio."""
        texts, self.texts = self.texts, []
        if closed:
            texts = [text for text in texts if not text.startswith(histories.DROPPED)]
        return texts


def play(number: int, plan: dict[str, Any], reports: Reports) -> dict[str, Any]:
    random = Random(f"{plan['seed']}-{number}")
    can_play = functools.partial(histories.can_play, candidate=plan["candidate"])
    kind = random.choice(list(filter(can_play, plan["kinds"])))
    sys.setswitchinterval(random.choice(SWITCHES))
    history = histories.KINDS[kind](random, plan)
    history.play()
    told = {"number": number, "kind": kind, "calls": history.calls}
    faults, closed_early = history.faults, history.closed_early
    del history
    gc.collect()
    faults += reports.take(closed_early)
    return {**told, "faults": faults[:10]}


def main() -> None:
    import faulthandler  # not for interpreters with a lock of their own

    plan = begin()
    warnings.simplefilter("ignore")  # fork() in a process with threads; coroutines of a closed loop
    reports = Reports()
    for number in plan["numbers"]:
        faulthandler.dump_traceback_later(plan["seconds"], exit=True)
        before = histories.descriptors()
        told = play(number, plan, reports)
        if left := histories.descriptors() - before:
            told["faults"].append(f"descriptors are left: {sorted(left)}")
        print(json.dumps(told), flush=True)
    faulthandler.cancel_dump_traceback_later()
    sys.stderr.flush()
    os._exit(0)


def inside(plan: dict[str, Any]) -> None:
    """In an interpreter with a lock of its own: histories at the same time as in others."""
    sys.argv = ["", json.dumps(plan)]
    begin()
    warnings.simplefilter("ignore")
    reports = Reports()
    for number in plan["numbers"]:
        told = play(number, plan, reports)
        if told["faults"]:
            raise AssertionError(f"{told['kind']}: {told['faults']}")
