"""What a program is: connections, and steps that are taken one after the other.

Data only, so that it can be printed as code and made smaller."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

# Of a connection: what it is made of, and by whom.
STREAMS = ("unix", "tcp", "server", "tls", "tls_server", "tlstls", "pair")
PIPES = ("read_pipe", "write_pipe")
DATAGRAMS = ("udp", "unix_datagram")


@dataclass(frozen=True)
class Conn:
    """A connection: its kind, and how the program uses it."""

    kind: str
    api: str = "plain"  # plain, buffered, streams
    keep_open: bool = False  # what eof_received() answers
    buffer: int = 4096  # of a BufferedProtocol, or a StreamReader's limit
    small: bool = True  # the kernel's buffers are made small


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    `where`: "out" (the loop does not run), "soon" (in a callback), "task", "peer" (by the other
    end), or a callback of the protocol ("made", "data", "eof", "pause", "resume", "lost"), in which
    the step waits for its turn; `at` is how many bytes, or how many calls, are waited for there.
    """

    where: str
    conn: int
    op: str
    args: tuple[Any, ...] = ()
    at: int = 0
    settle: bool = True


@dataclass(frozen=True)
class Program:
    """Connections by their number, and steps."""

    conns: tuple[Conn, ...]
    steps: tuple[Step, ...]
    form: str = field(default="", compare=False)  # which candidate differed

    def code(self) -> str:
        """The program as a script."""
        lines = [
            "from attacks.transports import Conn, Program, Step, show",
            "",
            "show(",
            "    Program(",
        ]
        for name, items in (("conns", self.conns), ("steps", self.steps)):
            lines.append(f"        {name}=(")
            lines += [f"            {plain(item)}," for item in items]
            lines.append("        ),")
        lines.append("    )")
        lines[-1] += f", form={self.form!r}" if self.form else ""
        return "\n".join([*lines, ")"])

    def smaller(self) -> list[Program]:
        """Programs with one thing less each."""
        found = [
            replace(self, steps=self.steps[:i] + self.steps[i + 1 :])
            for i in range(len(self.steps))
        ]
        if len(self.conns) > 1 and not any(step.conn == len(self.conns) - 1 for step in self.steps):
            found.insert(0, replace(self, conns=self.conns[:-1]))
        for i, conn in enumerate(self.conns):
            default = Conn(conn.kind)
            for name in ("api", "keep_open", "buffer", "small"):
                if getattr(conn, name) != getattr(default, name):
                    plainer = replace(conn, **{name: getattr(default, name)})
                    found.append(
                        replace(self, conns=(*self.conns[:i], plainer, *self.conns[i + 1 :]))
                    )
        for i, step in enumerate(self.steps):
            for less in simpler(step):
                found.append(replace(self, steps=(*self.steps[:i], less, *self.steps[i + 1 :])))
        return found


def plain(item: Conn | Step) -> str:
    """The call that makes it, without what is the default."""
    values: list[str] = []
    for name, about in type(item).__dataclass_fields__.items():
        value = getattr(item, name)
        if about.default != value:
            values.append(f"{name}={value!r}")
    return f"{type(item).__name__}({', '.join(values)})"


