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
import sys
import threading
import types
import warnings
from asyncio import base_subprocess, unix_events
from asyncio.log import logger
from collections.abc import Generator
from typing import Any

from ctask import _spawn

_ReadProto: Any = base_subprocess.ReadSubprocessPipeProto
_WriteProto: Any = base_subprocess.WriteSubprocessPipeProto
_Base: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]


# EventLoop.create_task, which _loop.py sets once the class has it.
own_create_task: Any = None


def _connects_as_we_do(loop: Any) -> bool:
    """Does the loop connect pipes as ctask's does?"""
    return (
        getattr(loop.connect_read_pipe, "__func__", None) is _connect_read_pipe
        and getattr(loop.connect_write_pipe, "__func__", None) is _connect_write_pipe
    )


_connect_read_pipe = asyncio.SelectorEventLoop.connect_read_pipe
_connect_write_pipe = asyncio.SelectorEventLoop.connect_write_pipe


class _UnixSubprocessTransport(_Base):  # type: ignore[misc]
    """asyncio's, whose wait() ends with the child on every release, and never hangs.

    Its pipes are connected at once, and its protocol is told in the loop's next turn.  asyncio's
    task that does so is made where it could be seen: by a task factory, in debug mode, or by a loop
    that makes tasks or connects pipes in its own way.
    """

    # asyncio's, whose types its stubs do not show.
    _proc: Any
    _returncode: Any
    _pipes: dict[int, Any]
    _pending_calls: Any
    _exit_waiters: Any

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
        # What subprocess_exec() waits for: a future, or only the loop's next turn.
        self._connected: asyncio.Future[None] | None = None
        self._waiting: set[asyncio.Future[int]] = set()
        self._connecting: asyncio.Task[Any] | None = None
        self._failure: BaseException | None = None
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
        self._closed = self._finished = False
        self._protocol = protocol
        self._loop = loop
        self._proc = self._pid = self._returncode = None
        self._exit_waiters = ()
        self._pending_calls = None
        self._pipes = {}
        try:
            self._start(args, shell, stdin, stdout, stderr, bufsize, **kwargs)
        except BaseException:
            self.close()
            raise
        proc = self._proc
        self._pid = proc.pid
        self._extra["subprocess"] = proc
        pipes = self._pipes
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
        self._proc = _spawn.start(args, shell, stdin, stdout, stderr, bufsize, kwargs)

    def _process_exited(self, returncode: int) -> None:
        loop = self._loop
        if loop._debug or self._pending_calls is not None:
            super()._process_exited(returncode)
            return
        assert self._returncode is None, self._returncode
        self._returncode = returncode
        if self._proc.returncode is None:
            self._proc.returncode = returncode
        loop.call_soon(self._protocol.process_exited)
        self._try_finish()

    async def _wait(self) -> int:
        if self._returncode is None:
            waiter = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        returncode: int = self._returncode
        return returncode

    def _try_finish(self) -> None:
        if self._returncode is None:
            return
        # Here, as this comes behind process_exited() and before connection_lost(), which up to
        # 3.13.0 had to come first: it never does when the pipes were not all connected, nor as
        # long as a grandchild has them.
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(self._returncode)
        for proto in self._pipes.values():
            if proto is None or not proto.disconnected:
                return
        self._finished = True
        self._call(self._call_connection_lost, None)

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

    def close(self) -> None:
        """Close the pipes and kill the child if it runs.  (asyncio.SubprocessTransport.close)"""
        if self._closed:
            return
        self._closed = True
        loop = self._loop
        # They cannot be told by a loop that is closed; their files go with them.
        if loop is None or not loop.is_closed():
            for proto in self._pipes.values():
                if proto is not None:
                    proto.pipe.close()
        if self._returncode is None and self._proc is not None and self._proc.poll() is None:
            if loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            # Ended already, or not ours to kill: it runs as somebody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._proc.kill()

    def send_signal(self, signal: int) -> None:
        """Send a signal, unless the child has ended.  (asyncio.SubprocessTransport.send_signal)"""
        if self._proc is None or self._returncode is None:
            super().send_signal(signal)


class _Child:
    """A child whose exit is waited for; refers to the pidfd, which is closed with it."""

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
            # Popen has it if transport.close() asked; otherwise somebody else took it.
            returncode = transport.get_extra_info("subprocess").returncode
            if returncode is None:
                returncode = 255
                logger.warning(
                    "child process pid %d exit status already read:  will report returncode 255",
                    pid,
                )
        # At once, on every version: the process number is free from now on, and nobody may send a
        # signal to whoever gets it next.
        transport._process_exited(returncode)


if sys.version_info >= (3, 14):

    def _watcher_of_program(loop: Any) -> Any:
        watcher: Any = loop._watcher  # type: ignore[attr-defined]
        default = unix_events._PidfdChildWatcher  # type: ignore[attr-defined]
        return None if type(watcher) is default else watcher

else:
    _Policy: Any = asyncio.DefaultEventLoopPolicy
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
            type(policy).get_child_watcher is _Policy.get_child_watcher
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


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Let the loop run what is ready."""
    yield


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
    try:
        if transport._failure is not None:
            raise transport._failure
        if transport._connected is None:
            await _turn()
        else:
            await transport._connected
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        transport._give_up()
        # Not for a child that was not killed, which may run for ever; nor in a coroutine that was
        # closed, which cannot wait.
        if transport._may_be_killed() and not isinstance(exc, GeneratorExit):
            await asyncio.shield(transport._wait())
        raise
    return transport
