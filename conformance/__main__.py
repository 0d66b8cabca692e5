"""The command line: `python -m conformance --candidate MODULE ...`."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance.report import BAD, KEYS, LayerReport, add, classify, counts_line, load_expected
from conformance.runner import ROOT, CannotList, ModuleRun, Results, Runner, stop
from conformance.selection import exclusions, module_exists, modules_of

PROBE = """\
import _asyncio, json, types
kinds = {}
for name, obj in vars(_asyncio).items():
    if not name.startswith("__"):
        kinds[name] = ("type" if isinstance(obj, type) else "function"
                       if isinstance(obj, types.BuiltinFunctionType) else "object")
print(json.dumps(kinds))
"""


# A module with more failures than this is broken: running each again would only take long.
NOT_FLAKY = 20


class CannotRun(Exception):
    """The run itself could not be done."""


def probe_api() -> dict[str, str]:
    """The names of this interpreter's own `_asyncio`, and what they are."""
    done = subprocess.run([sys.executable, "-I", "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise CannotRun("this interpreter has no _asyncio: " + done.stderr)
    api: dict[str, str] = json.loads(done.stdout)
    return api


def search_path() -> list[str]:
    """sys.path for the children: as ours, but with the started-from directory last.

    `python -m` puts that directory first.  It may hold the candidate; but where the candidate
    is installed, its own source tree (which has no compiled module) must not hide it.
    """
    here = os.getcwd()
    path = [os.path.abspath(d) for d in sys.path if d]
    return [d for d in path if d not in (here, ROOT)] + [here]


def parse_args(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Run CPython's own tests of asyncio against another implementation.",
        epilog="conformance/README.md says what is counted how.",
    )
    arg = p.add_argument
    arg("--candidate", help="module to test; or asyncio, pure, pure-as-c")
    arg("--layer", default="all", choices=["tasks", "loop", "all", "both", "installed"])
    arg("--json", help="write all results to this file")
    arg(
        "-k",
        dest="patterns",
        action="append",
        default=[],
        help="only tests whose id contains (or with *, matches) this; can be repeated",
    )
    arg("--modules", help="only these test modules (comma)")
    arg("--timeout", type=float, default=300, help="seconds for one test module (default 300)")
    arg("--test-timeout", type=float, default=30, help="seconds for one test (default 30)")
    arg("--expected", help="file of known failures, with reasons")
    stock = p.add_mutually_exclusive_group()
    stock.add_argument("--baseline", help="--json file of a stock run")
    stock.add_argument(
        "--ask-stock",
        action="store_true",
        help="in place of --baseline: run on stock asyncio what is not passed here, or missing",
    )
    arg(
        "--retries",
        type=int,
        default=0,
        help="run each failing test again, in a process of its own, up to N times; those that "
        "pass then count as passed and are listed as flaky (default 0)",
    )
    arg("-j", type=int, default=1, dest="jobs", help="test modules at a time (default 1)")
    arg("-v", "--verbose", action="store_true", help="print the tracebacks of failures")
    arg(
        "--no-netns",
        action="store_true",
        help="do not cut the tests off from all networks but loopback (done if run as root)",
    )
    arg("--keep-logs", metavar="DIR")
    arg("--no-exclusions", action="store_true", help="run what is left out by name as well")
    arg("--list-exclusions", action="store_true")
    options = p.parse_args(argv)
    if not options.candidate and not options.list_exclusions:
        p.error("--candidate is needed")
    options.path = search_path()
    if options.keep_logs:
        options.keep_logs = os.path.abspath(options.keep_logs)
    return options


def load_baseline(filename: str) -> dict[str, Any]:
    with open(filename) as f:
        baseline: dict[str, Any] = json.load(f)
    version = baseline["python"].split()[0]
    if version != sys.version.split()[0]:
        raise CannotRun(f"--baseline is of another Python: {version}")
    return baseline


def run_again(runner: Runner, run: ModuleRun, retries: int) -> None:
    """--retries: what passes in a process of its own counts as passed, but flaky."""
    for _ in range(retries):
        bad = [i for i, r in run.results.items() if r["class"] in BAD]
        if len(bad) > NOT_FLAKY:
            return
        for ident in bad:
            if ident.endswith(")"):  # not a test: import, tearDownModule
                continue
            second = runner.run_module(run.name, [ident])
            classify(second)
            new = second.results.get(ident)
            if new and new["class"] not in BAD:
                new["flaky"] = run.results[ident]["message"] or "failed"
                run.results[ident] = new


class Stock:
    """Stock asyncio: what does it do with the tests that a candidate does not pass?"""

    def __init__(self, runner: Runner, modules: list[str]) -> None:
        options = argparse.Namespace(**{**vars(runner.options), "candidate": "asyncio"})
        layer = stock_layer(runner.layer)
        self.runner = Runner(options, layer, runner.workdir, runner.api)
        self.plans = self.runner.list_modules(modules)

    def results(self, run: ModuleRun) -> Results:
        """Of all tests of the module but those that the candidate passes or that are left out."""
        passed = {i for i, result in run.results.items() if result["class"] == "pass"}
        doubtful = [i for i in self.plans[run.name] if i not in passed and i not in run.excluded]
        if not doubtful:
            return {}
        theirs = self.runner.run_module(run.name, doubtful)
        classify(theirs)
        if theirs.cannot:
            raise CannotRun(f"stock asyncio: {theirs.cannot}")
        run_again(self.runner, theirs, self.runner.options.retries)
        return theirs.results


def stock_layer(layer: str) -> str:
    return "tasks" if layer == "installed" else layer  # the same, for stock


def run_modules(
    runner: Runner, modules: list[str], base: Results | Stock | None
) -> Iterator[tuple[ModuleRun, Results | None]]:
    """Each module's run, and what stock asyncio makes of its tests, if that is known."""

    def one(name: str) -> tuple[ModuleRun, Results | None]:
        run = runner.run_module(name)
        classify(run)
        if run.cannot:
            return run, None
        run_again(runner, run, runner.options.retries)
        return run, base.results(run) if isinstance(base, Stock) else base

    pool = ThreadPoolExecutor(max(1, runner.options.jobs))
    try:
        yield from pool.map(one, modules)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_all(options: argparse.Namespace) -> bool:
    """Run the layers asked for; whether anything failed."""
    if not module_exists("test_tasks"):
        raise CannotRun("this interpreter has no test.test_asyncio")
    rules = load_expected(options.expected) if options.expected else []
    baseline = load_baseline(options.baseline) if options.baseline else None
    api = probe_api()
    print(
        f"Python {sys.version.split()[0]}, candidate {options.candidate}, layer {options.layer}",
        flush=True,
    )
    layers = ["tasks", "loop"] if options.layer == "all" else [options.layer]
    wanted = options.modules.split(",") if options.modules else None
    json_report: dict[str, Any] = {
        "python": sys.version,
        "candidate": options.candidate,
        "layers": {},
        "unixtime": int(time.time()),
    }
    grand: dict[str, int] = {}
    any_bad = False
    with tempfile.TemporaryDirectory(prefix="conf-") as workdir:
        for layer in layers:
            report = LayerReport(layer, rules, whole=not options.patterns)
            runner = Runner(options, layer, workdir, api)
            modules = modules_of(layer, wanted)
            base: Results | Stock | None = None
            if baseline is not None:
                base = baseline["layers"].get(stock_layer(layer), {}).get("tests", {})
            elif options.ask_stock:
                base = Stock(runner, modules)
            for run, theirs in run_modules(runner, modules, base):
                if run.cannot:
                    raise CannotRun(f"layer {layer}: {run.cannot}")
                report.take(run, theirs)
            any_bad |= report.finish(options.verbose)
            json_report["layers"][layer] = report.data
            add(grand, report.total)
    if len(layers) > 1:
        print(f"\n{'SUM':37} {counts_line({**dict.fromkeys(KEYS, 0), **grand})}")
    if options.json:
        with open(options.json, "w") as f:
            json.dump(json_report, f, indent=1)
    return any_bad


def main(argv: list[str]) -> int:
    options = parse_args(argv)
    if options.list_exclusions:
        for layer, pattern, reason in exclusions():
            print(f"{layer:6} {pattern}\n       {reason}")
        return 0
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    try:
        return 1 if run_all(options) else 0
    except (CannotRun, CannotList) as exc:
        print(f"\nCANNOT RUN {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
