"""What a program is: connections, and steps that are taken one after the other.

Data only, so that it can be printed as code and made smaller."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

# Of a connection: what it is made of, and by whom.
STREAMS = ("unix", "tcp", "server", "tls", "tls_server", "tlstls", "pair", "tlsmade", "tlsserved")
SOCKS = ("socks", "tcpsocks")  # without a transport: sock_recv(), add_reader() and their relatives
PIPES = ("read_pipe", "write_pipe")
DATAGRAMS = ("udp", "unix_datagram")
READ_ONLY = ("read_pipe", *DATAGRAMS)
MADE = ("tlsmade", "tlsserved")  # with TLS from the start


@dataclass(frozen=True)
class Conn:
    """A connection: its kind, and how the program uses it."""

    kind: str
    api: str = "plain"  # plain, buffered, streams
    keep_open: bool = False  # what eof_received() answers
    buffer: int = 4096  # of a BufferedProtocol, or a StreamReader's limit
    small: bool = True  # the kernel's buffers are made small
    early: int = 0  # bytes that the peer sends along with the end of its handshake
    subclass: bool = False  # the socket has methods of its own
    replaced: bool = False  # socket.socket is a function while the connection is made


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
            for name in ("api", "keep_open", "buffer", "small", "early", "subclass", "replaced"):
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


def sock_op(rng: Random) -> tuple[str, tuple[Any, ...]]:
    """An operation on a socket by itself."""
    ops: list[tuple[str, tuple[Any, ...], float]] = [
        ("recv", (rng.choice((1, 100, 5000, 100_000, 300_000)),), 4),
        ("recv_into", (rng.choice((1, 100, 5000)),), 1),
        ("sendall", (rng.choice((1, 100, 5000, 300_000)), rng.choice(FORMS[:3])), 3),
        ("watch", (), 2.5),
        ("unwatch", (), 2.5),
        ("watch_number", (rng.choice((-1, 1_000_000, (1 << 31) - 1, 1 << 40)),), 0.3),
        ("cancel", (), 1),
        ("shut_sock", (), 1.5),
        ("dup2", (), 0.8),
        ("unblock", (), 0.2),
    ]
    name, args, _ = rng.choices(ops, [op[2] for op in ops])[0]
    return name, args


def transport_op(rng: Random, conn: Conn) -> tuple[str, tuple[Any, ...]]:
    """An operation of our end."""
    if conn.kind in SOCKS:
        return sock_op(rng)
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
            ("usurp", (), 0.25),
            ("unblock", (), 0.25),
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
    if conn.kind in ("tcp", "server", "tcpsocks"):
        ops += [("urgent", (rng.choice((1, 3, 500)), rng.choice((1, 3, 500))), 1)]
    name, args, _ = rng.choices(ops, [op[2] for op in ops])[0]
    return name, args


def generate(seed: str) -> Program:
    """The program of this seed."""
    rng = Random(seed)
    conns = []
    for _ in range(rng.choices((1, 2), (4, 1))[0]):
        kind = rng.choices(
            STREAMS + SOCKS + PIPES + DATAGRAMS, (7, 5, 2, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1.5, 1, 1)
        )[0]
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
                early=rng.choice((0, 1, 1000, 20_000)) if kind in MADE else 0,
                subclass=kind in ("unix", "tcp", *SOCKS) and rng.random() < 0.1,
                replaced=kind in ("unix", "tcp", "server") and rng.random() < 0.1,
            )
        )
    if len(conns) > 1:  # early releases' transports serve subclasses, and those have faults
        conns = [replace(conn, subclass=False) for conn in conns]
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
        elif conn.api != "streams" and conn.kind not in SOCKS:
            where = rng.choice(CALLBACKS)
            late = ("pause", "resume", *(("made",) if conn.kind not in MADE else ()))
            if conn.kind.startswith("tls") and where in late:
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
            elif rng.random() < 0.08:
                name, args = "beside", (rng.choice((1, 3000)),)
            if rng.random() < 0.4:  # in one callback: what is written is not sent one by one
                for _ in range(rng.choice((1, 2, 2, 3))):
                    one = ("write", (rng.choice((1, 100, 1000)), "bytes"))
                    before = one if conn.kind not in READ_ONLY else transport_op(rng, conn)
                    steps.append(Step(where, number, *before, at))
            steps.append(Step(where, number, name, args, at))
        else:
            steps.append(
                Step("poll", number, "interrupt")
                if rng.random() < 0.1
                else Step("out", number, "size" if conn.kind not in SOCKS else "unwatch")
            )
    steps = hurried(conns, steps, Random(f"{seed} hurried"))
    return Program(tuple(conns), tuple(compared(conns, steps)))


def hurried(conns: list[Conn], steps: list[Step], rng: Random) -> list[Step]:
    """The steps, and after some a close() an abort(): what waits to be sent is given up."""
    more = []
    for step in steps:
        more.append(step)
        closes = step.op == "close" and step.where != "peer"
        if closes and conns[step.conn].kind != "read_pipe" and rng.random() < 0.3:
            more.append(Step("task", step.conn, "abort"))
    return more


ENDINGS = (
    "close",
    "shut",
    "reset",
    "abort",
    "behind",
    "usurp",
    "exit",
    "raise",
    "signal",
    "write_eof",
)


def compared(conns: list[Conn], steps: list[Step]) -> list[Step]:
    """The steps without those after which asyncio and ctask may differ."""
    kept = []
    pauses = {step.conn for step in steps if step.op == "pause"}
    for step in steps:  # a StreamReader that has too much pauses, too
        conn = conns[step.conn]
        if conn.api == "streams" and step.op == "send" and step.args[0] > 2 * conn.buffer:
            pauses.add(step.conn)
    tls = {step.conn for step in steps if step.op == "start_tls"}
    tls |= {i for i, conn in enumerate(conns) if conn.kind.startswith("tls")}
    for step in steps:
        conn = conns[step.conn]
        if step.op == "send" and conn.kind not in DATAGRAMS:
            step = replace(step, args=(min(step.args[0], 300 * conn.buffer),))
        joined = sys.version_info < (3, 12) or step.op == "write"
        if "strided" in step.args and (step.conn in tls or joined):
            # TLS takes it, asyncio does not; behind what waits asyncio fails later than ctask; and
            # on 3.11 it is writelines() that fails.
            step = replace(step, args=(step.args[0], "bytes"))
        if step.conn in pauses & tls and step.op in ENDINGS:
            continue  # what was not read is lost with asyncio
        if step.conn in tls and step.where in ("pause", "resume"):
            continue  # TLS pauses otherwise than asyncio's
        if step.conn in tls and step.op == "limits" and step.args[0] == 0:
            continue  # asyncio pauses though nothing waits, and sendfile() waits for ever
        if (
            conn.early
            and step.where == "made"
            and set(step.args) & {"KeyboardInterrupt", "SystemExit"}
        ):
            continue  # asyncio leaves what came with the handshake until more comes
        kept.append(step)
    return kept
