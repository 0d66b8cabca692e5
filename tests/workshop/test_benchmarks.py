"""The benchmarks' own arithmetic: what they choose, how runs become figures, what tables say."""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest
from helpers.checkout import ROOT, package

PACKAGE = ROOT / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    benchmarks = package("benchmarks")
    # Before a test counts descriptors: ctypes, which they use, may keep one of libffi's.
    importlib.import_module("benchmarks.drivers.memory")
    return benchmarks


def run(requests, cpu, seconds=1.0):
    return {"requests": requests, "server_cpu": cpu, "seconds": seconds}


def test_sizes_are_read_as_they_are_written():
    from benchmarks.subjects.traffic import short, size_of

    assert [short(size) for size in (1, 500, 1024, 1025, 102400)] == [
        "1",
        "500",
        "1k",
        "1025",
        "100k",
    ]
    for size in (1, 500, 1024, 1025, 102400):
        assert size_of(short(size)) == size


def test_loads_are_the_scenarios_own_unless_asked_for():
    from benchmarks.subjects.traffic import Scenario

    scenario = Scenario("s", "S", "protocol", "tcp", ((1024, 1), (1024, 100), (10240, 100)))
    assert scenario.selected([], []) == [(1024, 1), (1024, 100), (10240, 100)]
    assert scenario.selected([], [7]) == [(1024, 7), (10240, 7)]
    assert scenario.selected([512], []) == [(512, 1), (512, 100)]
    assert scenario.selected([512, 1024], [7, 8]) == [(512, 7), (512, 8), (1024, 7), (1024, 8)]


def test_rows_of_all_scenarios_are_distinct():
    from benchmarks.subjects.traffic import SCENARIOS

    rows = [s.row(load) for s in SCENARIOS.values() for load in s.loads]
    titles = [s.row_title(load) for s in SCENARIOS.values() for load in s.loads]
    assert len(set(rows)) == len(rows)
    assert len(set(titles)) == len(titles)


def test_programs_of_all_scenarios_exist():
    from benchmarks.subjects.servers import SERVERS
    from benchmarks.subjects.spawning import PROGRAMS
    from benchmarks.subjects.traffic import SCENARIOS

    for scenario in SCENARIOS.values():
        assert scenario.program in (PROGRAMS if scenario.link == "process" else SERVERS)


def test_figure_is_the_median_of_cpu_per_request_and_spread_is_within_rounds():
    from benchmarks.drivers.network import summarise

    row = {
        "asyncio": {"runs": [run(100, 1.0), run(100, 3.0), run(100, 2.0)]},
        "ctask": {"runs": [run(200, 1.0, 2.0), run(100, 0.5), run(50, 2.0)]},
    }
    summarise(row)
    assert row["asyncio"]["value"] == 0.02
    assert row["asyncio"]["spread"] == [1.0, 1.0]
    assert row["ctask"]["rounds"] == [0.005, 0.005, 0.04]
    assert row["ctask"]["value"] == 0.005
    assert row["ctask"]["spread"] == pytest.approx([1 / 6, 2.0])
    assert row["ctask"]["rate"] == 100


def test_row_without_asyncio_has_no_spread():
    from benchmarks.drivers.network import summarise

    row = {"ctask": {"runs": [run(10, 1.0)]}}
    summarise(row)
    assert row["ctask"]["value"] == 0.1
    assert "spread" not in row["ctask"]


def test_failure_in_a_later_round_leaves_no_figure(monkeypatch):
    from benchmarks.drivers import network
    from benchmarks.subjects.traffic import Scenario

    scenario = Scenario("s", "S", "protocol", "tcp", ((1024, 1),))
    rounds = []

    def run_round(found, names, *_):
        rounds.append(names)
        for name in names:

            def answer(name=name):
                if name == "rloop" and len(rounds) == 2:
                    raise network.Unable("stopped answering")
                if name == "zuvloop":
                    raise network.contenders.Absent("not there")
                return run(10, 1.0)

            network.attempt(found, "s/1k/1", name, answer)

    monkeypatch.setattr(network, "run_round", run_round)
    found = network.measure(
        ["asyncio", "rloop", "zuvloop"],
        {scenario: [(1024, 1)]},
        raised_malloc=False,
        quick=True,
    )
    assert list(found["values"]["s/1k/1"]) == ["asyncio"]
    assert len(found["values"]["s/1k/1"]["asyncio"]["runs"]) == len(rounds) == 3
    assert found["failed"] == {"s/1k/1": {"rloop": "stopped answering"}}
    assert found["absent"] == {"zuvloop": "not there"}
    assert rounds[1] == ["asyncio", "rloop"]