def simpler(step: Step) -> list[Step]:
    """The same with less."""
    found = []
    if step.where in ("soon", "task"):
        found.append(replace(step, where="out"))
    if not step.settle:
        found.append(replace(step, settle=True))
    if step.at > 1:
        found.append(replace(step, at=1))
    for i, value in enumerate(step.args):
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            for less in (1, value // 2):
                found.append(replace(step, args=(*step.args[:i], less, *step.args[i + 1 :])))
        if isinstance(value, tuple) and len(value) > 1:
            found.append(replace(step, args=(*step.args[:i], value[:-1], *step.args[i + 1 :])))
        if isinstance(value, str) and value in FORMS[1:]:
            found.append(replace(step, args=(*step.args[:i], "bytes", *step.args[i + 1 :])))
    return found


FORMS = ("bytes", "bytearray", "memoryview", "changed", "changed_view", "strided")
RAISED = (
    "ValueError",
    "OSError",
    "ConnectionResetError",
    "KeyboardInterrupt",
    "SystemExit",
    "CancelledError",
)
CALLBACKS = ("made", "data", "data", "data", "eof", "pause", "resume", "lost")


def amount(rng: Random) -> int:
    """How much is written: mostly little, or more than the kernel takes."""
    return rng.choice((0, 1, 2, 100, 1000, 4000, 40_000, 300_000, 700_000))


def form(rng: Random) -> str:
    """In which type it is written."""
    return rng.choices(FORMS, (10, 3, 3, 3, 2, 0.2))[0]


def transport_op(rng: Random, conn: Conn) -> tuple[str, tuple[Any, ...]]:
    """An operation of our end."""
    if conn.kind in DATAGRAMS:
        return rng.choice(
            (
                ("sendto", (rng.choice((0, 1, 100, 1000)), form(rng))),
                ("sendto", (rng.choice((1, 100, 5000)), "bytes")),
                ("sendto", (rng.choice((1, 100)), "bytes")),
                ("sendmany", (rng.choice((2, 5, 30)), 1000)),
                ("size", ()),
                ("limits", (rng.choice((0, 100, 5000)), None)),
                ("close", ()),
                ("abort", ()),
                ("is_closing", ()),
            )
        )
    ops: list[tuple[str, tuple[Any, ...], float]] = [
        ("pause", (), 1.5),
        ("resume", (), 1.5),
        ("is_reading", (), 0.5),
        ("close", (), 0.8),
        ("is_closing", (), 0.4),
    ]
    if conn.kind != "read_pipe":
        ops += [
            ("write", (amount(rng), form(rng)), 5),
            ("writelines", (tuple(amount(rng) for _ in range(rng.randrange(4))), form(rng)), 2),
            ("size", (), 1),
            ("write_eof", (), 0.7),
            ("abort", (), 0.8),
            (
                "limits",
                rng.choice(((0, None), (100, 10), (1000, None), (None, 50), (500_000, 0), (5, 10))),
                0.8,
            ),
        ]
    if conn.kind not in PIPES:
        ops += [
            (
                "sendfile",
                (rng.choice((0, 1, 5000, 300_000)), rng.choice((True, False)), rng.random() < 0.5),
                0.6,
            ),
            ("set_protocol", (rng.choice(("plain", "buffered")),), 0.5),
            ("behind", (), 0.25),
            ("exit", (), 0.1),
        ]
        if conn.kind in ("unix", "tcp", "server"):
            ops += [
                ("child", (rng.choice((1, 500)),), 0.4),
                ("start_tls", (rng.random() < 0.5,), 0.15),
            ]
    if conn.api == "streams":
        ops = [op for op in ops if op[0] not in ("pause", "resume", "set_protocol", "start_tls")]
        ops += [
            ("read", (rng.choice((-1, 1, 100, 5000, 100_000)),), 2),
            ("readexactly", (rng.choice((0, 1, 100, 5000, 100_000)),), 2),
            ("readline", (), 0.7),
            ("drain", (), 2),
            ("wait_closed", (), 0.7),
            ("cancel", (), 0.5),
        ]
    name, args, _ = rng.choices(ops, [op[2] for op in ops])[0]
    return name, args


def peer_op(rng: Random, conn: Conn) -> tuple[str, tuple[Any, ...]]:
    """An operation of the other end."""
    if conn.kind in DATAGRAMS:
        return rng.choice(
            (
                ("send", (rng.choice((0, 1, 100, 5000)),)),
                ("send", (100,)),
                ("drain", ()),
                ("take", (1,)),
                ("close", ()),
            )
        )
    ops: list[tuple[str, tuple[Any, ...], float]] = [("drain", (), 2), ("close", (), 0.6)]
    if conn.kind != "write_pipe":
        ops += [
            ("send", (rng.choice((1, 2, 100, 1000, 5000, 30_000)),), 5),
            ("send", (150_000,), 0.5),
        ]
    if conn.kind != "read_pipe":
        ops += [("take", (rng.choice((1, 100, 3000, 30_000)),), 2)]
    if conn.kind not in PIPES:
        ops += [("shut", (), 1), ("reset", (), 0.4)]
    name, args, _ = rng.choices(ops, [op[2] for op in ops])[0]
    return name, args


def generate(seed: str) -> Program:
    """The program of this seed."""
    rng = Random(seed)
    conns = []
    for _ in range(rng.choices((1, 2), (4, 1))[0]):
        kind = rng.choices(STREAMS + PIPES + DATAGRAMS, (7, 5, 2, 2, 1, 1, 2, 1, 1.5, 1, 1))[0]
        api = "plain"
        if kind in STREAMS and kind != "pair":
            api = rng.choices(("plain", "buffered", "streams"), (5, 2, 2))[0]
        conns.append(
            Conn(
                kind,
                api,
                keep_open=rng.random() < 0.5,
                buffer=rng.choice((7, 50, 4096, 70_000)),
                small=rng.random() < 0.8,
            )
        )
    steps = []
    for _ in range(rng.randrange(2, 15)):
        number = rng.randrange(len(conns))
        conn = conns[number]
        dice = rng.random()
        if dice < 0.4 and conn.kind != "pair":
            name, args = peer_op(rng, conn)
            steps.append(Step("peer", number, name, args, settle=rng.random() < 0.7))
        elif dice < 0.75:
            name, args = transport_op(rng, conn)
            where = rng.choice(("out", "soon", "task"))
            steps.append(Step(where, number, name, args, settle=rng.random() < 0.6))
        elif conn.api != "streams":
            where = rng.choice(CALLBACKS)
            if conn.kind.startswith("tls") and where in ("pause", "resume", "made"):
                where = "data"  # TLS pauses otherwise than asyncio's, and begins after "made"
            at = (
                rng.choice((1, 1, 100, 1000, 20_000))
                if where == "data"
                else rng.choice((1, 1, 1, 2))
            )
            name, args = transport_op(rng, conn)
            if name == "start_tls":
                name, args = "size", ()
            if rng.random() < 0.25:
                name, args = (
                    rng.choice(("raise", "signal")),
                    (rng.choices(RAISED, (3, 1, 1, 3, 1, 1))[0],),
                )
            steps.append(Step(where, number, name, args, at))
        else:
            steps.append(
                Step("poll", number, "interrupt")
                if rng.random() < 0.1
                else Step("out", number, "size")
            )
    return Program(tuple(conns), tuple(compared(conns, steps)))


ENDINGS = ("close", "shut", "reset", "abort", "behind", "exit", "raise", "signal", "write_eof")


def compared(conns: list[Conn], steps: list[Step]) -> list[Step]:
    """The steps without those after which asyncio and ctask may differ."""
    kept = []
    pauses = {step.conn for step in steps if step.op == "pause"}
    tls = {step.conn for step in steps if step.op == "start_tls"}
    tls |= {i for i, conn in enumerate(conns) if conn.kind.startswith("tls")}
    for step in steps:
        conn = conns[step.conn]
        if step.op == "send" and conn.kind not in DATAGRAMS:
            step = replace(step, args=(min(step.args[0], 300 * conn.buffer),))
        if "strided" in step.args and (step.conn in tls or step.op == "write"):
            # TLS takes it, asyncio does not; and behind what waits asyncio fails later than ctask.
            step = replace(step, args=(step.args[0], "bytes"))
        if step.conn in pauses & tls and step.op in ENDINGS:
            continue  # what was not read is lost with asyncio
        kept.append(step)
    return kept
