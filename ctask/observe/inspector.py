"""Answers who asks what the process waits for: inspect(), and the thread behind it.

The thread listens on a Unix socket and answers the same user only.  It needs nothing of the loops
but the interpreter lock, so that it answers while a loop is blocked, and says by what.  What comes
in is bounded, and so are the answers and the number of those who are served at a time.

A question is a line of JSON, {"ctask": 1, "ask": "tasks"}, and so is the answer.  A trace is two
questions on one connection, "trace" with its seconds and "traced": who hangs up in between ends it.
"""

import atexit
import base64
import contextlib
import dataclasses
import json
import os
import selectors
import signal as signals
import socket
import stat
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import ctask
from ctask.observe import graph, trace
from ctask.observe.deadlocks import find_among
from ctask.observe.graph import LoopInfo

PROTOCOL = 1
MAX_QUESTION = 4096
MAX_TASKS = 1000  # of each question, unless it says otherwise
MAX_ANSWER = 16 << 20
MAX_CONNECTIONS = 8
TIMEOUT = 10.0  # for a question to be complete, and for an answer to be taken
MAX_TRACE = 3600.0  # seconds
TRACE_MEMORY = 8 << 20  # bytes of records
MAX_PATH = 107
BLOCKED = 0.1  # seconds in one iteration


def inspect(*, signal: int | None = None) -> None:
    """Let `python -m ctask ps PID` and its relatives ask this process, which is free until they do.

    With a signal's number, as signal.SIGUSR2, only from when the process gets that signal; this is
    for the main thread.  CTASK_INSPECT=1 and CTASK_INSPECT=SIGUSR2 in the environment do the same.
    Who asks has to be the same user.  Calling it twice is harmless.

    Raises OSError if there is no place for the socket, ValueError as signal.signal() does.
    """
    if signal is not None:
        signals.signal(signal, _on_signal)
        return
    _inspector.start()


def inspect_as_told(how: str) -> None:
    """Do what CTASK_INSPECT says; a line on stderr, and nothing else, if that cannot be done."""
    try:
        if how == "1":
            inspect()
        else:
            number = getattr(signals, how, None)
            if not isinstance(number, signals.Signals):
                raise ValueError(f"1 or a signal's name was expected, got {how[:40]!r}")
            inspect(signal=number)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"ctask: CTASK_INSPECT: {error}", file=sys.stderr)


def _on_signal(number: int, frame: FrameType | None) -> None:
    try:
        _inspector.start()
    except (OSError, RuntimeError) as error:
        print(f"ctask: cannot be inspected: {error}", file=sys.stderr)


# ---- the place of the socket ----


def places(uid: int, environ: dict[str, str]) -> Iterator[str]:
    """The directories that may have a user's sockets, the best first."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        yield os.path.join(runtime, "ctask")
    yield f"/tmp/ctask-{uid}"


def make_place() -> str:
    """Make the directory for the socket, or see that it is ours alone.  Raises OSError."""
    refused: list[str] = []
    for place in places(os.geteuid(), dict(os.environ)):
        if len(os.fsencode(place)) > MAX_PATH - len("/4194304.sock"):
            continue
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o700)
            check_place(place)
            return place
        except OSError as error:
            refused.append(str(error))
    raise OSError("; ".join(refused))


def check_place(place: str) -> None:
    """Raise PermissionError if others could have put something into the directory."""
    status = os.lstat(place)
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{place} is not a directory")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{place} belongs to another user")
    if status.st_mode & 0o077:
        raise PermissionError(f"{place} is open to others: chmod 700 {place}")


def _sweep(place: str) -> None:
    """Remove the sockets of processes that are no more."""
    for name in os.listdir(place):
        pid = name.removesuffix(".sock")
        if pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(place, name))


# ---- the thread ----


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end, as the kernel says."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


class Inspector:
    """The socket of this process, its thread, and those that ask."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.path: str | None = None
        self.pid = 0
        self.listener: socket.socket | None = None
        self.thread: threading.Thread | None = None
        self.server: _Server | None = None

    def start(self) -> None:
        """Open the socket and start the thread, unless that has been done."""
        if not self.lock.acquire(blocking=False):
            return  # another thread does it, or this one, under a signal's handler
        try:
            if self.listener is not None:
                return
            place = make_place()
            _sweep(place)
            path = os.path.join(place, f"{os.getpid()}.sock")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a process of this number that was killed
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(path)
                os.chmod(path, 0o600)
                listener.listen(16)
                listener.setblocking(False)
                server = _Server(listener)
                thread = threading.Thread(target=server.serve, name="ctask-inspect", daemon=True)
                thread.start()
            except BaseException:
                listener.close()
                with contextlib.suppress(OSError):
                    os.unlink(path)
                raise
            self.path, self.pid = path, os.getpid()
            self.listener, self.thread, self.server = listener, thread, server
        finally:
            self.lock.release()

    def stop(self) -> None:
        """Close the socket, end the thread and remove the file."""
        listener, thread, path = self.listener, self.thread, self.path
        self.listener = self.thread = self.path = None
        if listener is None or path is None:
            return
        if self.pid == os.getpid():
            if self.server is not None:
                self.server.ending = True
            with contextlib.suppress(OSError):
                os.unlink(path)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # which ends the thread's wait
            if thread is not None and thread is not threading.current_thread():
                thread.join(1)
        listener.close()

    def after_fork(self) -> None:
        """In the child: nothing of the parent's; a socket under the child's own number."""
        serving = self.listener is not None
        self.lock = threading.Lock()
        if self.server is not None:
            self.server.close()
            self.server = None
        self.stop()  # which has another process's number: it closes what is inherited
        if serving:
            try:
                self.start()
            except (OSError, RuntimeError) as error:
                print(f"ctask: the child cannot be inspected: {error}", file=sys.stderr)


