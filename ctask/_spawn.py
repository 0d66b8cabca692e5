"""Starting a child: what subprocess.Popen() does for asyncio, without what changes nothing.

start() returns the Popen that the call would have returned: the same attributes, the same audit
events, the same errors, and the child made by the same function of the standard library.  It goes
its own way only for what programs ask for most, and only while subprocess is as the standard
library has it.  What is asked for most of all is started in C, with PARTS, and its Popen is made
once somebody asks for it, by popen().  Called by _process.py; it knows nothing of loops.
"""

import builtins
import contextlib
import functools
import operator
import os
import subprocess
import sys
from io import FileIO
from typing import Any

_module: Any = subprocess
_Popen: Any = subprocess.Popen
_PIPE, _STDOUT, _DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL

# What Popen() calls, of its own and of os.
_NAMES = (
    "__init__",
    "__new__",
    "__setattr__",
    "_execute_child",
    "_get_handles",
    "_get_devnull",
    "_posix_spawn",
    "_close_pipe_fds",
    "_handle_exitstatus",
)
_METHODS = tuple([getattr(_Popen, name) for name in _NAMES])
_methods = operator.attrgetter(*_NAMES)
_functions = operator.attrgetter("posix_spawn", "pipe", "open", "close", "read", "waitpid")
_FUNCTIONS = _functions(os)
_TAKEN = frozenset(("cwd", "env", "start_new_session", "process_group", "pass_fds"))


class _Childless(_Popen):  # type: ignore[misc]
    """A Popen without a child, for the attributes that this release gives each."""

    def _execute_child(self, *args: Any) -> None:
        pass


def _new_attributes() -> dict[str, Any] | None:
    """Return what Popen() leaves in an instance; None if it is not the standard library's."""
    for method in _METHODS:
        # None: object's, which are not functions.
        if getattr(method, "__globals__", None) not in (None, vars(subprocess)):
            return None
    return dict(vars(_Childless((), bufsize=0, universal_newlines=False)))


_ATTRIBUTES = _new_attributes()
_CLOSE_FROM = [(getattr(os, "POSIX_SPAWN_CLOSEFROM", None), 3)]  # from 3.13 on
_RESTORED = [
    int(getattr(subprocess.signal, name))  # type: ignore[attr-defined]
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")
    if hasattr(subprocess.signal, name)  # type: ignore[attr-defined]
]
_VFORK = hasattr(subprocess, "_USE_VFORK")


_NO_ENDS = (-1, -1, -1)
# May Popen() use posix_spawn(), though it closes descriptors?
_SPAWNS = getattr(subprocess, "_HAVE_POSIX_SPAWN_CLOSEFROM", False) and _ATTRIBUTES is not None


def _look_at_popen() -> bool:
    """Is it the standard library's?  If so, its version says so from now on."""
    return bool(_methods(_Popen) == _METHODS)


# For EventLoop._start_child(), which starts a child that inherits all and is given nothing as
# Popen() would by posix_spawn().  None where Popen() would not.
PARTS = (
    (subprocess, os, _Popen, os.posix_spawn, _look_at_popen, _RESTORED, _CLOSE_FROM)
    if _SPAWNS
    else None
)


def popen(args: Any, pid: int, returncode: int | None) -> Any:
    """Return the Popen of such a child."""
    assert _ATTRIBUTES is not None
    process = _Popen.__new__(_Popen)
    attributes = process.__dict__ = _ATTRIBUTES.copy()
    attributes["_waitpid_lock"] = _module.threading.Lock()
    attributes["args"] = args
    attributes["pid"] = pid
    attributes["returncode"] = returncode
    attributes["_child_created"] = attributes["_closed_child_pipe_fds"] = True
    return process


def _is_plain(file: Any) -> bool:
    """Is this inherited, a pipe, /dev/null, a descriptor, or stderr where stdout is?"""
    return file is None or (type(file) is int and file >= _DEVNULL)


