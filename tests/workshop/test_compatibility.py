"""The compatibility runner's own judgement: what is selected, how outcomes are read and compared.

Nothing is fetched and no library's suite is run.
"""

from __future__ import annotations

import fnmatch
import json
import re
import signal
import subprocess
import sys
import tarfile

import pytest
from helpers.checkout import ROOT, package

PACKAGE = ROOT / "compatibility"


@pytest.fixture(scope="module", autouse=True)
def compatibility():
    return package("compatibility")


# ---- comparing ----


@pytest.mark.parametrize(
    ("asyncio", "ctask", "expected"),
    [
        ("passed", "passed", "pass"),
        ("passed", "xpassed", "pass"),
        ("xfailed", "passed", "pass"),
        ("passed", "failed", "ctask only"),
        ("passed", "error", "ctask only"),
        ("passed", "crash", "ctask only"),
        ("passed", "timeout", "ctask only"),
        ("passed", "skipped", "ctask only"),
        ("passed", "missing", "ctask only"),
        ("xfailed", "failed", "ctask only"),
        ("missing", "failed", "ctask only"),
        ("missing", "passed", "pass"),
        ("skipped", "passed", "pass"),
        ("skipped", "skipped", "skip"),
        ("failed", "passed", "asyncio only"),
        ("failed", "failed", "both"),
        ("failed", "crash", "both"),
        ("failed", "skipped", "both"),
        ("skipped", "failed", "both"),
    ],
)
def test_what_passes_on_asyncio_has_to_pass_on_ctask(asyncio, ctask, expected):
    from compatibility.compare import verdict

    assert verdict(asyncio, ctask) == expected


def test_verdicts_are_about_the_tests_of_either_side():
    from compatibility.compare import count, verdicts

    judged = verdicts({"a": "passed", "b": "passed"}, {"a": "passed", "c": "failed"})
    assert judged == {"a": "pass", "b": "ctask only", "c": "ctask only"}
    assert count(judged) == {
        "pass": 1,
        "skip": 0,
        "both": 0,
        "asyncio only": 0,
        "flaky": 0,
        "ctask only": 2,
    }


@pytest.mark.parametrize(
    ("asyncio", "ctask", "expected"),
    [
        (["passed"] * 3, ["failed"] * 3, "ctask only"),
        (["passed"] * 3, ["passed", "failed", "passed"], "ctask only"),
        (["passed"] * 3, ["passed"] * 3, "flaky"),
        (["passed", "failed", "passed"], ["failed"] * 3, "flaky"),
        (["passed"] * 3, ["missing"] * 3, "ctask only"),
    ],
)
def test_a_test_is_flaky_if_it_passes_each_time_or_fails_on_asyncio_too(asyncio, ctask, expected):
    from compatibility.compare import settle

    assert settle(asyncio, ctask) == expected


def test_what_fails_on_ctask_only_runs_again_on_both_sides():
    from compatibility.__main__ import RERUNS, judge
    from compatibility.libraries import LIBRARIES
    from compatibility.report import Result
    from compatibility.runner import SuiteRun

    asked = []

    class Suite:
        def run(self, side, only):
            asked.append((side, only))
            broken = "failed" if side == "ctask" else "passed"
            return SuiteRun(outcomes={"broken": broken, "busy": "passed"})

    asyncio = SuiteRun(outcomes={"good": "passed", "broken": "passed", "busy": "passed"})
    ctask = SuiteRun(
        outcomes={"good": "passed", "broken": "failed", "busy": "failed"},
        messages={"broken": "why"},
    )
    result = Result(LIBRARIES[0])
    judge(Suite(), asyncio, ctask, result)
    assert asked == [("asyncio", ["broken", "busy"]), ("ctask", ["broken", "busy"])] * RERUNS
    assert result.verdicts == {"good": "pass", "broken": "ctask only", "busy": "flaky"}
    assert result.tests["broken"]["message"] == "why"
    assert "good" not in result.tests
    assert not result.is_good


