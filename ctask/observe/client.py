"""Ask another process of ours what it waits for: the other end of inspector.py."""

import base64
import contextlib
import errno
import json
import os
import pwd
import socket
import struct
import zlib
from typing import Any

import ctask
from ctask.observe import inspector
from ctask.observe.trace import Raw

TIMEOUT = 30.0
MAX_ANSWER = 4 * inspector.MAX_ANSWER


class AskError(Exception):
    """It was not answered; the message is one line that says what to do."""


def ask(pid: int, *, deadlocks: bool = False, most: int = inspector.MAX_TASKS) -> dict[str, Any]:
    """Return what a process answers, about so many tasks at most.  Raises AskError."""
    _check_user(pid)
    with _connect(pid) as sock:
        return _ask_on(sock, pid, ask="tasks", deadlocks=deadlocks, most=most)


def trace(pid: int, seconds: float) -> Raw:
    """Trace a process for so many seconds, or until Ctrl-C, and return that.  Raises AskError."""
    _check_user(pid)
    with _connect(pid) as sock:
        _ask_on(sock, pid, ask="trace", seconds=seconds)
        with contextlib.suppress(KeyboardInterrupt):
            sock.settimeout(max(0.001, seconds))
            with contextlib.suppress(TimeoutError):
                sock.recv(1, socket.MSG_PEEK)  # it ends earlier if the process does
        sock.settimeout(TIMEOUT)
        answer = _ask_on(sock, pid, ask="traced")
    try:
        return Raw(zlib.decompress(base64.b64decode(answer["records"])), answer["facts"])
    except (ValueError, KeyError, zlib.error):
        raise AskError(f"process {pid} answered something else than ctask does") from None


def _ask_on(sock: socket.socket, pid: int, **question: Any) -> dict[str, Any]:
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(json.dumps({"ctask": inspector.PROTOCOL, **question}).encode() + b"\n")
        line = _receive(sock)  # why it hung up, perhaps
    except TimeoutError:
        raise AskError(
            f"process {pid} did not answer within {TIMEOUT:.0f} s: "
            "it may be stopped, or in a call that keeps the interpreter"
        ) from None
    except OSError:
        line = b""
    if not line.endswith(b"\n"):
        gone = not os.path.exists(f"/proc/{pid}")
        how = "ended while it was asked" if gone else "hung up while it was asked: ask again"
        raise AskError(f"process {pid} {how}")
    return _check_answer(pid, line)


def _receive(sock: socket.socket) -> bytes:
    parts, size = [], 0
    while size < MAX_ANSWER:
        part = sock.recv(1 << 16)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            break
    return b"".join(parts)


def _check_answer(pid: int, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
        protocol = answer["ctask"]
    except (ValueError, KeyError, TypeError):
        raise AskError(f"process {pid} answered something else than ctask does") from None
    if protocol != inspector.PROTOCOL:
        raise AskError(
            f"process {pid} has ctask {str(answer.get('version'))[:20]}, which answers otherwise "
            f"than {ctask.__version__} asks: use the ctask of that process"
        )
    if "error" in answer:
        raise AskError(f"process {pid} answers: {str(answer['error'])[:200]}")
    assert isinstance(answer, dict)
    return answer


# ---- the way there ----


def _check_user(pid: int) -> None:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        raise AskError(f"no process {pid}: pgrep -f NAME finds the number") from None
    if uid != os.geteuid():
        name = _user_name(uid)
        raise AskError(f"process {pid} is {name}'s: ask as that user, as by sudo -u {name}")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _connect(pid: int) -> socket.socket:
    theirs = _environ(pid)
    places = [
        place
        for environ in (theirs, dict(os.environ))
        for place in inspector.places(os.geteuid(), environ)
    ]
    for place in dict.fromkeys(places):
        path = os.path.join(place, f"{pid}.sock")
        if len(os.fsencode(path)) > inspector.MAX_PATH or not os.path.lexists(path):
            continue
        try:
            inspector.check_place(place)
            return _connect_to(path, pid)
        except TimeoutError:
            raise AskError(f"process {pid} does not answer: it may be stopped") from None
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT, None):
                raise AskError(f"process {pid} cannot be asked: {error}") from None
    raise AskError(_how_to_start(pid, theirs))


def _connect_to(path: str, pid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", credentials)[:2] != (pid, os.geteuid()):
            raise OSError("another process has its socket")
    except BaseException:
        sock.close()
        raise
    return sock


def _environ(pid: int) -> dict[str, str]:
    environ = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            name, _, value = os.fsdecode(entry).partition("=")
            environ[name] = value
    return environ


def _how_to_start(pid: int, environ: dict[str, str]) -> str:
    how = environ.get("CTASK_INSPECT", "")
    if how.startswith("SIG"):
        return f"process {pid} opens itself when it gets {how}: kill -{how[3:]} {pid}"
    uses, start = "cannot be asked", "start it with CTASK_INSPECT=1 in the environment"
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as file:
        if "/_ctask." not in file.read():
            uses, start = "does not use ctask", "start it by CTASK_INSPECT=1 python -m ctask ..."
    return f"process {pid} {uses}: {start}, or have it call ctask.inspect()"