def test_tables_compare_with_asyncio_and_with_the_limits():
    from benchmarks.drawing import report

    result = {
        "mode": "network",
        "titles": {"a": "first", "b": "second"},
        "contenders": {"ctask": {}, "asyncio": {}, "c-limit": {}},
        "failed": {
            "a": {"rloop": "no TLS"},
            "b": {"rloop": "no TLS", "c-limit": "no compiler", "protocol-limit": "no compiler"},
        },
        "values": {
            "a": {
                "asyncio": {"value": 20e-6, "rate": 1000.4},
                "ctask": {"value": 5e-6, "rate": 12345},
                "c-limit": {"value": 4e-6, "rate": 2},
            },
            "b": {
                "asyncio": {"value": 1e-3, "rate": 1},
                "ctask": {"value": 2e-3, "rate": 1},
            },
        },
    }

    def cells(table):
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]

    assert cells(report.table(result))[2:] == [
        ["first", "20.00", "5.00 (0.25)", "4.00 (0.20)"],
        ["second", "1,000.00", "2,000.00 (2.00)", "-"],
        ["geometric mean", "1.000", "0.707", "-"],
    ]
    assert cells(report.limits_table(result, "c-limit"))[2:] == [["first", "5.00", "1.25", "1.00"]]
    assert report.limits_table(result, "protocol-limit") == ""
    assert cells(report.rates_table(result))[2:] == [
        ["first", "1,000", "12,345", "2"],
        ["second", "1", "1", "-"],
    ]
    assert report.failures(result) == [
        "rloop: no TLS (a, b)",
        "c-limit, protocol-limit: no compiler (b)",
    ]


@pytest.mark.parametrize(
    "name, question",
    [
        ("ctask-traced", "ctask._ctask._trace_stop(True) is None"),
        ("ctask-watched", "'ctask.watch' not in [t.name for t in threading.enumerate()]"),
    ],
)
def test_observed_contenders_run_observed(script, name, question):
    source = f"""
        import asyncio, sys, threading
        import ctask
        sys.path.append({str(ROOT)!r})
        from benchmarks import contenders

        run, version = contenders.runner({name!r})
        observed = []

        async def main():
            observed.append(not ({question}))

        run(main())
        assert observed == [True], observed
        """
    script(source, bare=True)


