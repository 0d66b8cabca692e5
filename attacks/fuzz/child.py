"""The fuzzed interpreter: libFuzzer, with a function of a target's in the place of C's.

Its arguments are libFuzzer's own, behind the name of the target.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
import traceback
from types import CodeType
from typing import Any

ONE_INPUT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
COUNTERS = 1 << 12
COLLECT_EVERY = 500


class Lines:
    """Lines of ctask's Python code count for libFuzzer as what C code does."""

    def __init__(self, library: Any, folder: str) -> None:
        self.folder = folder
        self.counters = (ctypes.c_uint8 * COUNTERS)()
        self.places = (ctypes.c_size_t * (2 * COUNTERS))(*range(2 * COUNTERS))
        self.known: dict[tuple[CodeType, int], int] = {}
        begin, places = ctypes.addressof(self.counters), ctypes.addressof(self.places)
        pointer = ctypes.c_void_p
        library["__sanitizer_cov_8bit_counters_init"](pointer(begin), pointer(begin + COUNTERS))
        size = ctypes.sizeof(self.places)
        library["__sanitizer_cov_pcs_init"](pointer(places), pointer(places + size))

    def watch(self) -> None:
        if sys.version_info >= (3, 12):
            tool, events = sys.monitoring, sys.monitoring.events
            tool.use_tool_id(tool.COVERAGE_ID, "fuzz")
            tool.register_callback(tool.COVERAGE_ID, events.LINE, self.line)
            tool.set_events(tool.COVERAGE_ID, events.LINE)

    def line(self, code: CodeType, line: int) -> object:
        if sys.version_info < (3, 12) or not code.co_filename.startswith(self.folder):
            return sys.monitoring.DISABLE if sys.version_info >= (3, 12) else None
        place = self.known.setdefault((code, line), len(self.known) % COUNTERS)
        self.counters[place] = min(255, self.counters[place] + 1)
        return None


def main() -> int:
    name, *options = sys.argv[1:]
    logging.disable()
    os.environ.pop("LD_PRELOAD", None)
    gc.disable()  # an object's end comes when it is asked for
    import ctask

    library: Any = ctypes.PyDLL(None)
    lines = Lines(library, os.path.dirname(ctask.__file__))
    target = importlib.import_module(f"attacks.fuzz.{name}").Target()
    lines.watch()
    runs = 0

    def one_input(data: int, size: int) -> int:
        nonlocal runs
        runs += 1
        try:
            target(ctypes.string_at(data, size))
            if runs % COLLECT_EVERY == 0:
                gc.collect()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGABRT)
        return 0

    function = ONE_INPUT(one_input)
    words = [os.environ["FUZZ_PROGRAM"].encode(), *map(os.fsencode, options)]
    argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    argc = ctypes.c_int(len(words))
    start = ctypes.cast(argv, ctypes.POINTER(ctypes.c_char_p))
    return int(library.LLVMFuzzerRunDriver(ctypes.byref(argc), ctypes.byref(start), function))
