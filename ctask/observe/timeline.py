"""From the records of a trace to what can be looked at: Trace Events, or a page of HTML.

Nothing here looks at the traced program: a trace of another process is made up by who asked for it.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

# trace_record, its kinds and its ends, of src/loop/trace.c.
_RECORD = struct.Struct("=QQQQIIIHBB")
(STEP, CALLBACK, EAGER, TASK, POLL, TIMER, THREAD, COLLECTION, OVERTAKE, OUTSIDE) = range(1, 11)
ENDS = ("waits", "yields", "returned", "raised", "cancelled", "runs on", "not seen to its end")
WAITS, YIELDS, RETURNED, RAISED, CANCELLED, RUNS_ON, UNSEEN = range(7)
_OWNS = 0x80
_NUMBERED = 0x40
_NOBODY = 0xFFFF
_MASK = 0xFFFFFFFF

BLOCKING = 0.1  # seconds, as asyncio's slow_callback_duration


@dataclass
class Task:
    """A task that the trace has seen."""

    serial: int
    loop: int
    name: str = ""
    coroutine: str = ""
    born: int | None = None
    """Nanoseconds since the trace began; None if it is older."""
    parent: int = 0
    """The task whose step made it, 0 if none did."""
    end: int | None = None
    """One of ENDS, once it is done."""
    spans: list[int] = field(default_factory=list)


@dataclass
class Span:
    """A step, a callback, a poll, a collection; a push by a timer or another thread.

    Times are nanoseconds since the trace began.
    """

    kind: int
    loop: int
    start: int
    duration: int
    task: int = 0
    """The serial of the task whose step it is."""
    label: int = 0
    end: int = WAITS
    extra: int = 0
    """A step's: the serial of the task that it waits for.  A poll's: descriptors.  A timer's:
    nanoseconds that it was late.  A collection's: the generation."""
    waker: int = -1
    """The index of the span that pushed it, -1 if that is not known."""


