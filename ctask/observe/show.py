"""What a process answered, for a person to read: a table, a tree, stacks, a view that moves on."""

import contextlib
import linecache
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# What a terminal can show without harm of what came from a program.
_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "?")
MAX_NAMES = 5
MAX_TREE_DEPTH = 50
NARROWEST = 14  # characters of a column that is cut

Task = dict[str, Any]


# ---- words ----


def clean(value: object) -> str:
    """A text of the program's without what a terminal takes for a command."""
    return str(value).translate(_UNPRINTABLE)


def seconds(value: float | None) -> str:
    """A time as a person says it; nothing for None."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


class Answer:
    """An answer, with its tasks by their numbers."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.loops: list[dict[str, Any]] = answer["loops"]
        self.tasks: dict[int, Task] = {
            task["id"]: task for loop in self.loops for task in loop["tasks"]
        }
        # Of those that run now: a loop has it if it is blocked.
        self.stacks: dict[int, list[dict[str, Any]]] = {
            task["id"]: loop["stack"]
            for loop in self.loops
            for task in loop["tasks"]
            if task["state"] == "running"
        }
        self.folder = ""
        with contextlib.suppress(OSError):
            self.folder = os.readlink(f"/proc/{answer['pid']}/cwd") + os.sep

    def name(self, number: int) -> str:
        task = self.tasks.get(number)
        return "a task that is done" if task is None else clean(task["name"])

    def names(self, numbers: list[int]) -> str:
        more = len(numbers) - MAX_NAMES
        said = ", ".join(self.name(number) for number in numbers[:MAX_NAMES])
        return said + (f" and {more} more" if more > 0 else "")

    def place(self, frame: dict[str, Any]) -> str:
        """A file as short as it is still found, and the line."""
        file = clean(frame["file"])
        for start in (self.folder, "site-packages/", "/lib/python"):
            before, found, after = file.partition(start) if start else ("", "", "")
            if found and (start != self.folder or not before):
                file = after.partition("/")[2] if start == "/lib/python" else after
                break
        return f"{file}:{frame['line']}"

    def own_place(self, task: Task) -> str:
        """Where the program's own code waits or runs, and not asyncio's below it."""
        all_frames = self.stacks.get(task["id"]) or task["frames"]
        frames = [frame for frame in all_frames if not _is_below(frame["file"])]
        return self.place((frames or all_frames)[-1]) if all_frames else ""

    def waits_for(self, task: Task) -> str:
        """What a task waits for, in words."""
        wait, awaits = task["waits_for"], task["awaits"]
        if wait is None:
            return {"running": "(runs)", "ready": "(its turn)", "new": "(its first turn)"}.get(
                task["state"], ""
            )
        said = clean(wait["what"])
        if wait["due"] is not None:
            said += f", {seconds(wait['due'])} left"
        if wait["kind"] == "task":
            said = self.names(awaits)
        elif wait["kind"] in ("lock", "semaphore") and awaits:
            said += f", held by {self.names(awaits)}"
        elif wait["kind"] == "lock":
            said += ", which nobody holds"
        elif awaits:
            said += f": {self.names(awaits)}"
        if task["timeout"] is not None:
            said += f"; timeout in {seconds(task['timeout'])}"
        return said

    def head(self) -> Iterator[str]:
        """What there is, and how the loops are."""
        python, version = clean(self.answer["python"]), clean(self.answer["version"])
        yield f"process {self.answer['pid']}, ctask {version} on Python {python}"
        if not self.loops:
            yield "no loop runs, and there is no task"
        for loop in self.loops:
            n = len(loop["tasks"]) + loop["left_out"]
            said = f"{clean(loop['thread'] or 'a loop that does not run')}: {plural(n, 'task')}, "
            if loop["blocked"] is not None:
                said += f"BLOCKED for {seconds(loop['blocked'])} or longer, by"
            else:
                said += {"stopped": "stopped"}.get(loop["state"], clean(loop["state"]))
            if loop["left_out"]:
                said += f" ({loop['left_out']} of the tasks are not shown)"
            yield said
            if loop["blocked"] is not None:
                for frame in loop["stack"][-MAX_NAMES:]:
                    yield f"    {clean(frame['name'])}  {self.place(frame)}"

    def deadlocks(self) -> Iterator[str]:
        for one in self.answer["deadlocks"]:
            first, *rest = str(one).split("\n")
            yield f"DEADLOCK: {clean(first)}"
            yield from map(clean, rest)