class TestGuard:
    """What the guard compares, when it fails, and when it says that it cannot know."""

    HERE: ClassVar = {"python": "3.13.0", "compiler": "GCC"}

    @pytest.fixture
    def guard(self, monkeypatch, tmp_path):
        from benchmarks import guard

        monkeypatch.setattr(guard, "RECORD", tmp_path / "recorded.json")
        monkeypatch.setattr(guard, "environment", lambda: dict(self.HERE))
        monkeypatch.setattr(guard.shutil, "which", lambda name: "/bin/" + name)
        return guard

    @pytest.fixture
    def run(self, guard, monkeypatch, capsys):
        """Run the command; each count of scenarios takes the next of these figures."""

        def run(*arguments, counts=()):
            left = list(counts)

            def count(scenarios):
                figures = left.pop(0)
                return {s.name: figures[s.name] for s in scenarios if s.name in figures}

            monkeypatch.setattr(guard, "count", count)
            monkeypatch.setattr(sys, "argv", ["guard", *arguments])
            status = guard.main()
            assert not left
            return status, capsys.readouterr().out

        return run

    def test_growth_beyond_three_percent_fails(self, run):
        run("--record", counts=[{"lock": 1000, "event": 1000}])
        assert run(counts=[{"lock": 1029, "event": 1000}])[0] == 0
        status, out = run(counts=[{"lock": 1031, "event": 1000}] * 2)
        assert status == 1
        (line,) = [line for line in out.splitlines() if "GROWN" in line]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells == ["lock", "1,000", "1,031", "+3.1%", "GROWN"]
        assert "guard: 1 of 2 failed" in out

    def test_growth_is_counted_again_before_it_counts(self, run):
        run("--record", counts=[{"lock": 1000, "event": 1000}])
        status, out = run(counts=[{"lock": 1100, "event": 1000}, {"lock": 1001}])
        assert (status, "GROWN" in out) == (0, False)

    def test_two_threads_may_grow_by_more(self, run, guard):
        run("--record", counts=[{"call_soon_threadsafe": 1000}])
        status, out = run(counts=[{"call_soon_threadsafe": 1110}])
        assert status == 0
        assert guard.LOOSE["call_soon_threadsafe"][1] in out
        assert run(counts=[{"call_soon_threadsafe": 1130}] * 2)[0] == 1

    def test_scenario_without_a_record_fails(self, run):
        run("--record", counts=[{"lock": 1000}])
        status, out = run(counts=[{"lock": 1000, "event": 5}])
        assert status == 1
        assert "not recorded: event" in out

    def test_gain_asks_to_be_recorded(self, run):
        run("--record", counts=[{"lock": 1000}])
        status, out = run(counts=[{"lock": 900}])
        assert status == 0
        assert "--record" in out

    def test_version_without_a_record_is_skipped(self, run, guard):
        status, out = run()
        assert status == 0
        assert f"skipped: no figures are recorded for Python {guard.VERSION}" in out

    def test_record_keeps_other_versions_and_what_was_not_counted(self, run, guard):
        guard.RECORD.write_text(json.dumps({"2.7": {"environment": {}, "instructions": {}}}))
        run("--record", counts=[{"lock": 1000, "event": 7.4}])
        run("--record", counts=[{"lock": 900}])
        known = json.loads(guard.RECORD.read_text())
        assert list(known) == ["2.7", guard.VERSION]
        assert known[guard.VERSION] == {
            "environment": self.HERE,
            "instructions": {"lock": 900, "event": 7},
        }

    def test_record_from_elsewhere_is_replaced_as_a_whole(self, run, guard, monkeypatch):
        run("--record", counts=[{"lock": 1000, "event": 7}])
        monkeypatch.setattr(guard, "environment", lambda: self.HERE | {"compiler": "clang"})
        run("--record", counts=[{"lock": 900}])
        known = json.loads(guard.RECORD.read_text())
        assert known[guard.VERSION]["instructions"] == {"lock": 900}

    def test_elsewhere_the_commit_that_recorded_is_counted(self, run, guard, monkeypatch):
        run("--record", counts=[{"lock": 1000}])
        monkeypatch.setattr(guard, "environment", lambda: self.HERE | {"compiler": "clang"})
        monkeypatch.setattr(guard, "recording_commit", lambda: "c0ffee")
        asked = []

        def count_commit(commit, scenarios):
            asked.append(commit)
            return {"lock": 2000}

        monkeypatch.setattr(guard, "count_commit", count_commit)
        status, out = run(counts=[{"lock": 2001}])
        assert (status, asked) == (0, ["c0ffee"])
        assert "compiler: GCC when recorded, clang here" in out
        assert run(counts=[{"lock": 2100}] * 2)[0] == 1

    def test_elsewhere_without_the_commit_nothing_is_known(self, run, guard, monkeypatch):
        run("--record", counts=[{"lock": 1000}])
        monkeypatch.setattr(guard, "environment", lambda: self.HERE | {"compiler": "clang"})

        def git(*arguments):
            raise guard.Unknown("there is no git here")

        monkeypatch.setattr(guard, "git", git)
        status, out = run()
        assert status == 0
        assert "skipped: there is no git here" in out

    def test_shallow_repository_does_not_tell_which_commit_recorded(self, guard, monkeypatch):
        monkeypatch.setattr(guard, "git", lambda *arguments: b"true\n")
        with pytest.raises(guard.Unknown, match="shallow"):
            guard.recording_commit()

    def test_compiler_is_read_from_what_it_compiled(self, guard):
        comment = b"\0GCC: (Debian 12.2.0-14) 12.2.0\0"
        assert guard.compiler(b"\x7fELF" + comment) == "GCC: (Debian 12.2.0-14) 12.2.0"
        assert guard.compiler(comment + b"GNU C11 12.2.0 -O3\0") == "GNU C11 12.2.0 -O3"
        assert guard.compiler(b"\x7fELF") == "unknown"

    def test_recorded_figures_are_of_scenarios_that_exist(self):
        from benchmarks.subjects.core import SCENARIOS

        known = json.loads((PACKAGE / "recorded.json").read_text())
        for version in known.values():
            assert set(version["instructions"]) == set(SCENARIOS)


