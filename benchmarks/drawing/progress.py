"""One line on a terminal that says what is being measured; nothing where standard error is not a
terminal.
"""

import sys


def show(what: str = "") -> None:
    if sys.stderr.isatty():
        print(f"\r{what:70}\r", end="", file=sys.stderr, flush=True)