def _is_below(file: str) -> bool:
    folders = os.path.dirname(file).split(os.sep)
    return "asyncio" in folders[-1:] or folders[-1:] == ["ctask"]


# ---- ps ----


def ps(answer: dict[str, Any], width: int = 0) -> Iterator[str]:
    """A row for each task."""
    view = Answer(answer)
    yield from view.head()
    yield from view.deadlocks()
    rows = [("NAME", "STATE", "SINCE", "COROUTINE", "AT", "WAITS FOR")]
    for task in view.tasks.values():
        rows.append(
            (
                clean(task["name"]),
                task["state"],
                seconds(task["since"]),
                clean(task["coroutine"]),
                view.own_place(task),
                view.waits_for(task),
            )
        )
    if len(rows) > 1:
        yield ""
        yield from table(rows, width, right=(2,), ends=(3, 4))


def table(
    rows: Sequence[tuple[str, ...]],
    width: int = 0,
    right: tuple[int, ...] = (),
    ends: tuple[int, ...] = (),
) -> Iterator[str]:
    """Columns as wide as what is in them; cut to a width if there is one.

    The widest columns are cut first, for something of the last one to be seen, and the columns of
    `ends` in front: of a place the line is what matters.
    """
    widths = [min(40, max(map(len, column))) for column in zip(*rows, strict=True)]
    while width and sum(widths) + 2 * len(widths) - 2 > width and max(widths[:-1]) > NARROWEST:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for row in rows:
        cells = []
        for index, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            if index in ends and len(cell) > wide:
                cell = "..." + cell[len(cell) - wide + 3 :]
            cell = _cut(cell, wide)
            cells.append(cell.rjust(wide) if index in right else cell.ljust(wide))
        cells[-1] = row[-1]
        line = "  ".join(cells).rstrip()
        yield _cut(line, width) if width else line


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: max(0, width - 3)] + "..."


# ---- pstree ----


def pstree(answer: dict[str, Any]) -> Iterator[str]:
    """Who waits for whom, with the coroutines of each task down to what it waits for."""
    view = Answer(answer)
    yield from view.head()
    yield from view.deadlocks()
    children: dict[int, list[int]] = {number: [] for number in view.tasks}
    for number, task in view.tasks.items():
        if task["waits_for"] and task["waits_for"]["kind"] not in ("lock", "semaphore"):
            children[number] += [other for other in task["awaits"] if other in children]
    for number, task in view.tasks.items():
        if task["group"] in children and number not in children[task["group"]]:
            children[task["group"]].append(number)
    below = {child for found in children.values() for child in found}
    shown: set[int] = set()
    for number in [*(n for n in children if n not in below), *children]:
        if number not in shown:
            yield ""
            yield from _branch(view, children, number, shown, "", "", 0)


def _branch(
    view: Answer,
    children: dict[int, list[int]],
    number: int,
    shown: set[int],
    first: str,
    rest: str,
    depth: int,
) -> Iterator[str]:
    task = view.tasks[number]
    title = f"{first}{clean(task['name'])}"
    if number in shown:
        yield f"{title} (see there)"
        return
    shown.add(number)
    since = f", {seconds(task['since'])}" if task["since"] is not None else ""
    yield f"{title}  {task['state']}{since}"
    below = children[number] if depth < MAX_TREE_DEPTH else []
    bar = rest + ("│  " if below else "   ")
    for frame in task["frames"]:
        yield f"{bar}{clean(frame['name'])}  {view.place(frame)}"
    if task["waits_for"]:
        yield f"{bar}→ {view.waits_for(task)}"
    for index, child in enumerate(below):
        last = index == len(below) - 1
        yield from _branch(
            view,
            children,
            child,
            shown,
            rest + ("└─ " if last else "├─ "),
            rest + ("   " if last else "│  "),
            depth + 1,
        )