def start(
    args: Any,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    bufsize: int,
    kwargs: dict[str, Any],
) -> Any:
    """Start a child and return its Popen.  (subprocess.Popen)

    Raises what Popen() raises.
    """
    inherits = stdin is stdout is stderr is None
    # Is all that Popen() would call what it was when this module was imported?
    if (
        _module.Popen is not _Popen
        or _methods(_Popen) != _METHODS
        or _functions(os) != _FUNCTIONS
        or _ATTRIBUTES is None
        or not (kwargs.keys() <= _TAKEN if kwargs else True)
        or type(bufsize) is not int
        or bufsize != 0
        or not (
            inherits
            or (
                _is_plain(stdin)
                and _is_plain(stdout)
                and _is_plain(stderr)
                and stdin != _STDOUT
                and stdout != _STDOUT
                and (stderr != _STDOUT or stdout is not None)
            )
        )
    ):
        return _module.Popen(
            args,
            shell=shell,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=False,
            bufsize=bufsize,
            **kwargs,
        )
    _module._cleanup()
    process = _Popen.__new__(_Popen)
    attributes = process.__dict__ = _ATTRIBUTES.copy()
    attributes["_waitpid_lock"] = _module.threading.Lock()
    attributes["args"] = args
    if inherits:
        _run(process, args, shell, _NO_ENDS, _NO_ENDS, kwargs)
        attributes["_closed_child_pipe_fds"] = True
        return process
    opened: list[int] = []  # what was opened
    owned: set[int] = set()  # of it what a file closes
    try:
        child = [-1, -1, -1]
        parent = [-1, -1, -1]
        devnull = -1
        for fd, file in enumerate((stdin, stdout, stderr)):
            if file is None:
                continue
            if file == _PIPE:
                ends = os.pipe()
                opened += ends
                child[fd], parent[fd] = ends if fd == 0 else reversed(ends)
            elif file == _DEVNULL:
                if devnull < 0:
                    devnull = attributes["_devnull"] = os.open(os.devnull, os.O_RDWR)
                    opened.append(devnull)
                child[fd] = devnull
            elif file == _STDOUT:
                child[fd] = child[1]
            else:
                child[fd] = file
        # As io.open() makes them; before the child starts, as one that ends quickly could make
        # them unusable.
        for fd, name in enumerate(("stdin", "stdout", "stderr")):
            if parent[fd] >= 0:
                attributes[name] = FileIO(parent[fd], "r" if fd else "w")
                owned.add(parent[fd])
        _run(process, args, shell, child, parent, kwargs)
    except BaseException:
        for name in ("stdin", "stdout", "stderr"):
            if attributes[name] is not None:
                attributes[name].close()
        for fd in opened:
            if fd not in owned:
                with contextlib.suppress(OSError):
                    os.close(fd)
        raise
    attributes["_closed_child_pipe_fds"] = True
    for fd in opened:
        if fd not in owned:
            os.close(fd)
    return process


def _run(
    process: Any, args: Any, shell: bool, child: Any, parent: Any, kwargs: dict[str, Any]
) -> None:
    """Start the program and set the pid.  Raises what Popen() raises."""
    if type(args) is tuple:
        args = list(args)
    elif isinstance(args, (str, bytes)):
        args = [args]
    elif isinstance(args, os.PathLike):
        if shell:
            raise TypeError("path-like args is not allowed when shell is true")
        args = [args]
    else:
        args = list(args)
    if shell:
        args = ["/bin/sh", "-c", *args]
    executable = args[0]
    cwd, env = (kwargs.get("cwd"), kwargs.get("env")) if kwargs else (None, None)
    sys.audit("subprocess.Popen", executable, args, cwd, env)
    has_folder = "/" in executable if type(executable) is str else bool(os.path.dirname(executable))
    if (
        has_folder
        and _module._USE_POSIX_SPAWN
        and getattr(_module, "_HAVE_POSIX_SPAWN_CLOSEFROM", False)
        and (not kwargs or _is_simple(kwargs))
        and (
            child is _NO_ENDS
            or not (0 <= child[0] <= 2 or 0 <= child[1] <= 2 or 0 <= child[2] <= 2)
        )
    ):
        # The parent's ends go with what is closed from 3 on.
        actions: list[Any] = _CLOSE_FROM
        if child is not _NO_ENDS:
            dup2 = os.POSIX_SPAWN_DUP2
            actions = [(dup2, fd, to) for to, fd in enumerate(child) if fd != -1] + actions
        process.pid = os.posix_spawn(
            executable, args, env, setsigdef=_RESTORED, file_actions=actions
        )
        process._child_created = True
    else:
        _fork(process, executable, has_folder, args, child, parent, kwargs)