def test_nothing_runs_again_if_nothing_fails_on_ctask_only():
    from compatibility.__main__ import judge
    from compatibility.libraries import LIBRARIES
    from compatibility.report import Result
    from compatibility.runner import SuiteRun

    both = SuiteRun(outcomes={"good": "passed", "bad": "failed"})
    result = Result(LIBRARIES[0])
    judge(None, both, both, result)
    assert result.verdicts == {"good": "pass", "bad": "both"}
    assert result.is_good


# ---- reading what a process wrote ----


def events_of(*outcomes, plan=("a", "b", "c"), end=True, loops=()):
    events = [{"event": "plan", "ids": list(plan)}]
    for ident, outcome in zip(plan, outcomes, strict=False):
        events.append({"event": "start", "id": ident})
        if outcome is not None:
            events.append(
                {
                    "event": "result",
                    "id": ident,
                    "outcome": outcome,
                    "message": "",
                    "loops": list(loops),
                }
            )
    return events + ([{"event": "end", "status": 0}] if end else [])


def test_a_suite_that_ends_needs_no_other_process():
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    assert not gather(run, events_of("passed", "failed", "skipped"), 1, "")
    assert run.outcomes == {"a": "passed", "b": "failed", "c": "skipped"}
    assert run.notes == []


@pytest.mark.parametrize(
    ("tail", "outcome"),
    [("Segmentation fault", "crash"), ("Timeout (0:01:00)!\nThread 0x", "timeout")],
)
def test_the_rest_of_a_suite_goes_on_after_a_crash(tail, outcome):
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    assert gather(run, events_of("passed", None, end=False), -signal.SIGSEGV, tail)
    assert run.outcomes == {"a": "passed", "b": outcome}
    assert tail in run.messages["b"]
    assert not gather(run, events_of("passed", plan=("c",)), 0, "")
    assert run.outcomes == {"a": "passed", "b": outcome, "c": "passed"}


def test_a_process_that_reaches_no_test_is_not_started_again():
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    assert not gather(run, [], 4, "usage")
    assert run.outcomes == {}
    assert "usage" in run.notes[0]


def test_a_crash_after_the_last_test_is_told():
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    assert not gather(run, events_of("passed", "passed", "passed"), -signal.SIGSEGV, "core")
    assert "core" in run.notes[0]


def test_a_module_that_cannot_be_imported_is_an_error():
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    event = {"event": "collection", "id": "tests/test_x.py", "message": "ImportError"}
    gather(run, [event, *events_of("passed", "passed", "passed")], 1, "")
    assert run.outcomes["tests/test_x.py (collection)"] == "error"


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    from compatibility.runner import read_events

    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"event": "start", "id": "a"}) + '\n{"event": "resu')
    assert read_events(path) == [{"event": "start", "id": "a"}]


# ---- which loop it was about ----


def test_a_run_without_a_loop_of_ctasks_is_refused():
    from compatibility.runner import SuiteRun, gather, prove
    from compatibility.sources import CannotRun

    stock = SuiteRun()
    stock_loop = "asyncio.unix_events._UnixSelectorEventLoop"
    gather(stock, events_of("passed", "passed", "passed", loops=[stock_loop]), 0, "")
    prove(stock, "asyncio")
    with pytest.raises(CannotRun, match=r"no loop of ctask's"):
        prove(stock, "ctask")

    ours = SuiteRun()
    gather(ours, events_of("passed", loops=["ctask"]), 0, "")
    prove(ours, "ctask")
    assert ours.on_ctask() == 1
    with pytest.raises(CannotRun, match=r"where asyncio's was"):
        prove(ours, "asyncio")


def test_a_run_without_a_test_is_refused():
    from compatibility.runner import SuiteRun, prove
    from compatibility.sources import CannotRun

    with pytest.raises(CannotRun, match="no test"):
        prove(SuiteRun(notes=["usage"]), "asyncio")


# ---- the plugin, in a pytest of its own ----