# ---- stacks ----


def stacks(answer: dict[str, Any]) -> Iterator[str]:
    """Each task's frames as a traceback has them, and what a loop is busy with."""
    view = Answer(answer)
    yield from view.head()
    yield from view.deadlocks()
    for loop in view.loops:
        if loop["stack"]:
            yield ""
            yield f"{clean(loop['thread'])} runs this now:"
            yield from _lines(loop["stack"])
        for task in loop["tasks"]:
            since = f" for {seconds(task['since'])}" if task["since"] is not None else ""
            yield ""
            yield f"{clean(task['name'])} ({clean(task['coroutine'])}), {task['state']}{since}:"
            yield from _lines(task["frames"])
            if task["waits_for"]:
                yield f"  → {view.waits_for(task)}"
            if task.get("created"):
                yield "  created at"
                yield from _lines([task["created"]])


def _lines(frames: Iterable[dict[str, Any]]) -> Iterator[str]:
    for frame in frames:
        file = clean(frame["file"])
        yield f'  File "{file}", line {frame["line"]}, in {clean(frame["name"])}'
        line = linecache.getline(frame["file"], frame["line"]).strip()
        # Of ctask's coroutines in C all that there is is where asyncio defines the same.
        if line and not _is_below(frame["file"]):
            yield f"    {clean(line)}"


# ---- top ----


def top(
    before: dict[str, Any] | None, answer: dict[str, Any], width: int = 0, height: int = 0
) -> Iterator[str]:
    """How busy the loops are, and how many tasks wait where, for what, and how long at most.

    Cut to the width and the height of a terminal if they are given.
    """
    view = Answer(answer)
    yield from view.head()
    yield from _rates(before, answer, width)
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in view.tasks.values():
        what = clean(task["waits_for"]["what"]) if task["waits_for"] else view.waits_for(task)
        what = what.partition(", ")[0].partition(" of descriptor")[0]
        key = (clean(task["coroutine"]), task["state"], view.own_place(task), what)
        groups.setdefault(key, []).append(task)
    rows = [("TASKS", "LONGEST", "COROUTINE", "STATE", "AT", "WAITS FOR")]
    for (coroutine, state, place, what), tasks in sorted(
        groups.items(), key=lambda group: -len(group[1])
    )[: max(5, height - 9) if height else None]:
        longest = max((task["since"] or 0.0 for task in tasks), default=0.0)
        rows.append((str(len(tasks)), seconds(longest), coroutine, state, place, what))
    if len(rows) > 1:
        yield ""
        yield from table(rows, width, right=(0, 1), ends=(2, 4))


def _rates(before: dict[str, Any] | None, answer: dict[str, Any], width: int) -> Iterator[str]:
    earlier = {loop["id"]: loop for loop in before["loops"]} if before else {}
    for loop in answer["loops"]:
        now, then = loop["counters"], earlier.get(loop["id"], {}).get("counters")
        if not now or not then or before is None:
            continue
        took = max(1e-3, answer["when"] - before["when"])
        ran = now["ran"] - then["ran"]
        busy = (ran - now["waited"] + then["waited"]) / ran if ran > 0 else 0.0

        def rate(key: str, now: Any = now, then: Any = then, took: float = took) -> float:
            return float(now[key] - then[key]) / took

        yield from _wrapped(
            [
                f"busy {busy:4.0%}",
                f"{rate('callbacks'):,.0f} callbacks/s",
                f"{rate('tasks'):,.0f} new tasks/s",
                f"in {rate('bytes_in') / 1024:,.0f} kB/s",
                f"out {rate('bytes_out') / 1024:,.0f} kB/s",
                f"ready {now['ready']}",
                f"timers {now['timers']}",
                f"connections {now['transports']}",
            ],
            width,
        )


def _wrapped(parts: Iterable[str], width: int) -> Iterator[str]:
    """Lines of whole parts, one if there is no width; those after the first are indented."""
    line = ""
    for part in parts:
        longer = f"{line}   {part}" if line else part
        if line and width and len(longer) > width:
            yield line
            longer = f"     {part}"
        line = longer
    yield line
