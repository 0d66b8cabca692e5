"""ctask.observe.prometheus: what a scrape of a program on ctask's loops says."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ctask
from ctask.observe.stats import Stats

pytestmark = pytest.mark.ctask_only

prometheus_client = pytest.importorskip("prometheus_client", reason="ctask[prometheus]")

from prometheus_client.openmetrics import parser as openmetrics_parser  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from ctask.observe.prometheus import LoopCollector, metric_families  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"

STATS = Stats(
    iterations=1,
    callbacks=2,
    polls=3,
    events=4,
    wakeups=5,
    tasks_created=6,
    bytes_received=7,
    bytes_sent=8,
    busy=9.5,
    idle=10.5,
    tasks_pending=11,
    ready=12,
    timers=13,
    connections=14,
)


@pytest.fixture
def registry():
    registry = prometheus_client.CollectorRegistry()
    registry.register(LoopCollector())
    return registry


def scraped(registry):
    """What Prometheus's own parser finds in the text: by name, the value of each label `loop`."""
    text = prometheus_client.generate_latest(registry).decode()
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert [*sample.labels] == ["loop"]
            values.setdefault(sample.name, {})[sample.labels["loop"]] = sample.value
    return values


def test_each_number_has_its_name():
    class Given:
        def collect(self):
            return metric_families([(0, STATS), (3, STATS)])

    registry = prometheus_client.CollectorRegistry()
    registry.register(Given())
    expected = {
        "ctask_loop_iterations_total": 1,
        "ctask_loop_callbacks_total": 2,
        "ctask_loop_polls_total": 3,
        "ctask_loop_events_total": 4,
        "ctask_loop_wakeups_total": 5,
        "ctask_loop_tasks_created_total": 6,
        "ctask_loop_received_bytes_total": 7,
        "ctask_loop_sent_bytes_total": 8,
        "ctask_loop_busy_seconds_total": 9.5,
        "ctask_loop_idle_seconds_total": 10.5,
        "ctask_loop_tasks_pending": 11,
        "ctask_loop_ready": 12,
        "ctask_loop_timers": 13,
        "ctask_loop_connections": 14,
    }
    assert scraped(registry) == {name: {"0": value, "3": value} for name, value in expected.items()}


def test_openmetrics_takes_it_too(registry):
    loop = ctask.new_event_loop()
    try:
        text = prometheus_client.openmetrics.exposition.generate_latest(registry).decode()
        families = [*openmetrics_parser.text_string_to_metric_families(text)]
        assert len(families) == 14
        assert {family.type for family in families} == {"counter", "gauge"}
        assert all(family.documentation for family in families)
    finally:
        loop.close()


def test_a_running_loop_is_scraped_from_another_thread(registry):
    async def main():
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(asyncio.sleep(100)) for _ in range(5)]
        await asyncio.sleep(0)
        values = await loop.run_in_executor(None, scraped, registry)
        number = next(str(n) for n, each in ctask._ctask._open_loops() if each is loop)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return {name: of_loop[number] for name, of_loop in values.items()}

    with ctask.Runner() as runner:
        values = runner.run(main())
        runner.get_loop().run_until_complete(runner.get_loop().shutdown_default_executor())
    assert values["ctask_loop_tasks_pending"] == 6
    assert values["ctask_loop_timers"] == 5
    assert values["ctask_loop_tasks_created_total"] == 6
    assert values["ctask_loop_busy_seconds_total"] > 0


def test_several_loops_and_those_that_are_closed(registry):
    def numbers():
        return {*scraped(registry).get("ctask_loop_iterations_total", {})}

    before = numbers()
    loops = [ctask.new_event_loop() for _ in range(3)]
    try:
        assert len(numbers()) == len(before) + 3
        loops.pop().close()
        assert len(numbers()) == len(before) + 2
    finally:
        for loop in loops:
            loop.close()
    assert numbers() == before


def test_registering_asks_no_loop_and_notices_the_same_names_twice(registry, monkeypatch):
    asked = []
    monkeypatch.setattr("ctask.observe.prometheus.stats_of_open_loops", lambda: asked.append(1))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(LoopCollector())
    assert asked == []


def test_scrapes_while_loops_come_and_go(registry):
    failures, scrapes, ended = [], [], threading.Event()

    def scrape():
        try:
            while not ended.is_set():
                scrapes.append(scraped(registry))
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=scrape)
    thread.start()
    while not failures and len(scrapes) < 20:
        ctask.run(asyncio.sleep(0))
    ended.set()
    thread.join()
    assert failures == []


def test_without_prometheus_client_one_line_says_what_to_install():
    code = "import sys; sys.modules['prometheus_client'] = None; import ctask.observe.prometheus"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last == (
        "ImportError: ctask.observe.prometheus needs prometheus_client: "
        "pip install 'ctask[prometheus]'"
    )


class TestDashboard:
    """examples/grafana_dashboard.json."""

    @pytest.fixture
    def dashboard(self):
        return json.loads((EXAMPLES / "grafana_dashboard.json").read_text())

    def names(self):
        for family in metric_families(()):
            yield family.name + ("_total" if family.type == "counter" else "")

    def test_every_expression_is_about_metrics_that_there_are_and_none_is_left_out(self, dashboard):
        used = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                found = re.findall(r"\bctask_\w+", target["expr"])
                assert found, target
                used.update(found)
        assert used == {*self.names()}

    def test_counters_are_shown_as_rates_and_gauges_as_they_are(self, dashboard):
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                for name, rest in re.findall(r"(\bctask_\w+)(\{[^}]*\}\S*)", target["expr"]):
                    counted = f"rate({name}{rest}" in target["expr"]
                    assert counted == name.endswith("_total"), target["expr"]
                    assert rest.startswith('{job="$job", instance=~"$instance"}') or counted

    def test_what_grafana_needs_of_a_dashboard(self, dashboard):
        assert dashboard["title"] and dashboard["uid"] and dashboard["schemaVersion"] >= 39
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        assert variables == {"datasource", "job", "instance"}
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = set()
        for panel in panels:
            assert panel["type"] in {"timeseries", "stat"} and panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            for text in (target["expr"] for target in panel["targets"]):
                assert text.count("(") == text.count(")") and text.count("{") == text.count("}")
                assert {*re.findall(r"\$(\w+)", text)} <= variables | {"__rate_interval"}
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & places and place["x"] + place["w"] <= 24
            places |= cells