class Timeline:
    """A trace, with who woke whom."""

    def __init__(self, records: bytes, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.labels: list[list[list[Any]]] = facts["labels"]
        self.waits = [_what_is_awaited(links) for links in self.labels]
        self.spans: list[Span] = []
        self.tasks: dict[int, Task] = {}
        (ticks, clock), (last_ticks, last_clock) = facts["began"], facts["ended"]
        self._ticks = ticks
        self._rate = (last_clock - clock) / max(1, last_ticks - ticks)
        self.duration = last_clock - clock
        # Of each loop: up to where it is known who pushed, and who pushed what has not run yet.
        self._told: dict[int, int] = {}
        self._pushed: dict[int, dict[int, int]] = {}
        for record in _RECORD.iter_unpack(records):
            self._take(*record)
        for serial, name, coroutine in facts["living"]:
            if serial in self.tasks:
                self.tasks[serial].name, self.tasks[serial].coroutine = name, coroutine
        for task in self.tasks.values():
            task.name = task.name or f"task {task.serial}"
            task.spans.sort(key=lambda index: self.spans[index].start)

    def _time(self, ticks: int) -> int:
        return max(0, int((ticks - self._ticks) * self._rate))

    def _take(
        self,
        began: int,
        ended: int,
        serial: int,
        extra: int,
        position: int,
        tail: int,
        label: int,
        loop: int,
        kind: int,
        end: int,
    ) -> None:
        start = self._time(began)
        if kind == TASK:
            task = self._task(serial, loop)
            task.born, task.parent = start, extra
            return
        pushed = self._pushed.setdefault(loop, {})
        if kind == OVERTAKE:
            self._overtake(pushed, tail, extra, serial)
            return
        name = ""
        if end & _OWNS:
            name = self.facts["names"][extra]
        elif end & _NUMBERED:
            name = f"Task-{extra}"
        end &= ~(_OWNS | _NUMBERED)
        span = Span(kind, loop, start, max(0, self._time(ended) - start), 0, label, end, extra)
        if kind in (STEP, EAGER) and serial:
            span.task = serial
            task = self._task(serial, loop)
            task.spans.append(len(self.spans))
            if RETURNED <= end <= CANCELLED:
                span.extra = 0
                task.end, task.name = end, name
                task.coroutine = self.labels[label][0][1] if label else ""
        if kind in (STEP, CALLBACK):
            span.waker = pushed.pop(position, -1)
        if kind in (TIMER, THREAD):
            pushed[position] = len(self.spans)
            if kind == TIMER and self._told.get(loop) == position:
                self._told[loop] = tail
        elif kind not in (EAGER, COLLECTION):
            self._push(pushed, loop, tail, -1 if kind == OUTSIDE else len(self.spans))
        if kind != OUTSIDE:
            self.spans.append(span)

    def _task(self, serial: int, loop: int) -> Task:
        if serial not in self.tasks:
            self.tasks[serial] = Task(serial, loop)
        return self.tasks[serial]

    def _push(self, pushed: dict[int, int], loop: int, tail: int, index: int) -> None:
        """A span has pushed what came up to `tail`, but for what others are known to have."""
        position = self._told.get(loop, tail)
        while position != tail:
            pushed.setdefault(position, index)
            position = position + 1 & _MASK
        self._told[loop] = tail

    def _overtake(self, pushed: dict[int, int], tail: int, n: int, m: int) -> None:
        positions = [tail - n - m + i & _MASK for i in range(n + m)]
        before = [pushed.pop(position, None) for position in positions]
        for position, index in zip(positions, before[m:] + before[:m], strict=True):
            if index is not None:
                pushed[position] = index

    # ---- in words ----

    def name(self, index: int) -> str:
        """What a span is called."""
        span = self.spans[index]
        if span.task:
            return self.tasks[span.task].name
        if span.kind == POLL:
            return "poll"
        if span.kind == COLLECTION:
            return f"garbage collection, generation {span.extra}"
        if span.kind == TIMER:
            return "a timer"
        if span.kind == THREAD:
            return "another thread"
        links = self.labels[span.label]
        return links[0][1] if links else "callback"

    def awaits(self, span: Span) -> str:
        """What a task waits for after a step, in words."""
        if span.end == YIELDS:
            return "its turn"
        if span.extra in self.tasks:
            return self.tasks[span.extra].name
        return self.waits[span.label]

    def place(self, span: Span) -> list[str]:
        """The stack of a step's end, or where a callback is defined; the innermost last."""
        return [
            f"{name} ({file}:{line})" if file else name
            for kind, name, file, line in self.labels[span.label]
            if kind != 2
        ]


def _what_is_awaited(links: list[list[Any]]) -> str:
    """The function of asyncio's that a chain of coroutines ends in, or the future at its end."""
    what = ""
    for kind, name, file, _ in reversed(links):
        if kind == 0 and os.path.basename(os.path.dirname(file)) != "asyncio":
            break
        what = what if kind == 2 and what else name
    return what


# ---- the Trace Event format ----

_LOOPS, _TASKS = 1, 2  # in place of processes


def events(timeline: Timeline) -> Iterator[str]:
    """The file, in parts: a process for the loops, another one with a thread for each task."""
    facts = timeline.facts
    head = {key: facts[key] for key in ("pid", "version", "python", "lost")}
    yield '{"displayTimeUnit": "ms", "otherData": ' + json.dumps(head) + ', "traceEvents": [\n'
    yield ",\n".join(
        json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args})
        for pid, tid, what, args in _names(timeline)
    )
    for index, span in enumerate(timeline.spans):
        for event in _span_events(timeline, index, span):
            yield ",\n" + json.dumps(event)
    for task in timeline.tasks.values():
        for event in _wait_events(timeline, task):
            yield ",\n" + json.dumps(event)
    yield "\n]}\n"


def _names(timeline: Timeline) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    pid = timeline.facts["pid"]
    yield _LOOPS, 0, "process_name", {"name": f"loops of process {pid}"}
    yield _TASKS, 0, "process_name", {"name": f"tasks of process {pid}"}
    yield _LOOPS, 0, "process_sort_index", {"sort_index": 1}
    yield _TASKS, 0, "process_sort_index", {"sort_index": 2}
    for loop, thread in enumerate(timeline.facts["threads"]):
        yield _LOOPS, loop, "thread_name", {"name": f"loop {loop} {thread}".rstrip()}
    if any(span.loop == _NOBODY for span in timeline.spans):
        yield _LOOPS, _NOBODY, "thread_name", {"name": "other threads"}
    for task in timeline.tasks.values():
        yield _TASKS, task.serial, "thread_name", {"name": task.name}
        yield _TASKS, task.serial, "thread_sort_index", {"sort_index": task.serial}


