"""Programs as data: a tree of statements, each a text with expressions in it, made out of a seed.

What a program does may be wrong in any way that asyncio has an answer to. It ends: a function calls
those behind it, and what goes on all the same is stopped by its world.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

NEW = sys.version_info[:2]


@dataclass(eq=False)
class Expr:
    """A text with a place ($) for each of `kids`; one for all, with commas, if they are `many`."""

    text: str
    kids: list[Expr] = field(default_factory=list)
    many: bool = False

    def __str__(self) -> str:
        if self.many:
            return self.text.replace("$", ", ".join(map(str, self.kids)))
        text = self.text
        for kid in self.kids:
            text = text.replace("$", str(kid), 1)
        return text


@dataclass(eq=False)
class Node:
    """A statement: its lines, each with the block below it, or None."""

    parts: list[tuple[Expr, list[Node] | None]]

    def lines(self, indent: str) -> Iterator[str]:
        for head, body in self.parts:
            yield indent + str(head)
            if body is not None:
                yield from block(body, indent + "    ")


def block(body: list[Node], indent: str) -> Iterator[str]:
    if not body:
        yield indent + "pass"
    for node in body:
        yield from node.lines(indent)


@dataclass(eq=False)
class Program:
    seed: int
    settings: dict[str, object]
    nodes: list[Node]  # the functions

    def reached(self) -> list[Node]:
        """The functions that main() reaches: each calls only such as stand before it."""
        kept: list[Node] = []
        called = "main"
        waiting = list(self.nodes)
        while found := [n for n in waiting if re.search(rf"def ({called})\(", str(n.parts[0][0]))]:
            kept += found
            waiting = [n for n in waiting if n not in found]
            text = "\n".join(block(found, ""))
            called = "|".join({*re.findall(r"\b(?:co|cb|gen)\d", text)}) or "0"
        return [n for n in self.nodes if n in kept]

    def source(self) -> str:
        head = [f"{key} = {value!r}" for key, value in sorted(self.settings.items())]
        return "\n".join([f"# {self.seed}", *head, *block(self.nodes, "")]) + "\n"


def line(text: str, *kids: Expr) -> Node:
    return Node([(Expr(text, list(kids)), None)])


COROUTINES, CALLBACKS, GENERATORS = 5, 4, 2
FUTURES, TASKS, HANDLES = 3, 5, 3
ERRORS = (
    *("ValueError", "KeyError", "Odd", "Odd", "asyncio.CancelledError", "asyncio.TimeoutError"),
    *("Base", "StopIteration", "StopAsyncIteration", "asyncio.QueueEmpty", "RuntimeError"),
)


class Maker:
    def __init__(self, seed: int) -> None:
        self.rnd = random.Random(seed)
        self.seed = seed
        self.where = 0
        self.me = 0  # the function that is made: it calls those with higher numbers
        self.sync = False
        self.budget = 0
        self.group = False
        rnd = self.rnd
        # A few programs have all there is, most are about little: then what they do meets.
        every = ["queue", "lock", "cond", "sem", "event", "barrier", "group", "combine", "timer"]
        every += ["context", "agen", "wrong", "future", "task", "loop"]
        self.themes = set(every if rnd.random() < 0.2 else rnd.sample(every, rnd.randint(1, 5)))
        if NEW < (3, 13):
            # Who wakes whom has changed within 3.11 and 3.12; ctask does as the later ones.
            self.themes -= {"sem", "cond", "barrier"}
        self.clock = rnd.choice(["virtual"] * 5 + ["real"] * 2 + ["time"])
        self.eager = NEW >= (3, 12) and rnd.random() < 0.25
        if self.eager and NEW < (3, 14):
            # Early releases cancel the creator when an eager task has failed; ctask never does.
            self.themes.discard("group")

    def program(self) -> Program:
        rnd = self.rnd
        kinds = ["plain"] * 8 + ["call_soon"]
        settings: dict[str, object] = {"clock": self.clock, "loop_class": rnd.choice(kinds)}
        settings["tidy"] = rnd.random() < 0.85
        settings["chains"] = not self.eager  # an eager task's first step sees its maker's exception
        nodes = []
        for number in reversed(range(1, CALLBACKS + 1)):
            self.me, self.sync, self.budget = number + 100, True, rnd.randint(1, 4)
            body = [
                *self.sometimes(0.8, f'log("cb{number}", args, X0.get(), X1.get())'),
                *self.body(0),
            ]
            nodes.append(self.function(f"def cb{number}(*args):", body))
        for number in reversed(range(1, GENERATORS + 1)):
            self.me, self.sync, self.budget = number + 50, False, rnd.randint(2, 5)
            nodes.append(self.function(f"async def gen{number}(n):", self.generator()))
        for number in reversed(range(1, COROUTINES + 1)):
            self.me, self.sync, self.budget = number, False, rnd.randint(2, 9)
            body = [*self.sometimes(0.7, 'log(n, "in", X0.get(), X1.get())'), *self.body(0)]
            body += self.sometimes(0.5, f"return {self.value()}")
            nodes.append(self.function(f"async def co{number}(n):", body))
        self.me, self.sync, self.budget = 0, False, rnd.randint(4, 14)
        main = [line("n = 0"), *self.world(), *self.body(0)]
        nodes.append(self.function("async def main():", main))
        program = Program(self.seed, settings, nodes)
        program.nodes = program.reached()
        return program

    def function(self, head: str, body: list[Node]) -> Node:
        return Node([(Expr(head), body)])

    def sometimes(self, chance: float, text: str) -> list[Node]:
        return [line(text)] if self.rnd.random() < chance else []

    def site(self) -> int:
        self.where += 1
        return self.where

    def world(self) -> list[Node]:
        """What main() makes before anything else."""
        rnd = self.rnd
        made = []
        for i in range(FUTURES):
            how = ["loop.create_future()"] * 6 + ["MyFuture(loop=loop)"]
            made.append(f"v.f{i} = {rnd.choice(how)}")
        size = rnd.choice([0, 0, 1, 1, 2, 3])
        kind = rnd.choice(["Queue", "Queue", "LifoQueue", "PriorityQueue"])
        made.append(f"v.q0 = asyncio.{kind}({size})")
        made.append(f"v.q1 = {rnd.choice(['asyncio.Queue', 'MyQueue'])}({rnd.choice([0, 1])})")
        made.append(f"v.lock = {rnd.choice(['asyncio.Lock', 'asyncio.Lock', 'MyLock'])}()")
        made.append(f"v.cond = asyncio.Condition({rnd.choice(['', '', 'v.lock'])})")
        made.append(f"v.sem = asyncio.Semaphore({rnd.choice([0, 1, 1, 2])})")
        made.append(f"v.bsem = asyncio.BoundedSemaphore({rnd.choice([1, 1, 2])})")
        made.append("v.event = asyncio.Event()")
        made.append(f"v.barrier = asyncio.Barrier({rnd.choice([1, 2, 2, 3])})")
        made.append("v.c0 = contextvars.copy_context()")
        if self.eager and rnd.random() < 0.5:
            made.append("loop.set_task_factory(asyncio.eager_task_factory)")
        if rnd.random() < 0.15:
            made.append("loop.set_exception_handler(None)")
        nodes = [line(text) for text in made]
        # What the others speak of is there from the start.
        for i in range(TASKS):
            kid = self.coroutine() or Expr("asyncio.sleep(0)")
            more = rnd.choice(["", "", "", f", name='t{i}'"])
            if "context" in self.themes and not self.eager and rnd.random() < 0.3:
                more += ", context=v.c0"
            nodes.append(line(f"v.t{i} = loop.create_task(${more})", kid))
        if "timer" in self.themes or "loop" in self.themes or rnd.random() < 0.3:
            nodes += [
                line(f"v.h{i} = loop.call_later(delay({i}), {self.callback()})")
                for i in range(HANDLES)
            ]
        if "agen" in self.themes:
            nodes.append(line("v.g = gen1(0)"))
        if "context" in self.themes:
            nodes.append(line("v.token = X0.set(1)"))
        if "wrong" in self.themes:
            made = [
                "v.event.wait()",
                "v.q0.get()",
                "v.lock.acquire()",
                "asyncio.sleep(delay(2), 7)",
            ]
            nodes.append(line(f"v.k = {rnd.choice(made)}"))
        return nodes

    def value(self) -> str:
        rnd = self.rnd
        return rnd.choice(["None", "n", "(n, 1)", "X0.get()", f"'r{rnd.randint(0, 9)}'"])

    def error(self) -> str:
        kind = self.rnd.choice(ERRORS)
        if self.rnd.random() < 0.03:
            kind = self.rnd.choice(["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
        return f"{kind}({self.rnd.randint(0, 9)})" if self.rnd.random() < 0.8 else kind

    # ---- what calls others ----

    def number(self) -> int:
        self.where += 1
        return self.where

    def coroutine(self) -> Expr | None:
        """A call of a coroutine function behind this one."""
        first = self.me + 1 if self.me <= COROUTINES else COROUTINES + 1
        if self.me > 100:
            first = self.me - 100 + 2
        if self.me > 50 and self.me <= 100:
            return None
        if first > COROUTINES:
            return None
        return Expr(f"co{self.rnd.randint(first, COROUTINES)}({self.number()})")

    def callback(self) -> str:
        first = self.me - 100 + 1 if self.me > 100 else 1
        if first > CALLBACKS or self.rnd.random() < 0.1:
            return self.rnd.choice(["log", "log", "v.f0.set_result", "v.event.set"])
        return f"cb{self.rnd.randint(first, CALLBACKS)}"

    def task(self) -> str:
        return f"v.t{self.rnd.randrange(TASKS)}"

    def future(self) -> str:
        rnd = self.rnd
        return self.task() if rnd.random() < 0.5 else f"v.f{rnd.randrange(FUTURES)}"

    def ticks(self) -> str:
        return f"delay({self.rnd.choice([0, 1, 1, 2, 3, 4])})"

    def timeout(self, *more: str) -> str:
        return self.rnd.choice([self.ticks(), self.ticks(), self.ticks(), "None", *more])

    # ---- what can be awaited ----

    def awaitable(self, depth: int) -> Expr:
        rnd, themes = self.rnd, self.themes
        choices: list[Callable[[], Expr | None]] = [
            lambda: Expr("asyncio.sleep(0)"),
            lambda: Expr(f"asyncio.sleep(0, {self.value()})"),
            lambda: Expr(self.future()),
            self.coroutine,
        ]
        if "timer" in themes:
            choices += [lambda: Expr(f"asyncio.sleep({self.ticks()}, {self.value()})")] * 3
        if "future" in themes or "task" in themes:
            choices += [lambda: Expr(self.future())] * 3
        if "queue" in themes:
            choices += [self.queue_wait] * 8
        if "lock" in themes:
            choices += [lambda: Expr("v.lock.acquire()")] * 3
        if "cond" in themes:
            choices += [lambda: Expr(rnd.choice(["v.cond.acquire()", "v.cond.wait()"]))] * 3
        if "sem" in themes:
            choices += [lambda: Expr(f"v.{rnd.choice(['sem', 'bsem'])}.acquire()")] * 4
        if "event" in themes:
            choices += [lambda: Expr("v.event.wait()")] * 3
        if "barrier" in themes:
            choices += [lambda: Expr("v.barrier.wait()")] * 3
        if "agen" in themes:
            choices += [
                lambda: Expr(f"v.g.{rnd.choice(['__anext__', 'aclose', '__anext__'])}()")
            ] * 2
            choices += [lambda: Expr(f"v.g.athrow({self.error()})"), lambda: Expr("v.g.asend(1)")]
        if "wrong" in themes:
            choices += [self.wrong] * 3
            # By several, and it is only for one. (Not a future's: a task would go on with it.)
            choices += [lambda: Expr("v.k")] * 2 if depth == 0 else []
        if depth < 3 and "combine" in themes:
            choices += [lambda: self.combined(depth + 1)] * 8
        while True:
            made = rnd.choice(choices)()
            if made is not None:
                return made

    def queue_wait(self) -> Expr:
        queue = self.rnd.choice(["v.q0", "v.q0", "v.q1"])
        return Expr(
            f"{queue}." + self.rnd.choice(["get()", "get()", f"put({self.number()})", "join()"])
        )

    def wrong(self) -> Expr:
        what = ["None", "1", "v.f0", "asyncio.current_task()", "asyncio.Future(loop=OtherLoop())"]
        what += ["asyncio.sleep(0)", "v.t0"]
        chosen = self.rnd.choice(what)
        if "OtherLoop" in chosen and self.rnd.random() < 0.5:
            return Expr(chosen)
        return Expr(f"Wrong({chosen})")

    def combined(self, depth: int) -> Expr:
        rnd = self.rnd
        kind = rnd.choice(["shield", "wait_for", "wait_for", "gather", "gather", "wait", "nested"])
        if kind == "shield":
            return Expr("asyncio.shield($)", [self.awaitable(depth)])
        if kind == "wait_for":
            return Expr(f"asyncio.wait_for($, {self.timeout('0')})", [self.awaitable(depth)])
        if kind == "gather":
            kids = [self.awaitable(depth) for _ in range(rnd.randint(0, 3))]
            errors = rnd.choice(["", ", return_exceptions=True"])
            return Expr(f"asyncio.gather(*[$]{errors})", kids, many=True)
        if kind == "wait":
            when = rnd.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
            kids = [Expr(self.future()) for _ in range(rnd.randint(0, 3))]
            return Expr(
                f"sets(asyncio.wait([$], timeout={self.timeout()}, return_when=asyncio.{when}))",
                kids,
                many=True,
            )
        return Expr("asyncio.ensure_future($)", [self.awaitable(depth)])

    # ---- statements ----

    def body(self, depth: int) -> list[Node]:
        nodes: list[Node] = []
        for _ in range(self.rnd.randint(1, 4) if depth else 99):
            if self.budget <= 0 and (nodes or not depth):
                break
            self.budget -= 1
            nodes.append(self.statement(depth))
        return nodes

    def statement(self, depth: int) -> Node:
        rnd = self.rnd
        roll = rnd.random()
        if self.sync:
            return self.guarded(depth) if roll < 0.04 and depth < 2 else self.plain()
        if roll < 0.30:
            return line(f"log(n, {self.site()}, await $)", self.awaitable(0))
        if roll < 0.45 and depth < 3:
            return self.guarded(depth)
        if roll < 0.62 and depth < 3:
            return self.with_or_for(depth)
        if roll < 0.64:
            return line(f"raise {self.error()}")
        return self.plain()

    def guarded(self, depth: int) -> Node:
        rnd = self.rnd
        parts: list[tuple[Expr, list[Node] | None]] = [(Expr("try:"), self.body(depth + 1))]
        caught = rnd.choice(["asyncio.CancelledError", "Exception", "BaseException", "Odd", ""])
        if caught:
            where = self.site()
            handler = [line(f'log({"n" if not self.sync else 0}, {where}, "caught", error)')]
            if rnd.random() < 0.3:
                handler += self.body(depth + 1)
            if rnd.random() < 0.25:
                handler.append(line(rnd.choice(["raise", f"raise {self.error()}", "return"])))
            parts.append((Expr(f"except {caught} as error:"), handler))
        if not caught or rnd.random() < 0.3:
            parts.append((Expr("finally:"), self.body(depth + 1)))
        return Node(parts)

    def with_or_for(self, depth: int) -> Node:
        rnd, themes = self.rnd, self.themes
        heads: list[Expr] = []
        if "timer" in themes or "combine" in themes:
            heads += [Expr(f"async with asyncio.timeout({self.timeout('0')}) as cm:")] * 2
            heads += [Expr("async with asyncio.timeout_at(loop.time() + delay(1)) as cm:")]
        if "group" in themes:
            heads += [Expr("async with asyncio.TaskGroup() as tg:")] * 5
        if "lock" in themes:
            heads += [Expr("async with v.lock:")] * 2
        if "cond" in themes:
            heads += [Expr("async with v.cond:")] * 3
        if "sem" in themes:
            heads += [Expr(f"async with v.{rnd.choice(['sem', 'bsem'])}:")] * 2
        if "barrier" in themes:
            heads += [Expr("async with v.barrier:")] * 2
        if "agen" in themes and self.me < 50:
            heads += [Expr(f"async for x in gen{rnd.randint(1, GENERATORS)}({self.number()}):")] * 3
            heads += [Expr("async for x in v.g:")]
        if "combine" in themes:
            kids = [Expr(self.future()) for _ in range(rnd.randint(0, 3))]
            made = self.coroutine()
            if made is not None and rnd.random() < 0.5:
                kids = [*kids[:1], made]
            timeout = rnd.choice(["", "", f", timeout={self.timeout()}"])
            kind = "async for" if NEW >= (3, 13) and rnd.random() < 0.5 else "for"
            heads += [
                Expr(f"{kind} x in asyncio.as_completed(few($){timeout}):", kids, many=True)
            ] * 3
        if not heads:
            heads.append(Expr("for x in range(2):"))
        head = rnd.choice(heads)
        body: list[Node] = []
        if " x in " in head.text:
            take = "await x" if "as_completed" in head.text and rnd.random() < 0.8 else "x"
            body.append(line(f"log(n, {self.site()}, {take})"))
        group, self.group = self.group, self.group or "TaskGroup" in head.text
        if "cond" in head.text and rnd.random() < 0.7:
            what = rnd.choice(
                [
                    "await v.cond.wait()",
                    "await v.cond.wait_for(v.event.is_set)",
                    "v.cond.notify_all()",
                ]
            )
            body.append(line(f"log(n, {self.site()}, {what})"))
        if "TaskGroup" in head.text:
            for _ in range(rnd.randint(0, 3)):
                body.append(self.in_group())
        if " cm:" in head.text and rnd.random() < 0.3:
            how = rnd.choice(
                [
                    f"cm.reschedule, loop.time() + {self.ticks()}",
                    "cm.reschedule, None",
                    "cm.expired",
                ]
            )
            body.append(line(f"do(n, {self.site()}, {how})"))
        body += self.body(depth + 1)
        self.group = group
        if "for " in head.text and rnd.random() < 0.3:
            body.append(line("break"))
        parts: list[tuple[Expr, list[Node] | None]] = [(head, body)]
        if rnd.random() < 0.3:
            parts = [(Expr("try:"), [Node(parts)])]
            parts.append(
                (Expr("except* Exception as error:"), [line(f"log(n, {self.site()}, error)")])
            )
        return Node(parts)

    def in_group(self) -> Node:
        made = self.coroutine() or Expr("asyncio.sleep(0)")
        return line(f"{self.task()} = do(n, {self.site()}, tg.create_task, $)", made)

    def generator(self) -> list[Node]:
        body: list[Node] = []
        for i in range(self.rnd.randint(1, 3)):
            self.budget = self.rnd.randint(0, 2)
            body += [*self.body(1), line(f"yield (n, {i})")]
        if self.rnd.random() < 0.6:
            self.budget = 2
            caught = self.rnd.choice(
                ["GeneratorExit", "BaseException", "Exception", "asyncio.CancelledError"]
            )
            tail = [line(f'log(n, {self.site()}, "gen caught", error)')]
            if self.rnd.random() < 0.6:
                tail.append(line("raise"))
            parts: list[tuple[Expr, list[Node] | None]] = [(Expr("try:"), body)]
            parts.append((Expr(f"except {caught} as error:"), tail))
            parts.append(
                (Expr("finally:"), [line(f'log(n, {self.site()}, "gen end")'), *self.body(2)])
            )
            body = [Node(parts)]
        return body

    def plain(self) -> Node:
        """A statement that does not wait."""
        rnd, themes = self.rnd, self.themes
        n = "0" if self.sync else "n"
        do = f"do({n}, {self.site()}, "
        out: list[Callable[[], Node]] = [
            lambda: line(f"log({n}, {self.site()}, {self.peek()})"),
            lambda: self.make_task(do),
            lambda: self.make_task(do),
            lambda: self.make_task(do),
            lambda: line(f"{do}{self.task()}.cancel{rnd.choice(['', '', ', 1'])})"),
        ]
        if self.group and rnd.random() < 0.3:
            return self.in_group()
        if "future" in themes:
            out += [lambda: self.on_future(do)] * 6
        if "task" in themes:
            out += [lambda: self.on_task(do)] * 6
        if "timer" in themes or "loop" in themes:
            out += [lambda: self.handle(do)] * 5
        if "loop" in themes:
            out += [lambda: self.on_loop(do)] * 3
        if "queue" in themes:
            out += [lambda: self.on_queue(do)] * 6
        if themes & {"lock", "cond", "sem", "event", "barrier"}:
            out += [lambda: self.on_lock(do)] * 6
        if "context" in themes:
            out += [self.on_context] * 4
        if "agen" in themes:
            out += [lambda: line(f"v.g = gen{rnd.randint(1, GENERATORS)}({self.number()})")] * 2
            out += [lambda: line("v.g = None")]
        return rnd.choice(out)()

    def peek(self) -> str:
        """An expression that only looks."""
        rnd = self.rnd
        fut, task = self.future(), self.task()
        what = [fut, task, fut, f"{fut}.done()", f"{task}.cancelling()", f"{fut}.cancelled()"]
        what += [f"bool({task}.get_stack())", f"{task}.get_coro()", f"len({fut}._callbacks or ())"]
        what += [
            "len(asyncio.all_tasks(loop))",
            "asyncio.current_task(loop)",
            "X0.get()",
            "X1.get()",
        ]
        what += ["v.q0", "v.q1", "v.lock", "v.cond", "v.sem", "v.bsem", "v.event", "v.barrier"]
        what += [f"copy.copy(v.{rnd.choice(['q0', 'lock', 'sem', 'event', 'cond'])})"]
        what += ["v.q0.qsize()", "v.q0.full()", "v.lock.locked()", "v.sem.locked()"]
        what += ["v.barrier.n_waiting", "v.barrier.broken", "v.h0", "v.h1", "v.h2"]
        what += [
            f"{fut}._state",
            f"{task}._fut_waiter",
            f"{task}._must_cancel",
            "loop.is_running()",
        ]
        what += [f"{fut}._asyncio_future_blocking", f"{fut}._log_traceback", f"{task}.get_name()"]
        if NEW >= (3, 12):
            what += [f"{task}.get_context().get(X0)"]
        return rnd.choice(what)

    def make_task(self, do: str) -> Node:
        rnd = self.rnd
        made = self.coroutine()
        if made is None:
            made = Expr(f"asyncio.sleep(0, {self.number()})")
        if rnd.random() < 0.15 and not self.sync:
            made = self.awaitable(1)
        how = rnd.choice(
            ["loop.create_task", "asyncio.create_task", "asyncio.ensure_future", "asyncio.Task"]
        )
        more = ""
        if how in ("asyncio.Task", "asyncio.ensure_future"):
            more += ", loop=loop"
        if how == "asyncio.Task" and rnd.random() < 0.3:
            how = "MyTask"
        if how != "asyncio.ensure_future":
            # asyncio's and ctask's tasks have numbers of their own: what may be either has a name
            if rnd.random() < 0.3 or "Task" in how:
                more += f", name=name('n{self.number()}')"
            eager = self.eager and rnd.random() < 0.5
            if eager and ("Task" in how or NEW >= (3, 14)):
                more += ", eager_start=True"
            elif "context" in self.themes and rnd.random() < 0.4 and not self.eager:
                more += rnd.choice([", context=v.c0", ", context=contextvars.copy_context()"])
        return line(f"{self.task()} = {do}{how}, ${more})", made)

    def on_future(self, do: str) -> Node:
        rnd = self.rnd
        fut = self.future()
        what = [f"v.f{rnd.randrange(FUTURES)}.set_result, {self.number()}"] * 3
        what += [f"{fut}.set_exception, {self.error()}", f"{fut}.cancel", f"{fut}.cancel, 'm'"]
        what += [f"{fut}.result", f"{fut}.exception", f"{fut}.add_done_callback, {self.callback()}"]
        what += [f"{fut}.remove_done_callback, {self.callback()}", f"{fut}.set_result, 1"]
        # By the methods of the base, as a subclass of the program's may call them.
        base = f"v.f{rnd.randrange(FUTURES)}"
        what += [f"asyncio.Future.set_result, {base}, {self.number()}"]
        what += [f"asyncio.Future.cancel, {base}", f"asyncio.Future.set_exception, {base}, Odd(1)"]
        what += [f"{fut}.add_done_callback, {self.callback()}"]
        if "context" in self.themes:
            what += [f"{fut}.add_done_callback, {self.callback()}, context=v.c0"]
        if rnd.random() < 0.15:
            return line(f"v.f{rnd.randrange(FUTURES)} = loop.create_future()")
        if rnd.random() < 0.05:
            return line(f"{fut} = None")
        return line(f"{do}{rnd.choice(what)})")

    def on_task(self, do: str) -> Node:
        rnd = self.rnd
        task = self.task()
        what = [f"{task}.cancel", f"{task}.cancel, 'm'", f"{task}.cancel", f"{task}.uncancel"]
        what += [f"{task}.result", f"{task}.exception", f"{task}.set_result, 1"]
        what += [f"{task}.set_name, name('new')", f"{task}.add_done_callback, {self.callback()}"]
        what += [f"{task}.remove_done_callback, {self.callback()}", f"{task}.set_exception, Odd()"]
        if not self.sync:
            what += ["asyncio.current_task().cancel", "asyncio.current_task().uncancel"]
            what += ["asyncio.current_task().cancel, 'me'"]
        if rnd.random() < 0.05:
            return line(f"{task} = None")
        return line(f"{do}{rnd.choice(what)})")

    def handle(self, do: str) -> Node:
        rnd = self.rnd
        handle = f"v.h{rnd.randrange(HANDLES)}"
        cb, args = (
            self.callback(),
            rnd.choice(["", ", 1", ", n, 2"]).replace("n", "0" if self.sync else "n"),
        )
        context = rnd.choice(["", "", ", context=v.c0"])
        makes = [f"loop.call_soon({cb}{args}{context})"] * 2
        makes += [f"loop.call_later({self.ticks()}, {cb}{args}{context})"] * 2
        makes += [f"loop.call_at(loop.time() + {self.ticks()}, {cb}{args}{context})"]
        makes += [f"loop.call_soon_threadsafe({cb}{args})"]
        roll = rnd.random()
        if roll < 0.3:
            return line(f"{handle} = {rnd.choice(makes)}")
        if roll < 0.55:
            return line(rnd.choice(makes))
        what = [f"{handle}.cancel", f"{handle}.cancel", f"{handle}.cancelled"]
        if rnd.random() < 0.1:
            return line(f"{handle} = None")
        return line(f"{do}{rnd.choice(what)})")

    def on_loop(self, do: str) -> Node:
        what = ["loop.stop", "loop.close", "loop.is_closed"]
        what += ["loop.call_exception_handler, {'message': 'm', 'future': v.f0}", "loop.get_debug"]
        what += ["loop.set_exception_handler, handler"]
        what += ["loop.set_exception_handler, raising", "loop.set_exception_handler, None"]
        what += ["loop.call_soon, 1", "loop.call_soon, co1", "loop.create_task, 1", "loop.stop"]
        what += [
            "loop.get_exception_handler",
            "loop.get_task_factory",
            "loop.default_exception_handler, {}",
        ]
        chosen = self.rnd.choice(what)
        return line(f"{do}{chosen})")

    def on_queue(self, do: str) -> Node:
        rnd = self.rnd
        queue = rnd.choice(["v.q0", "v.q0", "v.q1"])
        what = (
            [f"put_nowait, {self.number()}"] * 3 + ["get_nowait"] * 2 + ["task_done", "task_done"]
        )
        if NEW >= (3, 13):
            what += ["shutdown", "shutdown, True", "shutdown"][: rnd.randint(0, 3)]
        return line(f"{do}{queue}.{rnd.choice(what)})")

    def on_lock(self, do: str) -> Node:
        what = []
        themes = self.themes
        if "lock" in themes:
            what += ["v.lock.release"] * 2
        if "cond" in themes:
            what += ["v.cond.notify", "v.cond.notify, 2", "v.cond.notify_all", "v.cond.release"]
        if "sem" in themes:
            what += ["v.sem.release", "v.bsem.release", "v.sem.release"]
        if "event" in themes:
            what += ["v.event.set", "v.event.set", "v.event.clear"]
        if "barrier" in themes and not self.sync:
            return line(
                f"log(n, {self.site()}, await v.barrier.{self.rnd.choice(['abort', 'reset'])}())"
            )
        return line(f"{do}{self.rnd.choice(what or ['v.event.set'])})")

    def on_context(self) -> Node:
        rnd = self.rnd
        var, number = rnd.choice(["X0", "X1"]), self.number()
        what = [f"{var}.set({number})"] * 3
        what += [
            f"v.token = {var}.set({number})",
            "X0.reset(v.token)",
            "v.c0 = contextvars.copy_context()",
        ]
        cb = self.callback()
        what += [f"v.c0.run({cb}, {number})", f"log({number}, sorted(v.c0.values(), key=repr))"]
        return line(rnd.choice(what))


def generate(seed: int) -> Program:
    return Maker(seed).program()