class _Connection:
    """One that asks: what has come of its question, and what is left of the answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.came = b""
        self.answer = memoryview(b"")
        self.until = time.monotonic() + TIMEOUT
        self.traces = 0.0  # so many seconds


class _Server:
    """What the thread does."""

    def __init__(self, listener: socket.socket, peer: Callable[[socket.socket], int] = peer_uid):
        self.listener = listener
        self.peer = peer
        self.uid = os.geteuid()
        self.ending = False
        self.connections: set[_Connection] = set()
        # By its address of each loop the iteration that it was seen in, and when that was first.
        self.seen: dict[int, tuple[int, float]] = {}

        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, None)

    def serve(self) -> None:
        while True:
            try:
                if not self.turn():
                    break
            except OSError:
                time.sleep(0.1)  # no memory, no descriptors: it may get better
        self.close()

    def close(self) -> None:
        """Close what is open of it, but the listener."""
        for connection in list(self.connections):
            connection.sock.close()
            if connection.traces:
                trace.drop()
        self.selector.close()

    def turn(self) -> bool:
        now = time.monotonic()
        due = min((one.until for one in self.connections), default=None)
        for key, _ in self.selector.select(None if due is None else max(0.0, due - now)):
            if self.ending:
                return False
            if key.data is None:
                self.accept()
            else:
                self.go_on(key.data)
        now = time.monotonic()
        for connection in [one for one in self.connections if one.until <= now]:
            self.drop(connection)
        return True

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        if self.peer(sock) != self.uid:
            self.refuse(sock, "another user's process")
        elif len(self.connections) >= MAX_CONNECTIONS:
            self.refuse(sock, "too many ask at once: try again")
        else:
            connection = _Connection(sock)
            self.connections.add(connection)
            self.selector.register(sock, selectors.EVENT_READ, connection)

    def refuse(self, sock: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            sock.send(_error(why))
        sock.close()

    def go_on(self, connection: _Connection) -> None:
        try:
            if connection.answer:
                self.send(connection)
            else:
                self.receive(connection)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.drop(connection)

    def receive(self, connection: _Connection) -> None:
        came = connection.sock.recv(MAX_QUESTION)
        connection.came += came
        line, end, rest = connection.came.partition(b"\n")
        if end and len(line) <= MAX_QUESTION:
            answer = self.answer(line, connection)
            connection.came = rest[:MAX_QUESTION]
        elif len(connection.came) > MAX_QUESTION:
            answer = _error("the question is too long")
            connection.came = b""
        elif not came:
            self.drop(connection)
            return
        else:
            return
        connection.answer = memoryview(answer)
        connection.until = time.monotonic() + TIMEOUT
        self.selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        self.send(connection)

    def send(self, connection: _Connection) -> None:
        sent = connection.sock.send(connection.answer)
        connection.answer = connection.answer[sent:]
        if not connection.answer:
            if connection.came:  # who asks more than it waits for is not served for ever
                self.drop(connection)
                return
            connection.until = time.monotonic() + TIMEOUT + connection.traces
            self.selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def drop(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(connection.sock)
        connection.sock.close()
        if connection.traces:
            trace.drop()

    # ---- answers ----

    def answer(self, line: bytes, connection: _Connection) -> bytes:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            return _error("a line of JSON was expected")
        if not isinstance(question, dict):
            return _error("a JSON object was expected")
        if question.get("ctask") != PROTOCOL:
            return _error("another protocol")
        ask = question.get("ask")
        if ask not in ("tasks", "trace", "traced"):
            return _error("an unknown question")
        try:
            if ask == "trace":
                return self.begin_trace(question.get("seconds"), connection)
            if ask == "traced":
                return self.end_trace(connection)
            most = question.get("most", MAX_TASKS)
            if type(most) is not int or not 1 <= most <= graph.MAX_TASKS:
                return _error(f"1 to {graph.MAX_TASKS} tasks can be looked at")
            return _encode(self.look(question.get("deadlocks") is True, most))
        except Exception as error:  # whatever it is, the program goes on, and so do we
            return _error(f"this failed: {type(error).__name__}")

    def begin_trace(self, seconds: Any, connection: _Connection) -> bytes:
        if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_TRACE:
            return _error(f"a trace is of 0 to {MAX_TRACE:.0f} seconds")
        try:
            trace.begin(TRACE_MEMORY)
        except RuntimeError as error:
            return _error(str(error))
        connection.traces = max(1e-3, seconds)
        return _encode({"loops": []})

    def end_trace(self, connection: _Connection) -> bytes:
        raw = trace.end() if connection.traces else None
        connection.traces = 0.0
        if raw is None:
            return _error("its trace has ended already")
        records = base64.b64encode(zlib.compress(raw.records, 1)).decode()
        return _encode({"loops": [], "facts": raw.facts, "records": records})

    def look(self, deadlocks: bool, most: int) -> dict[str, Any]:
        snapshot = graph.snapshot(max_tasks=most)
        loops = [self.with_blocked(loop) for loop in snapshot.loops]
        self.seen = {key: entry for key, entry in self.seen.items() if key in {o.id for o in loops}}
        return {
            "pid": snapshot.pid,
            "when": snapshot.when,
            "loops": loops,
            "deadlocks": [str(one) for one in find_among(most)][:100] if deadlocks else [],
        }

    def with_blocked(self, loop: LoopInfo) -> LoopInfo:
        """The loop, with how long at least it has been in the iteration that it is in."""
        if loop.state != "busy" or "iterations" not in loop.counters:
            self.seen.pop(loop.id, None)
            return loop
        iteration, now = loop.counters["iterations"], time.monotonic()
        before, since = self.seen.get(loop.id, (iteration, now))
        if before != iteration:
            since = now
        self.seen[loop.id] = iteration, since
        while time.monotonic() < since + BLOCKED:
            time.sleep(0.005)
            if graph.iteration_of(loop.id) != iteration:
                return loop
        return dataclasses.replace(loop, blocked=round(time.monotonic() - since, 3))


def _head() -> dict[str, Any]:
    python = sys.version.partition(" ")[0]
    return {"ctask": PROTOCOL, "version": ctask.__version__, "python": python}


def _error(message: str) -> bytes:
    return json.dumps({**_head(), "error": message}).encode() + b"\n"


def _encode(answer: dict[str, Any]) -> bytes:
    """The answer as a line; task by task, for the program to get the interpreter in between."""
    size, loops = 0, []
    for loop in answer.pop("loops"):
        tasks = []
        for task in loop.tasks:
            tasks.append(json.dumps(dataclasses.asdict(task)))
            size += len(tasks[-1])
            if size > MAX_ANSWER:
                break
            graph.give_way(len(tasks))
        left_out = loop.left_out + len(loop.tasks) - len(tasks)
        rest = dataclasses.asdict(dataclasses.replace(loop, tasks=(), left_out=left_out))
        del rest["tasks"]
        loops.append(json.dumps(rest)[:-1] + ', "tasks": [' + ", ".join(tasks) + "]}")
    line = json.dumps({**_head(), **answer})[:-1] + ', "loops": [' + ", ".join(loops) + "]}\n"
    return line.encode()


_inspector = Inspector()
atexit.register(_inspector.stop)
os.register_at_fork(after_in_child=_inspector.after_fork)
