"""Subprocesses: who waits for the exit of a child.

Starting a child and talking to it is asyncio's (subprocess.Popen and transports over the pipes).
The exit is told by a pidfd on every version: no signal handler, no thread for each child, in
whichever thread the loop runs.  Where releases differ in what ends a wait, or in what is left when
starting a child was given up, all have what the newest have.
"""

import asyncio
import collections
import contextlib
import os
import subprocess
import sys
import threading
import warnings
from asyncio import base_subprocess, streams, unix_events
from asyncio import subprocess as subprocesses
from asyncio.log import logger
from typing import Any

from ctask import _ctask, _spawn
from ctask._ctask import sleep

_ReadProto: Any = base_subprocess.ReadSubprocessPipeProto
_WriteProto: Any = base_subprocess.WriteSubprocessPipeProto
_Base: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]

# EventLoop and its create_task: set_class(), once there is the class.
own_class: Any = None
own_create_task: Any = None


def _connects_as_we_do(loop: Any) -> bool:
    """Does the loop connect pipes as ctask's does?"""
    return (
        getattr(loop.connect_read_pipe, "__func__", None) is _connect_read_pipe
        and getattr(loop.connect_write_pipe, "__func__", None) is _connect_write_pipe
    )


_connect_read_pipe = asyncio.SelectorEventLoop.connect_read_pipe
_connect_write_pipe = asyncio.SelectorEventLoop.connect_write_pipe


class _MadeWhenAsked:
    """An attribute that shows the Popen of a child that was started without one.

    What the instance has of this name comes first.
    """

    def __init__(self, make: Any) -> None:
        self._make = make

    def __set_name__(self, owner: Any, name: str) -> None:
        self._name = name

    def __get__(self, transport: Any, owner: Any = None) -> Any:
        if transport is None:
            return self
        value = vars(transport)[self._name] = self._make(transport._popen())
        return value


