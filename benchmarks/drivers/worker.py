"""One contender's process. Started by the measuring modules, not by hand.

    worker time CONTENDER                         one request a line on standard input
    worker instructions CONTENDER SCENARIO:N...   under valgrind, see instructions.py
    worker memory CONTENDER KIND COUNT            see memory.py
    worker scale CONTENDER KIND COUNT on|off      see scale.py; the collector
    worker scale-count CONTENDER KIND:COUNT...    under valgrind
    worker threads CONTENDER LOOPS
    worker serve CONTENDER PROGRAM PLACE          see servers.py
    worker spawn CONTENDER PROGRAM AT-ONCE WARM-UP SECONDS
    worker count CONTENDER PROGRAM PLACE TIMES    under valgrind, see instructions.py
    worker delays CONTENDER REQUEST               see loads.py
    worker program CONTENDER ARGUMENTS            see programs.py

The first line of output is the contender's version, or why it is absent. Each answer after it
names the types of the loop and of the task that ran.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
import time
from typing import Any

from .. import contenders
from ..subjects import loads, programs, servers, spawning
from ..subjects.core import SCENARIOS, Scenario
from . import instructions, memory, scale

LIMIT = 300  # seconds for one measurement; a loop that hangs ends its process by SIGALRM


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def timed(scenario: Scenario, n: int) -> None:
    """Tell the CPU seconds of the whole process (user and system, all threads) for n operations."""
    await scenario.run(scenario.rounded(n // 10))
    gc.collect()
    started = time.process_time()
    await scenario.run(n)
    say({"seconds": time.process_time() - started, **contenders.identify()})


async def counted(scenario: Scenario, n: int) -> None:
    """Run n operations, after a warm-up that does not depend on n, without the cyclic collector."""
    say({"pid": os.getpid(), "scenario": scenario.name, **contenders.identify()})
    await scenario.run(scenario.rounded(100))
    gc.collect()
    gc.freeze()
    gc.disable()
    await scenario.run(n)


def once(run: contenders.RunMain, scenario: Scenario, n: int) -> None:
    signal.alarm(LIMIT)
    run(counted(scenario, n))


def serving(run: contenders.RunMain | None, program: str, place: servers.Place) -> None:
    """Run a server until the process is killed; without `run`, on the limit's loop."""
    if run:
        run(servers.serve(program, place, say))
    else:
        servers.serve_limit(program, place, say)


def main(mode: str, name: str, *arguments: str) -> None:
    if mode in ("serve", "count", "program", "delays"):
        servers.prepare()
    try:
        run, version = (None, "-") if name in contenders.LIMITS else contenders.runner(name)
    except contenders.Absent as absent:
        say({"absent": str(absent)})
        return
    say({"version": version})
    if mode in ("serve", "count"):
        program, place, *repeated = arguments
        serve = functools.partial(serving, run, program, servers.Place(**json.loads(place)))
        if mode == "serve":
            serve()
        else:
            instructions.serve_forked(serve, int(repeated[0]))
        return
    assert run
    if mode == "time":
        for line in sys.stdin:
            request = json.loads(line)
            signal.alarm(LIMIT)
            run(timed(SCENARIOS[request["scenario"]], request["n"]))
            signal.alarm(0)
    elif mode == "instructions":
        jobs = []
        for argument in arguments:
            scenario, n = argument.split(":")
            for times in (1, 3, 1):
                jobs.append(functools.partial(once, run, SCENARIOS[scenario], times * int(n)))
        instructions.fork(jobs)
    elif mode == "memory":
        kind, objects = arguments
        signal.alarm(LIMIT)
        run(memory.measured(kind, int(objects), say))
    elif mode == "scale":
        kind, things, collector = arguments
        signal.alarm(LIMIT)
        run(scale.timed(kind, int(things), collector == "on", say))
    elif mode == "scale-count":
        scale.count_forked(run, list(arguments), say)
    elif mode == "threads":
        signal.alarm(LIMIT)
        scale.run_threads(run, int(arguments[0]), say)
    elif mode == "spawn":
        program, at_once, warm_up, seconds = arguments
        run(spawning.spawn(program, int(at_once), float(warm_up), float(seconds), say))
    elif mode == "delays":
        run(loads.serve(json.loads(arguments[0]), say))
    elif mode == "program":
        run(programs.main(*json.loads(arguments[0]), say))


if __name__ == "__main__":
    main(*sys.argv[1:])
