"""The command line: `python -m compatibility [--only NAME ...]`."""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compatibility import environments, sources
from compatibility.compare import CTASK_ONLY, PASS, settle, verdicts
from compatibility.environments import ROOT
from compatibility.libraries import Library, select
from compatibility.report import Result, closing_line, details, table
from compatibility.runner import Suite, SuiteRun, namespace, prove
from compatibility.sources import CannotRun

RERUNS = 3


def parse_args(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m compatibility",
        description="Run other libraries' own tests on asyncio and on ctask, and compare.",
        epilog="compatibility/README.md says what is counted how.",
    )
    arg = p.add_argument
    arg("--python", default=sys.executable, help="the interpreter (default: this one)")
    arg("--ctask", default=str(ROOT), metavar="WHEEL_OR_TREE", help="default: this checkout")
    arg("--only", nargs="+", default=[], metavar="NAME", help="only these libraries")
    arg("--work", help="keep environments and logs here (default: a temporary directory)")
    arg("--downloads", help="keep source releases here (default: in --work)")
    arg("--json", metavar="FILE", help="write what is not a plain pass, test by test")
    arg("--jobs", type=int, default=1, help="libraries at a time (default 1)")
    arg("--test-timeout", type=float, default=60, help="seconds for one test (default 60)")
    arg("--timeout", type=float, default=3600, help="seconds for one suite (default 3600)")
    arg("-k", dest="expression", help="pytest's: only tests that match")
    options = p.parse_args(argv)
    try:
        options.libraries = select(options.only)
    except ValueError as exc:
        p.error(str(exc))
    return options


def judge(suite: Suite, asyncio: SuiteRun, ctask: SuiteRun, result: Result) -> None:
    """Compare; what fails on ctask only runs again on both sides, to tell flaky tests."""
    result.verdicts = verdicts(asyncio.outcomes, ctask.outcomes)
    doubtful = [i for i, verdict in result.verdicts.items() if verdict == CTASK_ONLY]
    # What has no place in the source cannot be asked for by its name.
    again = [i for i in doubtful if not i.endswith(" (collection)")]
    repeated: dict[str, list[SuiteRun]] = {"asyncio": [], "ctask": []}
    for _ in range(RERUNS if again else 0):
        for side, runs in repeated.items():
            runs.append(suite.run(side, again))
    for ident in again:
        outcomes = {
            side: [run.outcomes.get(ident, "missing") for run in runs]
            for side, runs in repeated.items()
        }
        result.verdicts[ident] = settle(outcomes["asyncio"], outcomes["ctask"])
        result.tests[ident] = {"again": outcomes}
    for ident, verdict in result.verdicts.items():
        if verdict != PASS:
            result.tests.setdefault(ident, {}).update(
                verdict=verdict,
                asyncio=asyncio.outcomes.get(ident, "missing"),
                ctask=ctask.outcomes.get(ident, "missing"),
                message=(ctask.messages.get(ident) or asyncio.messages.get(ident, "")),
            )


def run_library(
    library: Library, options: argparse.Namespace, wheel: Path, work: Path, downloads: Path
) -> Result:
    result = Result(library)
    try:
        python = Path(options.python)
        archive = sources.fetch(library, python, downloads)
        environment = work / library.name / "venv"
        environments.make(python, library, environment)
        environments.add_ctask(environment, wheel)
        suite = Suite(
            library,
            archive,
            environment,
            work / library.name,
            expression=options.expression,
            test_timeout=options.test_timeout,
            suite_timeout=options.timeout,
        )
        runs = {}
        for side in ("asyncio", "ctask"):
            runs[side] = suite.run(side)
            result.notes += [f"on {side}: {note}" for note in runs[side].notes]
            prove(runs[side], side)
        result.on_ctask = runs["ctask"].on_ctask()
        result.seconds = (runs["asyncio"].seconds, runs["ctask"].seconds)
        judge(suite, runs["asyncio"], runs["ctask"], result)
    except CannotRun as exc:
        result.refused = str(exc)
    text = details(result)
    print(f"{library.name}: done{chr(10) if text else ''}{text}", flush=True)
    return result


def run_all(options: argparse.Namespace, work: Path) -> list[Result]:
    downloads = Path(options.downloads).resolve() if options.downloads else work / "downloads"
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)  # some tests run as another user
    wheel = environments.build_wheel(Path(options.python), Path(options.ctask), work)
    if not namespace():
        print("NOT ISOLATED: no namespaces here; the tests see this machine's network", flush=True)
        options.jobs = 1

    def one(library: Library) -> Result:
        return run_library(library, options, wheel, work, downloads)

    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        return list(pool.map(one, options.libraries))


def python_version(python: str) -> str:
    command = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(argv: list[str]) -> int:
    options = parse_args(argv)
    version = python_version(options.python)
    print(f"Python {version}, Linux {platform.release()}", flush=True)
    try:
        if options.work:
            results = run_all(options, Path(options.work).resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="compatibility-") as work:
                results = run_all(options, Path(work))
    except CannotRun as exc:
        print(f"\nCANNOT RUN {exc}", file=sys.stderr)
        return 2
    if options.json:
        report = {
            "python": version,
            "isolated": bool(namespace()),
            "libraries": {result.library.name: result.as_json() for result in results},
        }
        Path(options.json).write_text(json.dumps(report, indent=1))
    print(f"\n{table(results)}\n\n{closing_line(results)}")
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