def _is_simple(kwargs: dict[str, Any]) -> bool:
    """May the child be made by posix_spawn()?  Where Popen() would do so."""
    return (
        kwargs.get("cwd") is None
        and not kwargs.get("pass_fds")
        and not kwargs.get("start_new_session")
        and kwargs.get("process_group") in (None, -1)
    )


def _fork(
    process: Any,
    executable: Any,
    has_folder: bool,
    args: list[Any],
    child: Any,
    parent: Any,
    kwargs: dict[str, Any],
) -> None:
    """Start the program as Popen() does where posix_spawn() cannot."""
    cwd, env = kwargs.get("cwd"), kwargs.get("env")
    group = kwargs.get("process_group")
    reading, writing = os.pipe()  # tells why the child could not run the program
    low = []
    while writing < 3:  # where the child's own are put
        low.append(writing)
        writing = os.dup(writing)
    for fd in low:
        os.close(fd)
    try:
        try:
            variables = None if env is None else _variables(env)
            program = os.fsencode(executable)
            if has_folder:
                candidates: tuple[bytes, ...] = (program,)
            elif env is None:
                candidates = _candidates(os.environ.get("PATH", os.defpath), program)
            else:
                candidates = tuple(
                    [os.path.join(os.fsencode(f), program) for f in os.get_exec_path(env)]
                )
            kept: tuple[int, ...] = (writing,)
            if "pass_fds" in kwargs:
                passed = set(kwargs["pass_fds"])
                passed.add(writing)
                kept = tuple(sorted(map(int, passed)))
            process.pid = _module._fork_exec(
                args,
                candidates,
                True,
                kept,
                cwd,
                variables,
                child[0],
                parent[0],
                parent[1],
                child[1],
                parent[2],
                child[2],
                reading,
                writing,
                True,
                kwargs.get("start_new_session", False),
                -1 if group is None else group,
                None,
                None,
                None,
                -1,
                None,
                *((_module._USE_VFORK,) if _VFORK else ()),
            )
            process._child_created = True
        finally:
            os.close(writing)
        told = os.read(reading, 4096)
        if told:
            while part := os.read(reading, 50000):
                told += part
                if len(told) > 50000:
                    break
    finally:
        os.close(reading)
    if told:
        _raise_childs_error(process, told, executable, cwd)


def _variables(env: Any) -> list[bytes]:
    variables = []
    for key, value in env.items():
        name = os.fsencode(key)
        if b"=" in name:
            raise ValueError("illegal environment variable name")
        variables.append(name + b"=" + os.fsencode(value))
    return variables


def _list_candidates(path: str, program: bytes) -> tuple[bytes, ...]:
    """Return where a program without a folder may be, in the order in which it is tried."""
    return tuple([os.path.join(os.fsencode(folder), program) for folder in path.split(os.pathsep)])


_candidates: Any = functools.lru_cache(maxsize=64)(_list_candidates)

# Does this release tell a folder that cannot be entered from what else fails ahead of exec?
_code = getattr(getattr(subprocess.Popen, "_execute_child", None), "__code__", None)
_TELLS_OF_FOLDER = _code is None or "noexec:chdir" in _code.co_consts


def _raise_childs_error(process: Any, told: bytes, executable: Any, cwd: Any) -> None:
    """Reap the child that could not run its program, and raise why."""
    try:
        pid, status = os.waitpid(process.pid, 0)
        if pid == process.pid:
            process._handle_exitstatus(status)
        else:
            process.returncode = sys.maxsize
    except ChildProcessError:
        pass
    try:
        name, number, text = told.split(b":", 2)
        message = text.decode()
    except ValueError:
        name, number = b"SubprocessError", b"0"
        message = f"Bad exception data from child: {told!r}"
    kind: Any = getattr(builtins, name.decode("ascii"), subprocess.SubprocessError)
    if not issubclass(kind, OSError) or not number:
        raise kind(message)
    error = int(number, 16)
    where = executable
    if message == "noexec:chdir":
        message, where = "", cwd
    elif message == "noexec":
        message, where = "", None if _TELLS_OF_FOLDER else cwd
    if error != 0:
        message = os.strerror(error)
    if where is None and _TELLS_OF_FOLDER:
        raise kind(error, message)
    raise kind(error, message, where)