class TestFloors:
    """What the scenarios' own Python code costs, and what costs more than that."""

    @pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
    def test_all_scenarios_run_on_the_floor(self):
        program = """
import asyncio
from benchmarks import contenders, native
from benchmarks.subjects import core
try:
    run, _ = contenders.runner("floor")
except contenders.Absent as absent:
    print("absent:", absent)
else:
    for scenario in core.SCENARIOS.values():
        run(scenario.run(scenario.small))
    print(type(asyncio.get_running_loop()))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        if done.stdout.startswith("absent:"):
            pytest.skip(done.stdout)  # such as Python's headers
        assert done.stdout == "<class 'floor.Nothing'>\n"

    def test_cost_is_a_functions_own_and_names_are_given_once(self):
        from benchmarks.drivers.floors import functions

        profile = """\
events: Ir
fn=(1) first
12 100
+3 20
cfn=(2) second
calls=7 1
* 5000
-1 3
fn=(2)
5 40
fn=(3) first'2
* 7
"""
        assert functions(profile) == {"first": 130, "second": 40}

    def test_table_names_what_costs_above_the_floor(self):
        from benchmarks.drivers import floors

        row = {
            "floor": {"value": 100, "functions": {"eval": 90, "send": 10}},
            "ctask": {"value": 1300, "functions": {"eval": 100, "step": 200, "run": 1000}},
        }
        result = {"titles": {"s": "title"}, "values": {"s": row}}
        line = floors.text(result).splitlines()[-1]
        assert [cell.strip() for cell in line.split("|")[1:-1]] == [
            "title",
            "100",
            "1,300",
            "1,200",
            "`run` 1,000, `step` 200, `eval` 10",
        ]


def test_wheel_is_the_one_in_the_folder_or_absent(monkeypatch, tmp_path):
    from benchmarks import contenders

    pytest.importorskip("ctask")  # imported from elsewhere
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(contenders.WHEEL_FOLDER, str(tmp_path))
    with pytest.raises(contenders.Absent) as absent:
        contenders.runner(contenders.WHEEL)
    assert str(absent.value) == f"no ctask in {tmp_path}"
    answer = {"loop": "ctask._loop.EventLoop", "task": "ctask.Task"}
    assert contenders.proof(contenders.WHEEL, {"version": "1"}, answer)["version"] == "1"


class TestScale:
    """What an operation costs when there are many at once."""

    def test_kinds_end_and_do_so_with_nothing_to_do(self):
        from benchmarks.drivers.scale import KINDS

        async def main():
            for _, do in KINDS.values():
                for count, times in ((1, 1), (10, 3), (10, 0)):
                    await asyncio.wait_for(do(count, times), 60)

        asyncio.run(main())

    def test_operations_are_as_many_as_asked_for_or_one_round(self):
        from benchmarks.drivers.scale import repeats

        assert [repeats(count, 1000) for count in (10, 1000, 5000)] == [100, 1, 1]

    def test_times_in_no_order_are_the_same_each_time(self):
        from benchmarks.drivers.scale import scattered

        once, again = list(scattered(1000)), list(scattered(1000))
        assert once == again
        assert once != sorted(once)
        assert len(set(once)) == 1000

    def test_events_are_told_apart_by_process(self):
        from benchmarks.drivers.scale import collected

        log = "\n".join(
            [
                "==12== Events    : Ir Dr DLmr DLmw",
                "==12== Collected : 100 50 2 1",
                "==13== Events    : Ir Dr DLmr DLmw",
                "==13== Collected : 300 90 4 3",
            ]
        )
        assert collected(log) == {
            "12": {"Ir": 100, "Dr": 50, "DLmr": 2, "DLmw": 1},
            "13": {"Ir": 300, "Dr": 90, "DLmr": 4, "DLmw": 3},
        }

    def test_first_time_with_as_many_is_told_apart(self, monkeypatch):
        from benchmarks.drivers import scale

        calls, answers = [], []

        async def do(count, times):
            calls.append((count, times))
            end = time.process_time() + (0.2 if len(calls) == 2 else 0.02)
            while time.process_time() < end:
                pass

        def exit(code):
            raise SystemExit(code)

        monkeypatch.setitem(scale.KINDS, "kind", ("title", do))
        monkeypatch.setattr(scale.os, "_exit", exit)
        with pytest.raises(SystemExit):
            asyncio.run(scale.timed("kind", 2000, True, answers.append))
        assert calls[:3] == [(1000, 3), (2000, 1), (2000, 1)]
        answer = answers[0]
        assert answer["first"] >= 0.2 / 2000
        assert 0.01 / 2000 < answer["value"] < answer["first"]
        assert answer["value"] == pytest.approx(answer["user"] + answer["kernel"])
        assert answer["faults"] >= 0

    def test_round_takes_all_contenders_in_turn_and_figures_are_medians(self, monkeypatch):
        from benchmarks.drivers import scale

        asked = []

        def answers_of(found, name, arguments, worker):
            if name == "rloop":
                found["absent"][name] = "not there"
                return []
            asked.append((name, *arguments[2:]))
            found["contenders"][name] = {}
            if arguments[0] == "threads":
                return [{"cpu": 1.0, "real": 2.0, "loop": "L"}]
            return [{"value": float(len(asked)), "kernel": 0.5, "loop": "L"}]

        monkeypatch.setattr(scale, "answers_of", answers_of)
        monkeypatch.setattr(scale.contenders, "start", lambda *_, **__: None)
        monkeypatch.setattr(scale.shutil, "which", lambda _: None)
        monkeypatch.setattr(scale, "COUNTS", (10, 1000))
        monkeypatch.setattr(scale, "THREADS", (1, 2))
        found = scale.measure(["asyncio", "rloop", "ctask"], ["items"], False)
        first = [
            *[(name, "items", "10", "off") for name in ("asyncio", "ctask")],
            *[(name, "items", "10", "on") for name in ("asyncio", "ctask")],
            *[(name, "items", "1000", "off") for name in ("asyncio", "ctask")],
            *[(name, "items", "1000", "on") for name in ("asyncio", "ctask")],
            *[(name, loops) for loops in ("1", "2") for name in ("asyncio", "ctask")],
        ]
        later = [each for each in first if each[-1] != "on"]
        assert asked == [*first, *later, *later]
        assert found["absent"] == {"rloop": "not there"}
        assert found["values"]["items"]["ctask"]["10"] == {
            "value": 14.0,  # of 2, 14 and 22
            "kernel": 0.5,
            "collected": 4.0,
        }
        assert found["threads"]["asyncio"] == {
            loops: {"cpu": 1.0, "real": 2.0} for loops in ("1", "2")
        }
        tables = scale.text(found)
        assert "of it in the kernel" in tables
        assert "instructions" not in tables

    def test_growth_is_from_1000_to_the_most(self):
        from benchmarks.drivers import scale

        cells = {
            "10": {"value": 1e-6, "instructions": 10},
            "1000": {"value": 2e-6, "instructions": 20},
            "1000000": {"value": 3e-6},
        }
        assert scale.growth(cells, "value") == pytest.approx(1.5)
        assert scale.growth(cells, "instructions") == 1
        assert scale.growth({"1000": {"kernel": 0.0}}, "kernel") is None
        result = {"titles": {"k": "kind"}, "values": {"k": {"ctask": cells}}}
        table = scale.table(result, "value", "ns", 1e9, ",.0f").splitlines()
        assert [cell.strip() for cell in table[-1].split("|")[1:-1]] == [
            "kind",
            "ctask",
            "1,000",
            "2,000",
            "3,000",
            "1.50",
        ]

    @pytest.mark.parametrize("count", [1, 2])
    def test_loops_in_threads_get_each_its_own(self, count, monkeypatch):
        from benchmarks.drivers import scale

        monkeypatch.setattr(scale, "ROUND_TRIPS", 400)
        answers = []
        scale.run_threads(asyncio.run, count, answers.append)
        assert answers[0]["cpu"] > 0 < answers[0]["real"]


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
class TestClient:
    """The load generator, against a server whose answers are known."""

    @pytest.fixture
    def build(self, monkeypatch, tmp_path):
        from benchmarks import native

        monkeypatch.setattr(native, "BUILT", tmp_path)
        return native

    def talk(self, build, answer, *arguments):
        """Run the client against `answer(connection)`, called for each of its connections."""

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept)
            thread.start()
            port = str(listener.getsockname()[1])
            try:
                return subprocess.run(
                    [str(build.program("client.c")), "-p", port, *arguments],
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def test_client_counts_what_was_answered_and_ends_in_order(self, build):
        received = []

        def echo(connection):
            total = 0
            while data := connection.recv(65536):  # a broken connection would raise
                total += len(data)
                connection.sendall(data)
            received.append(total)

        done = self.talk(build, echo, "-s", "3000", "-w", "0", "-d", "0.05")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert len(received) == 1
        assert received[0] % 3000 == 0
        # The last one is still on its way at the window's end.
        assert answer["requests"] <= received[0] // 3000
        assert answer["requests"] >= received[0] // 3000 - 2
        assert answer["seconds"] >= 0.05

    def test_client_in_mode_connect_makes_a_connection_for_each_request(self, build):
        received = []

        def echo(connection):
            total = 0
            while data := connection.recv(65536):
                total += len(data)
                connection.sendall(data)
            received.append(total)

        done = self.talk(build, echo, "-m", "connect", "-s", "100", "-w", "0", "-d", "0.05")
        assert done.returncode == 0, done.stderr
        assert set(received) == {100}
        assert 0 < json.loads(done.stdout)["requests"] <= len(received)

    @pytest.mark.parametrize("mode", ["echo", "connect"])
    def test_client_makes_as_many_requests_as_asked_for(self, build, mode):
        received = []

        def echo(connection):
            while data := connection.recv(65536):
                received.append(len(data))
                connection.sendall(data)

        done = self.talk(build, echo, "-m", mode, "-s", "100", "-n", "7")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["requests"] == 7
        assert sum(received) == 700

    def test_client_refuses_wrong_bytes(self, build):
        def spoil(connection):
            data = connection.recv(65536)
            connection.sendall(b"\0" + data[1:])
            connection.recv(1)

        done = self.talk(build, spoil, "-s", "100")
        assert done.returncode == 1
        assert "other bytes" in done.stderr

    def test_client_refuses_a_connection_closed_by_the_server(self, build):
        def leave(connection):
            connection.recv(65536)

        done = self.talk(build, leave, "-s", "100")
        assert done.returncode == 1
        assert "the server closed a connection" in done.stderr


class TestLatency:
    """How long a loop keeps others waiting."""

    def test_figures_are_the_delays_that_so_many_did_not_exceed(self):
        from benchmarks.drivers.latency import summary

        figures = summary([[i / 1000 for i in range(1000, 0, -1)]])
        assert (figures["p50"], figures["p99"], figures["worst"]) == (0.501, 0.991, 1.0)
        assert figures["value"] == figures["p99"] and figures["samples"] == 1000
        shares, delays = zip(*figures["curve"], strict=True)
        assert shares[0] == 0 and shares[-1] <= 0.999
        assert list(delays) == sorted(delays)

    def test_one_delay_has_all_figures(self):
        from benchmarks.drivers.latency import summary

        figures = summary([[0.25]])
        assert {figures[key] for key in ("p50", "p99", "p999", "worst")} == {0.25}

    def test_a_disturbed_round_touches_the_worst_only(self):
        from benchmarks.drivers.latency import summary

        calm = [0.001] * 1000
        figures = summary([calm, [0.5] * 1000, calm])
        assert {figures[key] for key in ("p50", "p99", "p999")} == {0.001}
        assert figures["worst"] == 0.5
        assert [of["p99"] for of in figures["rounds"]] == [0.001, 0.5, 0.001]

    def test_rounds_with_too_few_samples_for_a_figure_are_taken_together(self):
        from benchmarks.drivers.latency import summary

        figures = summary([[0.001] * 50, [0.001] * 49 + [0.2], [0.001] * 50])
        assert (figures["p50"], figures["p99"], figures["samples"]) == (0.001, 0.001, 150)
        figures = summary([[0.001] * 50, [0.001] * 45 + [0.2] * 5, [0.001] * 50])
        assert (figures["p50"], figures["p99"]) == (0.001, 0.2)
        delays = [delay for _, delay in figures["curve"]]
        assert delays == sorted(delays)

    def test_what_was_never_told_of_counts_as_endless(self):
        from benchmarks.drivers.latency import LOST, cell_text, summary

        figures = summary([[0.002] * 99 + [LOST]])
        assert (figures["p50"], figures["p99"], figures["worst"]) == (0.002, None, None)
        assert cell_text({"asyncio": figures}, "asyncio") == "2.00 / never / - / never"
        assert json.dumps(figures, allow_nan=False)

    def test_the_clients_counts_become_delays(self):
        from benchmarks.drivers.latency import from_counts

        delays = from_counts([(10.0, 2), (2000.0, 1)], 2100.0)
        assert delays == pytest.approx([10e-6, 10e-6, 2.1e-3])

    def test_tables_leave_out_what_there_is_too_little_for(self):
        from benchmarks.drivers import latency

        few = latency.summary([[0.002] * 99])
        many = latency.summary([[0.0205] * 5000])
        result = {
            "contenders": {"asyncio": {}, "ctask": {}},
            "titles": {"timer/idle": "T: nothing", "echo/idle": "E: nothing"},
            "values": {"timer/idle": {"ctask": few}, "echo/idle": {"asyncio": many}},
            "failed": {"echo/idle": {"ctask": "because"}},
        }
        rows = [line.split("|")[1:-1] for line in latency.text(result).splitlines() if "|" in line]
        cells = [[cell.strip() for cell in row] for row in rows if "nothing" in row[0]]
        assert cells == [
            ["nothing", "20.5 / 20.5 / 20.5 / 20.5", "failed"],
            ["nothing", "-", "2.00 / - / - / 2.00"],
        ]
        assert latency.text(result).endswith("ctask: because (echo/idle)")

    def test_contenders_take_turns_and_each_is_the_first_once(self, monkeypatch):
        from benchmarks.drivers import latency

        order = []

        def run_once(name, load, kinds, places, quick):
            order.append((load, name))
            return latency.Run({kind: [0.001] * 10 for kind in kinds}, {}, {"version": "1"})

        monkeypatch.setattr(latency, "run_once", run_once)
        latency.measure(["a", "b"], ["idle", "upload"], ["timer"], True)
        first = [("idle", "a"), ("idle", "b"), ("upload", "a"), ("upload", "b")]
        second = [("idle", "b"), ("idle", "a"), ("upload", "b"), ("upload", "a")]
        assert order == first + second

    def test_a_failed_round_is_left_out_and_told_of(self, monkeypatch):
        from benchmarks.drivers import latency

        asked = []

        def run_once(name, load, kinds, places, quick):
            asked.append(list(kinds))
            run = latency.Run({"timer": [len(asked) / 1000] * 10}, {}, {"version": "1"})
            if "signal" in kinds:
                run.failed["signal"] = "no answer"
            if len(asked) == 1:
                run.failed["timer"] = "a storm"
                del run.delays["timer"]
            return run

        monkeypatch.setattr(latency, "run_once", run_once)
        found = latency.measure(["a"], ["idle"], ["timer", "signal"], False)
        assert asked == 2 * [["timer", "signal"]] + 3 * [["timer"]]
        assert found["values"]["timer/idle"]["a"]["samples"] == 40
        assert found["values"]["signal/idle"] == {}
        assert found["failed"] == {
            "timer/idle": {"a": "a storm; 4 of 5 rounds count"},
            "signal/idle": {"a": "no answer; 0 of 5 rounds count"},
        }

    def test_the_end_of_a_process_takes_one_measurement_only(self, monkeypatch):
        from benchmarks.drivers import latency

        processes = []

        def run_on(name, request, kinds, quick, run):
            processes.append((kinds, request["measurements"]))
            if "signal" in kinds:
                run.failed["signal"] = "nothing within 8 s"
                return kinds[kinds.index("signal") + 1 :]
            run.delays |= {kind: [0.001] for kind in kinds}
            return []

        monkeypatch.setattr(latency, "run_on", run_on)
        run = latency.run_once("a", "idle", ["echo", "signal", "timer", "child"], {}, True)
        assert processes == [
            (["signal", "timer", "child", "echo"], ["signal", "timer", "child"]),
            (["timer", "child", "echo"], ["timer", "child"]),
        ]
        assert set(run.delays) == {"timer", "child", "echo"} and set(run.failed) == {"signal"}

    def test_a_server_that_says_nothing_is_ended(self, tmp_path):
        from benchmarks.drivers import latency, network

        errors = tmp_path / "errors"
        errors.touch()
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            with pytest.raises(network.Unable, match=r"nothing within 0\.1 s"):
                latency.said(server, errors, 0.1)
        assert server.returncode < 0

    def test_a_load_that_ends_is_no_load(self):
        from benchmarks.subjects import loads

        async def end():
            return 7

        async def main():
            ended = asyncio.ensure_future(end())
            loads.check([ended])
            await ended
            with pytest.raises(RuntimeError, match="the load ended: 7"):
                loads.check([ended])

        asyncio.run(main())

    def test_names_tell_loads_from_kinds(self):
        from benchmarks.drivers import latency
        from benchmarks.subjects.loads import MEASUREMENTS

        assert not set(latency.LOADS) & set(latency.KINDS)
        assert {"echo", *MEASUREMENTS} == set(latency.KINDS)

    def test_everything_is_measured_under_each_load(self, monkeypatch):
        from benchmarks import native
        from benchmarks.drivers import latency

        monkeypatch.setattr(latency, "QUICK_ROUNDS", 1)

        try:
            native.program("moments.c")
            native.program("client.c")
        except native.NotBuilt as error:
            pytest.skip(str(error))
        loads = ["upload"]
        found = latency.measure(["asyncio"], loads, list(latency.KINDS), True)
        assert not found["failed"] and not found["absent"]
        assert set(found["values"]) == {f"{k}/{n}" for k in latency.KINDS for n in loads}
        for row, cells in found["values"].items():
            assert cells["asyncio"]["samples"] > 0, row
            assert 0 <= cells["asyncio"]["p50"] <= cells["asyncio"]["worst"] < 60
        assert found["contenders"]["asyncio"]["loop"].startswith("asyncio.")


def test_a_program_that_says_nothing_is_no_reason_to_wait(monkeypatch):
    from benchmarks.drivers import network, real

    def silent(arguments, **options):
        code = "import time; print('{}', flush=True); time.sleep(600)"
        return subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True, **options)

    monkeypatch.setattr(real.contenders, "start", silent)
    core = network.cores()[0]
    program = real.PROGRAMS["redis"]
    with real.process("asyncio", program, "", True, core) as (process, answer):
        monkeypatch.setattr(real, "LIMIT", 30)
        assert answer() == {}
        monkeypatch.setattr(real, "LIMIT", 0.5)
        with pytest.raises(network.Unable, match=r"nothing within 0\.5 s"):
            answer()
    assert process.returncode == -9


# ---- the README's chart ----


def test_the_readme_shows_what_the_page_says():
    from benchmarks.drawing import readme

    assert readme.CHART.read_text() == readme.draw(readme.PAGE.read_text())


def test_the_chart_is_of_real_programs_once_the_page_has_them():
    from benchmarks.drawing.readme import panels

    page = """\
| Program's CPU time per request | asyncio, us |       uvloop | ctask |
| ------------------------------ | ----------: | -----------: | ----: |
| redis-py                       |      100.00 | 70.00 (0.70) |     - |
| geometric mean                 |       1.000 |        0.700 |     - |

| Requests per second of real time | asyncio | uvloop | ctask |
| -------------------------------- | ------: | -----: | ----: |
| redis-py                         |   1,000 |  1,300 |     - |
"""
    assert [panel.rows for panel in panels(page)] == [
        {"redis-py": {"uvloop": 0.7}},
        {"redis-py": {"uvloop": 1.3}},
    ]