_CATEGORIES = {
    STEP: "step",
    EAGER: "step",
    CALLBACK: "callback",
    POLL: "poll",
    COLLECTION: "gc",
    TIMER: "push",
    THREAD: "push",
}


def _span_events(timeline: Timeline, index: int, span: Span) -> Iterator[dict[str, Any]]:
    args: dict[str, Any] = {}
    event = {
        "ph": "X",
        "name": timeline.name(index),
        "cat": _CATEGORIES[span.kind],
        "ts": span.start / 1e3,
        "dur": max(1, span.duration) / 1e3,  # an arrow begins and ends in something
        "pid": _LOOPS,
        "tid": span.loop,
        "args": args,
    }
    if span.kind == POLL:
        args["descriptors"] = span.extra
    elif span.kind in (STEP, EAGER, CALLBACK):
        if span.task:
            args |= {"task": span.task, "ends": ENDS[span.end]}
        args["stack"] = timeline.place(span)
        if span.waker >= 0:
            args["woken by"] = timeline.name(span.waker)
        if span.duration >= BLOCKING * 1e9:
            args["blocking"] = True
            event["cname"] = "terrible"
            event["cat"] = f"{event['cat']},blocking"
    if span.task:
        yield {**event, "pid": _TASKS, "tid": span.task}
        event["args"] = {"task": span.task}
    yield event
    if span.waker >= 0:
        yield from _arrow(timeline, index, span)


def _arrow(timeline: Timeline, index: int, span: Span) -> Iterator[dict[str, Any]]:
    waker = timeline.spans[span.waker]
    common = {"name": "wakes", "cat": "wake", "id": index}
    yield {
        **common,
        "ph": "s",
        "ts": (waker.start + max(0, waker.duration - 1)) / 1e3,
        **_track(waker),
    }
    yield {**common, "ph": "f", "bp": "e", "ts": span.start / 1e3, **_track(span)}


def _track(span: Span) -> dict[str, int]:
    return {"pid": _TASKS, "tid": span.task} if span.task else {"pid": _LOOPS, "tid": span.loop}


def _wait_events(timeline: Timeline, task: Task) -> Iterator[dict[str, Any]]:
    """What it waited for between its steps."""
    for index, after in zip(task.spans, [*task.spans[1:], -1], strict=True):
        span = timeline.spans[index]
        if span.end not in (WAITS, YIELDS):
            continue
        start = span.start + span.duration
        stop = timeline.spans[after].start if after >= 0 else timeline.duration
        yield {
            "ph": "X",
            "name": f"waits for {timeline.awaits(span)}",
            "cat": "wait",
            "ts": start / 1e3,
            "dur": max(0, stop - start) / 1e3,
            "pid": _TASKS,
            "tid": task.serial,
            "args": {"stack": timeline.place(span)},
        }


# ---- a page ----


def page(timeline: Timeline) -> Iterator[str]:
    """One page of HTML, which needs nothing else."""
    template = resources.files("ctask.observe").joinpath("timeline.html").read_text("utf-8")
    before, _, after = template.partition("@DATA@")
    yield before
    # In JSON these are in strings only, and a browser that looks for an end tag finds none.
    yield json.dumps(_page_data(timeline), separators=(",", ":")).replace("<", "\\u003c")
    yield after


def _page_data(timeline: Timeline) -> dict[str, Any]:
    facts = timeline.facts
    tasks = sorted(timeline.tasks.values(), key=lambda task: task.serial)
    rows = {task.serial: row for row, task in enumerate(tasks)}
    spans: list[int] = []
    for span in timeline.spans:
        row = rows[span.task] if span.task else -1
        extra = rows.get(span.extra, -1) if span.kind in (STEP, EAGER) else span.extra
        spans += (
            span.kind,
            span.loop,
            row,
            span.start,
            span.duration,
            span.label,
            span.end,
            extra,
            span.waker,
        )
    return {
        **{key: facts[key] for key in ("pid", "version", "python", "when", "lost", "threads")},
        "duration": timeline.duration,
        "blocking": BLOCKING * 1e9,
        "labels": timeline.labels,
        "waits": timeline.waits,
        "tasks": [
            [
                task.serial,
                task.name,
                task.coroutine,
                task.loop,
                -1 if task.born is None else task.born,
                rows.get(task.parent, -1),
                -1 if task.end is None else task.end,
            ]
            for task in tasks
        ],
        "spans": spans,
    }
