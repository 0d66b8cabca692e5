"""`python -m ctask ps PID` and its relatives: the arguments, and what is printed where."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable

from ctask.observe import show
from ctask.observe.client import AskError, ask, trace
from ctask.observe.inspector import MAX_TASKS, MAX_TRACE
from ctask.observe.trace import cannot_write, open_output, write

HELP = {
    "ps": "the tasks of a running program as a table",
    "pstree": "who waits for whom, as a tree",
    "stacks": "where each task waits, as tracebacks",
    "top": "what its loops do, every second",
}
INTERVAL = 1.0


def run(command: str, args: list[str]) -> int:
    """Run one of the commands, and return the exit status."""
    try:
        return _trace(args) if command == "trace" else _look(command, args)
    except AskError as error:
        print(f"ctask {command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as in `ctask stacks PID | head`
        return 1
    except KeyboardInterrupt:
        return 130


def _look(command: str, args: list[str]) -> int:
    usage = f"usage: ctask {command} [--json] [--tasks N] PID"
    as_json = "--json" in args
    rest = [arg for arg in args if arg != "--json"]
    most = str(MAX_TASKS)
    if "--tasks" in rest[:-1]:
        at = rest.index("--tasks")
        most = rest[at + 1]
        del rest[at : at + 2]
    if "-h" in rest or "--help" in rest:
        print(f"{usage}\n\n{HELP[command].capitalize()}.")
        print(f"N tasks, or {MAX_TASKS}, are looked at: the oldest ones.")
        print("The program is one that runs with CTASK_INSPECT=1, or has called ctask.inspect().")
        return 0
    if len(rest) != 1 or not rest[0].isdecimal() or not most.isdecimal():
        print(usage, file=sys.stderr)
        return 2
    if sys.stdout is None:
        raise AskError("standard output is closed")
    if command == "top":
        _top(int(rest[0]), as_json, int(most))
    else:
        _once(command, int(rest[0]), as_json, int(most))
    return 0


def _say(lines: Iterable[str]) -> None:
    """Print lines.  Raises BrokenPipeError, and AskError if that cannot be done otherwise."""
    out = sys.stdout
    try:
        for line in lines:
            print(line, file=out)
        out.flush()
    except OSError as error:
        # What could not be written is not tried once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise AskError(f"standard output cannot be written to: {error.strerror}") from None


def _trace(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "ctask trace",
        description="Write down what the loops of a running program do in the next seconds.",
        epilog="The program is one that runs with CTASK_INSPECT=1, or has called ctask.inspect(). "
        "Ctrl-C ends it earlier.",
    )
    parser.add_argument("pid", metavar="PID", type=int)
    parser.add_argument("--seconds", metavar="N", type=float, default=5.0, help="5 by default")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="FILE.html draws a timeline, any other is for Perfetto and Chrome "
        "(trace-PID.html by default)",
    )
    options = parser.parse_args(args)
    if not 0 <= options.seconds <= MAX_TRACE:
        parser.error(f"--seconds takes a number from 0 to {MAX_TRACE:.0f}")
    path = options.output or f"trace-{options.pid}.html"
    existed = os.path.lexists(path)
    try:
        with open_output(path) as file:
            write(trace(options.pid, options.seconds), file, path)
    except (AskError, KeyboardInterrupt):
        if not existed:
            os.unlink(path)
        raise
    except OSError as error:
        raise AskError(cannot_write(path, error)) from None
    if sys.stdout is not None:
        _say([path])
    return 0


def _once(command: str, pid: int, as_json: bool, most: int) -> None:
    answer = ask(pid, deadlocks=True, most=most)
    if as_json:
        _say([json.dumps(answer)])
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = show.ps(answer, width) if command == "ps" else getattr(show, command)(answer)
    _say_names(lines)


def _say_names(lines: Iterable[str]) -> None:
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    _say(lines)


def _top(pid: int, as_json: bool, most: int) -> None:
    """Where nobody looks on, one second and an end."""
    moving = sys.stdout.isatty() and not as_json
    before = None if moving else ask(pid, most=most)
    while True:
        if before is not None:
            time.sleep(INTERVAL)
        answer = ask(pid, most=most)
        if as_json:
            _say([json.dumps(answer)])
        elif moving:
            size = shutil.get_terminal_size()
            sys.stdout.write("\x1b[H\x1b[J")
            _say_names(show.top(before, answer, size.columns, size.lines))
        else:
            _say_names(show.top(before, answer))
        if not moving:
            return
        before = answer
