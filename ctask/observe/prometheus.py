"""What loops count, for Prometheus, by prometheus_client (`pip install 'ctask[prometheus]'`).

Register a collector once, wherever the program has its registry:

    prometheus_client.REGISTRY.register(ctask.observe.prometheus.LoopCollector())

Nothing is done between two scrapes: each asks ctask.stats() of each loop that is open.
"""

from collections.abc import Iterable, Iterator

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise ImportError(
        "ctask.observe.prometheus needs prometheus_client: pip install 'ctask[prometheus]'"
    ) from None

from ctask.observe.loops import stats_of_open_loops
from ctask.observe.stats import Stats

# Fields of Stats.  prometheus_client appends _total.
_COUNTERS = {
    "busy": ("ctask_loop_busy_seconds", "Time in which the loop ran, and did not wait for events"),
    "idle": ("ctask_loop_idle_seconds", "Time in which the loop waited with nothing to do"),
    "iterations": ("ctask_loop_iterations", "Turns of the loop"),
    "callbacks": ("ctask_loop_callbacks", "Callbacks and steps of tasks that were run"),
    "polls": ("ctask_loop_polls", "Times that the kernel was asked for events"),
    "events": ("ctask_loop_events", "Descriptors that the kernel said were ready"),
    "wakeups": ("ctask_loop_wakeups", "Times that a thread or a signal ended the loop's wait"),
    "tasks_created": ("ctask_loop_tasks_created", "Tasks made for the loop"),
    "bytes_received": ("ctask_loop_received_bytes", "Bytes that transports and sock_recv() got"),
    "bytes_sent": ("ctask_loop_sent_bytes", "Bytes that the kernel took of transports and sockets"),
}
_GAUGES = {
    "tasks_pending": ("ctask_loop_tasks_pending", "Tasks that are not done"),
    "ready": ("ctask_loop_ready", "Callbacks and steps that wait for their turn"),
    "timers": ("ctask_loop_timers", "Timers that wait for their time"),
    "connections": ("ctask_loop_connections", "Transports of sockets that are open"),
}

Family = CounterMetricFamily | GaugeMetricFamily


def _filled(family: Family, field: str, loops: list[tuple[int, Stats]]) -> Family:
    for number, stats in loops:
        family.add_metric([str(number)], getattr(stats, field))
    return family


def metric_families(loops: Iterable[tuple[int, Stats]]) -> Iterator[Family]:
    """Yield the metrics of loops, given by number, which becomes the label `loop`."""
    found = list(loops)
    for field, (name, text) in _COUNTERS.items():
        yield _filled(CounterMetricFamily(name, text, labels=["loop"]), field, found)
    for field, (name, text) in _GAUGES.items():
        yield _filled(GaugeMetricFamily(name, text, labels=["loop"]), field, found)


class LoopCollector(Collector):
    """The metrics of all ctask loops that are open in this process, each with its label `loop`.

    That is the loop's number: 0 where there is one, and of several those that are open have
    different ones.  A loop that follows on one that was closed has its number, and begins at 0,
    as after a restart.
    """

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without values: what the registry looks at for names."""
        return metric_families(())

    def collect(self) -> Iterator[Family]:
        """Yield the metrics as they are now; called by the registry, in the scrape's thread."""
        return metric_families((number, stats) for number, _, stats in stats_of_open_loops())