SUITE = """
import asyncio, os, pytest

def test_plain(): pass
def test_fails(): assert 1 == 2
def test_on_a_loop(): asyncio.run(asyncio.sleep(0))
@pytest.mark.skip(reason="x")
def test_skipped(): pass
@pytest.mark.xfail
def test_known(): assert False
@pytest.fixture
def broken():
    yield
    raise RuntimeError("late")
def test_teardown(broken): pass
def test_excluded(): assert False
def test_dies(): os._exit(3)
def test_after(): pass
"""


def run_plugin(tmp_path, monkeypatch, side="asyncio", suite=SUITE, **orders):
    from compatibility.runner import read_events

    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    for name in ("side", "recorder"):
        text = (PACKAGE / "inside" / f"{name}.py").read_text()
        (inside / f"compatibility_{name}.py").write_text(text)
    (tmp_path / "test_suite.py").write_text(suite)
    results = tmp_path / "results.jsonl"
    results.unlink(missing_ok=True)
    request = {"only": None, "done": [], "exclude": ["*excluded*"], "test_timeout": 60}
    request |= {"results": str(results)} | orders
    (tmp_path / "request.json").write_text(json.dumps(request))
    monkeypatch.setenv("COMPATIBILITY_SIDE", side)
    monkeypatch.setenv("COMPATIBILITY_REQUEST", str(tmp_path / "request.json"))
    path = [str(inside), *(entry for entry in sys.path if entry)]
    monkeypatch.setenv("PYTHONPATH", ":".join(path))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "compatibility_recorder"]
    command += ["-p", "no:cacheprovider", "--rootdir", ".", "-c", "/dev/null", "test_suite.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    return done, read_events(results)


def test_each_tests_outcome_is_written_at_once(tmp_path, monkeypatch):
    from compatibility.runner import SuiteRun, gather

    run = SuiteRun()
    done, events = run_plugin(tmp_path, monkeypatch)
    assert gather(run, events, done.returncode, done.stdout)
    assert {ident.split("::")[1]: outcome for ident, outcome in run.outcomes.items()} == {
        "test_plain": "passed",
        "test_fails": "failed",
        "test_on_a_loop": "passed",
        "test_skipped": "skipped",
        "test_known": "xfailed",
        "test_teardown": "error",
        "test_dies": "crash",
    }
    assert "assert 1 == 2" in run.messages["test_suite.py::test_fails"]
    loops = run.loops["test_suite.py::test_on_a_loop"]
    assert loops == ["asyncio.unix_events._UnixSelectorEventLoop"]
    assert run.loops["test_suite.py::test_plain"] == []

    done, events = run_plugin(tmp_path, monkeypatch, done=sorted(run.outcomes))
    assert not gather(run, events, done.returncode, done.stdout)
    assert run.outcomes["test_suite.py::test_after"] == "passed"


@pytest.mark.ctask_only
def test_ctask_is_in_place_before_the_tests(tmp_path, monkeypatch):
    ident = "test_suite.py::test_on_a_loop"
    _, events = run_plugin(tmp_path, monkeypatch, side="ctask", only=[ident])
    (result,) = (event for event in events if event["event"] == "result")
    assert result["id"] == ident
    assert result["loops"] == ["ctask"]


@pytest.mark.parametrize("before", ["pass", "assert False"])
def test_a_test_that_takes_too_long_ends_the_process(tmp_path, monkeypatch, before):
    from compatibility.runner import SuiteRun, gather

    suite = f"""
import pytest, threading

@pytest.fixture
def hangs():
    yield
    threading.Event().wait()

def test_hangs(hangs):
    {before}
"""
    run = SuiteRun()
    done, events = run_plugin(tmp_path, monkeypatch, suite=suite, test_timeout=0.5)
    gather(run, events, done.returncode, done.stdout + done.stderr)
    assert run.outcomes == {"test_suite.py::test_hangs": "timeout"}


# ---- selecting ----


def test_libraries_are_selected_by_name_in_the_tables_order():
    from compatibility.libraries import LIBRARIES, select

    assert select([]) == list(LIBRARIES)
    first, second = LIBRARIES[0].name, LIBRARIES[1].name
    assert [library.name for library in select([second, first])] == [first, second]
    with pytest.raises(ValueError, match="nobody"):
        select(["nobody"])


def test_a_library_that_does_not_exist_ends_the_command(capsys):
    from compatibility.__main__ import parse_args

    with pytest.raises(SystemExit) as ended:
        parse_args(["--only", "nobody"])
    assert ended.value.code == 2
    assert "nobody" in capsys.readouterr().err


def test_libraries_and_what_they_need_are_pinned():
    from compatibility.environments import PINS
    from compatibility.libraries import LIBRARIES
    from compatibility.sources import normalized

    pins = {}
    for line in PINS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==(\S+)", line).groups()
            pins[normalized(name)] = version
    for library in LIBRARIES:
        assert pins[normalized(library.name)] == library.version
        for need in library.needs:
            assert normalized(need.partition("[")[0]) in pins, (library.name, need)


def test_names_in_the_table_are_unique_and_exclusions_have_reasons():
    from compatibility.libraries import LIBRARIES

    names = [library.name for library in LIBRARIES]
    assert names == sorted(set(names))
    for library in LIBRARIES:
        for pattern, reason in library.exclude.items():
            assert reason
            assert not fnmatch.fnmatchcase("", pattern)


def test_the_readme_names_each_library():
    from compatibility.libraries import LIBRARIES

    readme = (PACKAGE / "README.md").read_text()
    for library in LIBRARIES:
        assert f"| {library.name} {library.version} |" in readme


# ---- sources ----


def test_a_release_is_found_by_its_normalized_name():
    from compatibility.sources import archive_of

    names = ["proxy_py-2.4.tar.gz", "redis-8.1.0.tar.gz", "redis-8.1.0-py3-none-any.whl"]
    assert archive_of(names, "redis", "8.1.0") == "redis-8.1.0.tar.gz"
    assert archive_of(names, "proxy.py", "2.4") == "proxy_py-2.4.tar.gz"
    assert archive_of(names, "redis", "8.1") is None


def make_archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name in members:
            tar.addfile(tarfile.TarInfo(name))


def test_a_source_is_unpacked_anew(tmp_path):
    from compatibility.sources import CannotRun, unpack

    make_archive(tmp_path / "a.tar.gz", "name-1/tests/test_x.py")
    target = tmp_path / "source"
    unpack(tmp_path / "a.tar.gz", target)
    (target / "left").touch()
    unpack(tmp_path / "a.tar.gz", target)
    assert [path.name for path in target.rglob("*")] == ["tests", "test_x.py"]
    make_archive(tmp_path / "b.tar.gz", "one/x", "two/y")
    with pytest.raises(CannotRun, match="one top directory"):
        unpack(tmp_path / "b.tar.gz", target)


# ---- reporting ----


def test_the_closing_line_and_the_status_say_what_fails_on_ctask_only():
    from compatibility.libraries import LIBRARIES
    from compatibility.report import Result, closing_line, table

    good = Result(LIBRARIES[0], {"a": "pass", "b": "both", "c": "flaky"})
    bad = Result(LIBRARIES[1], {"a": "pass", "d": "ctask only"})
    refused = Result(LIBRARIES[2], refused="no loop\nat all")
    assert (good.is_good, bad.is_good, refused.is_good) == (True, False, False)
    assert closing_line([good, bad, refused]) == (
        "compatibility: 3 suites, 5 tests, 2 pass, 0 skipped, 1 fail on both, 1 flaky, "
        "1 fail on ctask only, 1 refused"
    )
    lines = table([good, refused]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "refused: no loop |" in lines[3]


def test_failures_on_ctask_only_are_shown_with_what_they_said():
    from compatibility.libraries import LIBRARIES
    from compatibility.report import Result, details

    test = {"verdict": "ctask only", "asyncio": "passed", "ctask": "failed", "message": "E  boom"}
    result = Result(LIBRARIES[0], {"t": "ctask only"}, {"t": test}, notes=["slow"])
    text = details(result)
    assert f"CTASK ONLY {LIBRARIES[0].name} t" in text
    assert "passed -> failed" in text
    assert "E  boom" in text
    assert "slow" in text