class _UnixSubprocessTransport(_ctask._ChildTransport, _Base):  # type: ignore[misc]
    """asyncio's, whose wait() ends with the child on every release, and never hangs.

    Its pipes are connected at once, and its protocol is told in the loop's next turn.  asyncio's
    task that does so is made where it could be seen: by a task factory, in debug mode, or by a loop
    that makes tasks or connects pipes in its own way.  What each child runs through is in C
    (src/io/process.c): the methods of _ChildTransport.
    """

    # What most never change.
    _loop: Any = None
    _pid: Any = None
    _returncode: Any = None
    _closed = _finished = False
    _pending_calls: Any = None
    _exit_waiters: Any = ()
    _pipes: dict[int, Any]
    # What subprocess_exec() waits for: a future, or only the loop's next turn.
    _connected: asyncio.Future[None] | None = None
    _connecting: asyncio.Task[Any] | None = None
    _failure: BaseException | None = None
    _waiting: list[asyncio.Future[int]] | None = None
    # Of a child that was started without a Popen: what it would have been given, and the one that
    # somebody asked for.
    _args: Any = None
    _made: Any = None
    _proc: Any = _MadeWhenAsked(lambda popen: popen)
    _extra: Any = _MadeWhenAsked(lambda popen: {} if popen is None else {"subprocess": popen})

    def __init__(
        self,
        loop: Any,
        protocol: Any,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> None:
        inherits = stdin is stdout is stderr is None
        if (
            loop._debug
            or loop._task_factory is not None
            or type(loop).create_task is not own_create_task
            or not (inherits or _connects_as_we_do(loop))
        ):
            waiter = self._connected = loop.create_future()
            super().__init__(
                loop,
                protocol,
                args,
                shell,
                stdin,
                stdout,
                stderr,
                bufsize,
                waiter=waiter,
                extra=extra,
                **kwargs,
            )
            return
        self._extra = {} if extra is None else extra
        self._loop = loop
        self._protocol = protocol
        self._pipes = pipes = {}
        try:
            self._start(args, shell, stdin, stdout, stderr, bufsize, **kwargs)
        except BaseException:
            self.close()
            raise
        proc = self._proc
        self._pid = proc.pid
        self._extra["subprocess"] = proc
        if inherits:
            loop.call_soon(protocol.connection_made, self)
            return
        try:
            if proc.stdin is not None:
                pipes[0] = proto = _WriteProto(self, 0)
                proto.pipe = loop._make_write_pipe_transport(proc.stdin, proto)
            if proc.stdout is not None:
                pipes[1] = proto = _ReadProto(self, 1)
                proto.pipe = loop._make_read_pipe_transport(proc.stdout, proto)
            if proc.stderr is not None:
                pipes[2] = proto = _ReadProto(self, 2)
                proto.pipe = loop._make_read_pipe_transport(proc.stderr, proto)
        except Exception as exc:
            self._failure = exc
            self._pending_calls = collections.deque()  # the protocol is told of nothing
            if proto.pipe is None:
                del pipes[proto.fd]
        else:
            # Behind the pipes' own connection_made(), before anything of theirs or the exit.
            loop.call_soon(protocol.connection_made, self)

    def _start(
        self,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        **kwargs: Any,
    ) -> None:
        self._made = self._proc = _spawn.start(args, shell, stdin, stdout, stderr, bufsize, kwargs)

    def _popen(self) -> Any:
        """Return the child's Popen, which is made if there is none."""
        if self._made is None and self._pid is not None:
            self._made = _spawn.popen(self._args, self._pid, self._returncode)
        return self._made

    async def _connect_pipes(self, waiter: Any) -> None:
        if self._closed:  # given up before this began
            return
        self._connecting = asyncio.current_task()
        try:
            await super()._connect_pipes(waiter)
        finally:
            self._connecting = None
            if self._closed:
                self._abandon_pipes()

    def _give_up(self) -> None:
        """Close, as nobody gets this transport."""
        self.close()
        if self._connecting is not None:
            self._connecting.cancel()
        else:
            self._abandon_pipes()

    def _may_be_killed(self) -> bool:
        """Return False for a child that runs as somebody else."""
        try:
            self._proc.send_signal(0)
        except PermissionError:
            return False
        return True

    def _abandon_pipes(self) -> None:
        """Close the pipes that close() did not see, with a transport or without."""
        if self._proc is None or self._loop.is_closed():  # all is over already
            return
        for fd, file in enumerate((self._proc.stdin, self._proc.stdout, self._proc.stderr)):
            proto = self._pipes.get(fd)
            if proto is not None:
                proto.pipe.close()
            elif file is not None:
                # A transport that was being connected closes it first.
                self._loop.call_soon(file.close)

    def _close_running(self) -> None:
        """Close the pipes and kill the child if it runs: what close() does besides saying so."""
        loop = self._loop
        # They cannot be told by a loop that is closed; their files go with them.
        if self._pipes and (loop is None or not loop.is_closed()):
            for proto in self._pipes.values():
                if proto is not None:
                    proto.pipe.close()
        if self._returncode is None and self._proc is not None and self._proc.poll() is None:
            if loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            # Ended already, or not ours to kill: it runs as somebody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._proc.kill()

    def _status_taken(self) -> int:
        """Return what is known of an exit whose status somebody else took."""
        # Popen has it if close() asked.
        returncode: int | None = self.get_extra_info("subprocess").returncode
        if returncode is None:
            returncode = 255
            logger.warning(
                "child process pid %d exit status already read:  will report returncode 255",
                self._pid,
            )
        return returncode

    def send_signal(self, signal: int) -> None:
        """Send a signal, unless the child has ended.  (asyncio.SubprocessTransport.send_signal)"""
        if self._proc is None or self._returncode is None:
            super().send_signal(signal)


class _Child:
    """A child whose exit is waited for; refers to the pidfd, which is closed with it.

    For loops that are not exactly ours, and where there is no pidfd; else there is what
    _watch_child() makes.
    """

    __slots__ = ("_loop", "_pidfd", "_transport")

    def __init__(self, loop: Any, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(transport._pid)
        except OSError:
            # An old kernel, a sandbox that forbids it, or no descriptor left.  The child runs
            # already: a thread waits for it.
            threading.Thread(
                target=self._wait, name=f"ctask-waitpid-{transport.get_pid()}", daemon=True
            ).start()
        else:
            loop._add_reader(self._pidfd, self._exited)

    def __del__(self) -> None:
        # Also when the loop was closed before the child's end.
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def _wait(self) -> None:
        # The status stays where it is: the loop's thread takes it, so that no signal can be sent
        # to whoever has got the process number since.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._transport.get_pid(), os.WEXITED | os.WNOWAIT)
        # RuntimeError: the loop was closed.  Popen reaps what nobody waited for.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        loop, transport, pid = self._loop, self._transport, self._transport._pid
        if self._pidfd >= 0:
            loop._remove_reader(self._pidfd)
        try:
            returncode = unix_events.waitstatus_to_exitcode(  # type: ignore[attr-defined]
                os.waitpid(pid, 0)[1]
            )
        except ChildProcessError:
            returncode = transport._status_taken()
        # At once, on every version: the process number is free from now on, and nobody may send a
        # signal to whoever gets it next.
        transport._process_exited(returncode)


if sys.version_info >= (3, 14):
    _NO_WATCHER: Any = unix_events._PidfdChildWatcher  # type: ignore[attr-defined]

    def _watcher_of_program(loop: Any) -> Any:
        watcher: Any = loop._watcher  # type: ignore[attr-defined]
        return None if type(watcher) is _NO_WATCHER else watcher

else:
    _NO_WATCHER = asyncio.DefaultEventLoopPolicy.get_child_watcher
    _DEFAULT_WATCHERS = (
        type(None),
        unix_events.PidfdChildWatcher,
        unix_events.ThreadedChildWatcher,
    )

    def _watcher_of_program(loop: Any) -> Any:
        # A watcher of asyncio's that waits for each child as well may go unused; one that takes
        # the exits of all children, or that somebody has written, is the program's choice.
        policy: Any = asyncio.get_event_loop_policy()
        if (
            type(policy).get_child_watcher is _NO_WATCHER
            and type(policy._watcher) in _DEFAULT_WATCHERS
        ):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            watcher = policy.get_child_watcher()
        if not watcher.is_active():
            raise RuntimeError(
                "asyncio.get_child_watcher() is not activated, subprocess support is not installed."
            )
        return watcher


_NOTHING = contextlib.nullcontext()


async def make_subprocess_transport(
    self: Any,
    protocol: Any,
    args: Any,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    bufsize: int,
    extra: Any = None,
    **kwargs: Any,
) -> Any:
    """Start a child; what loop.subprocess_exec() and subprocess_shell() stand on."""
    watcher = _watcher_of_program(self)
    # Up to 3.13 one that takes all children's exits has to be told before there is a new one.
    entered: Any = watcher if hasattr(watcher, "__enter__") else _NOTHING
    with entered:
        transport = _UnixSubprocessTransport(
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            extra,
            **kwargs,
        )
        try:
            if watcher is None:
                _Child(self, transport)
            else:
                watcher.add_child_handler(
                    transport.get_pid(),
                    self._child_watcher_callback,
                    transport,
                )
        except BaseException:
            transport.close()
            raise
    await _until_connected(transport)
    return transport


async def _until_connected(transport: Any) -> None:
    """Wait for what a child's start waits for, and give it up if that fails."""
    try:
        if transport._failure is not None:
            raise transport._failure
        if transport._connected is None:
            await sleep(0)
        else:
            await transport._connected
    except BaseException as exc:
        await _give_up(transport, exc)
        raise


async def _give_up(transport: Any, exc: BaseException) -> None:
    """End a child whose start has failed or was cancelled."""
    if isinstance(exc, (SystemExit, KeyboardInterrupt)):
        return
    transport._give_up()
    # Not for a child that was not killed, which may run for ever; nor in a coroutine that was
    # closed, which cannot wait.
    if transport._may_be_killed() and not isinstance(exc, GeneratorExit):
        await asyncio.shield(transport._wait())


async def subprocess_exec(
    self: Any,
    protocol_factory: Any,
    program: Any,
    *args: Any,
    stdin: Any = subprocess.PIPE,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    **kwargs: Any,
) -> Any:
    """Start a program; return its transport and its protocol.  (asyncio.loop.subprocess_exec)

    asyncio's, with what it calls for most children in one piece.
    """
    if stdin is stdout is stderr is None and not kwargs:
        started = self._start_child(protocol_factory, (program, *args))
        if started is not None:
            try:
                await sleep(0)
            except BaseException as exc:
                await _give_up(started[0], exc)
                raise
            return started
    if kwargs or self._debug or type(self) is not own_class:
        return await super(own_class, self).subprocess_exec(
            protocol_factory, program, *args, stdin=stdin, stdout=stdout, stderr=stderr, **kwargs
        )
    protocol = protocol_factory()
    command = (program, *args)
    make = self._make_subprocess_transport
    if (
        getattr(make, "__func__", None) is not make_subprocess_transport
        or _watcher_of_program(self) is not None
    ):
        return await make(protocol, command, False, stdin, stdout, stderr, 0), protocol
    transport = _UnixSubprocessTransport(self, protocol, command, False, stdin, stdout, stderr, 0)
    try:
        if not self._watch_child(transport, transport._pid):
            _Child(self, transport)
    except BaseException:
        transport.close()
        raise
    if transport._connected is not None or transport._failure is not None:
        await _until_connected(transport)
        return transport, protocol
    try:
        await sleep(0)
    except BaseException as exc:
        await _give_up(transport, exc)
        raise
    return transport, protocol


async def _abandon(transport: Any, exc: BaseException) -> None:
    """End a child whose start was cancelled, and say so: what create_subprocess_exec() has left."""
    try:
        raise exc
    except BaseException:
        await _give_up(transport, exc)
        raise


class _Example:
    """A loop, and a transport without pipes, for asyncio's protocol and Process to be made with."""

    def __init__(self) -> None:
        self.future = object()
        self.pid = object()

    def create_future(self) -> object:
        return self.future

    def get_pid(self) -> object:
        return self.pid

    def get_pipe_transport(self, fd: int) -> None:
        pass


_Protocol: Any = subprocesses.SubprocessStreamProtocol
_Process: Any = subprocesses.Process
_stock_create: Any = subprocesses.create_subprocess_exec
_LIMIT = _stock_create.__kwdefaults__["limit"]


def _makers() -> tuple[Any, ...]:
    """Return what makes a protocol and a Process for a child without pipes."""
    return (
        _Protocol.__new__,
        _Protocol.__init__,
        streams.FlowControlMixin.__init__,
        _Protocol.connection_made,
        _Process.__new__,
        _Process.__init__,
    )


def _read_recipes() -> Any:
    """Return the recipes for the two objects; None if they are not made by asyncio's code.

    A recipe has for each attribute its name and where its value comes from, as the enum in
    src/io/subprocess.c has it.  They are read off two that asyncio's code has made.
    """
    for maker in _MAKERS:
        # None: object's, which are not functions.
        if getattr(maker, "__globals__", None) not in (None, vars(subprocesses), vars(streams)):
            return None
    loop, transport = _Example(), _Example()
    protocol = _Protocol(limit=_LIMIT, loop=loop)
    protocol.connection_made(transport)
    process = _Process(transport, protocol, loop)
    given = (loop.future, loop, transport, protocol, transport.pid)
    return _recipe(protocol, given), _recipe(process, given)


def _recipe(made: Any, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    recipe: list[Any] = []
    for name, value in vars(made).items():
        known = [i for i, it in enumerate(given) if it is value]
        if known:
            recipe += name, 2 + known[0], None
        elif type(value) in (list, collections.deque) and not value:
            recipe += name, 1, type(value)
        elif value is None or type(value) in (bool, int):
            recipe += name, 0, value
        else:
            return None
    return tuple(recipe)


_MAKERS = _makers()
_RECIPES = _read_recipes()


def _look_at_streams() -> Any:
    """Return the recipes; None if a program has changed how the two objects are made."""
    return _RECIPES if _makers() == _MAKERS else None


def set_class(cls: Any) -> None:
    """Have children of this class's loops started in one piece: it is EventLoop."""
    global own_class, own_create_task
    own_class, own_create_task = cls, cls.create_task
    if _spawn.PARTS is not None:
        _ctask._set_child_parts(
            cls,
            cls._make_subprocess_transport,
            cls.subprocess_exec,
            _UnixSubprocessTransport,
            _abandon,
            _Child,
            _watcher_of_program,
            _NO_WATCHER,
            asyncio,
            *_spawn.PARTS,
        )
        _ctask._set_subprocess_parts(
            subprocesses,
            _Protocol,
            _Process,
            _look_at_streams,
            _Protocol.process_exited,
            _Protocol._maybe_close_transport,
            _Protocol.connection_lost,
        )
