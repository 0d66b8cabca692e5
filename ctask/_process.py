"""Subprocesses: who waits for the exit of a child.

Starting a child and talking to it is asyncio's (subprocess.Popen and transports over the pipes).
The exit is told by a pidfd on every version: no signal handler, no thread for each child, in
whichever thread the loop runs.  Where releases differ in what ends a wait, or in what is left when
starting a child was given up, all have what the newest have.
"""

import asyncio
import contextlib
import os
import sys
import threading
import warnings
from asyncio import unix_events
from asyncio.log import logger
from typing import Any

_Base: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]


class _UnixSubprocessTransport(_Base):  # type: ignore[misc]
    """asyncio's, whose wait() ends with the child on every release, and never hangs."""

    _pipes: dict[int, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._waiting: set[asyncio.Future[int]] = set()
        self._connecting: asyncio.Task[Any] | None = None
        super().__init__(*args, **kwargs)

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
        # Here, as this comes behind process_exited() and before connection_lost(), which up to
        # 3.13.0 had to come first: it never does when the pipes were not all connected, nor as
        # long as a grandchild has them.
        if self._returncode is not None:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(self._returncode)
        super()._try_finish()

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
        pipes = self._pipes
        if self._loop is not None and self._loop.is_closed():
            self._pipes = {}  # they cannot be told any more; their files go with them
        try:
            # Not ours to kill: it runs as somebody else.
            with contextlib.suppress(PermissionError):
                super().close()
        finally:
            self._pipes = pipes

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
            self._pidfd = os.pidfd_open(transport.get_pid())
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
        loop, transport, pid = self._loop, self._transport, self._transport.get_pid()
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
    waiter = self.create_future()
    # Up to 3.13 one that takes all children's exits has to be told before there is a new one.
    entered: Any = watcher if hasattr(watcher, "__enter__") else contextlib.nullcontext()
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
            waiter=waiter,
            extra=extra,
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
        await waiter
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
