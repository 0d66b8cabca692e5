"""Subprocesses: who waits for the exit of a child.

Starting a child and talking to it is asyncio's (subprocess.Popen and transports over the pipes).
The exit is told by a pidfd on every version: no signal handler, no thread for each child, in
whichever thread the loop runs.
"""

import asyncio
import contextlib
import os
import sys
import threading
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctask._loop import EventLoop

_Transport: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]
# What EventLoop derives from, whoever replaces the name in asyncio later.
_AsyncioLoop = asyncio.SelectorEventLoop


class _Child:
    """A child whose exit is waited for; refers to the pidfd, which is closed with it."""

    __slots__ = ("_loop", "_pidfd", "_transport")

    def __init__(self, loop: "EventLoop", transport: Any) -> None:
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

    def _is_watched_by_program(loop: "EventLoop") -> bool:
        return type(loop._watcher) is not unix_events._PidfdChildWatcher  # type: ignore[attr-defined]

else:
    _Policy: Any = asyncio.DefaultEventLoopPolicy
    _DEFAULT_WATCHERS = (
        type(None),
        unix_events.PidfdChildWatcher,
        unix_events.ThreadedChildWatcher,
    )

    def _is_watched_by_program(loop: "EventLoop") -> bool:
        # A watcher of asyncio's that waits for each child as well may go unused; one that takes
        # the exits of all children, or that somebody has written, is the program's choice.
        policy: Any = asyncio.get_event_loop_policy()
        return (
            type(policy).get_child_watcher is not _Policy.get_child_watcher
            or type(policy._watcher) not in _DEFAULT_WATCHERS
        )


async def make_subprocess_transport(
    self: "EventLoop",
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
    if _is_watched_by_program(self):
        return await _AsyncioLoop._make_subprocess_transport(  # type: ignore[attr-defined]
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra, **kwargs
        )
    waiter = self.create_future()
    transport = _Transport(
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
        _Child(self, transport)
    except BaseException:
        transport.close()
        raise
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await asyncio.shield(transport._wait())
        raise
    return transport
