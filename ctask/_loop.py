"""The event loop: the C core over what asyncio's own loop does once per program."""

import asyncio
import contextvars
import os
import selectors
import socket
import sys
import threading
import weakref
from asyncio import constants, events, unix_events
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from ctask import _ctask, _dns, _process
from ctask._ready import ReadyQueue

# Who runs a program to its end calls this; run_forever() alone may be but a turn.
_RUN_UNTIL_COMPLETE = asyncio.BaseEventLoop.run_until_complete.__code__
_DATAGRAM_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

try:
    from ctask import _tls
except ImportError:  # a Python without ssl
    _tls = None  # type: ignore[assignment]


# Called with a loop that begins to run and with one that was closed, while loops are watched
# (ctask/observe/watch.py).
on_run: Callable[["EventLoop"], None] | None = None
on_close: Callable[["EventLoop"], None] | None = None


class EventLoop(_ctask.Loop, asyncio.SelectorEventLoop):
    """An event loop that is C wherever something happens per event.

    Stands for asyncio.SelectorEventLoop, which it derives from.  Raises OSError if the process has
    no file descriptors left for it.
    """

    # What asyncio's constructors set, in one version or another.  As slots they leave the
    # instance without a dictionary, and then the interpreter finds the methods faster; other
    # attributes may be set all the same.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_clock_resolution",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_csock",
        "_default_executor",
        "_exception_handler",
        "_executor_shutdown_called",
        "_internal_fds",
        "_old_agen_hooks",
        "_selector",
        "_signal_handlers",
        "_ssock",
        "_timer_cancelled_count",
        "_transports",
        "_unix_server_sockets",
        "_watcher",
        "slow_callback_duration",
    )

    if TYPE_CHECKING:  # what asyncio's loop has and its stubs do not show
        _ssock: Any
        _csock: Any
        _transports: Any

        def _check_running(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...
        def _getaddrinfo_debug(
            self, host: Any, port: Any, family: int, type: int, proto: int, flags: int
        ) -> Any: ...

    def __init__(self) -> None:
        super().__init__(_Selector(self))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        cls = type(self)
        name = "ctask.EventLoop" if cls is EventLoop else f"{cls.__name__} (ctask.EventLoop)"
        return (
            f"<{name} running={self.is_running()} closed={self.is_closed()} "
            f"debug={self.get_debug()}>"
        )

    @property
    def _ready(self) -> ReadyQueue:
        return ReadyQueue(self)

    @_ready.setter
    def _ready(self, empty: Any) -> None:
        """Do nothing: asyncio's __init__ puts an empty deque there."""

    def run_forever(self) -> None:
        """Run until stop() is called.

        Raises RuntimeError if this or another loop runs in the thread.
        """
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            # Where tasks look, should a program have replaced the function above.
            _ctask._set_running_loop(self)
            if on_run is not None:
                on_run(self)
            self._run()
        finally:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            _ctask._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)
            if self._debug and sys._getframe(1).f_code is _RUN_UNTIL_COMPLETE:
                from ctask import _messages

                _messages.report_deadlocks(self)

    def close(self) -> None:
        """Close the loop: forget what is scheduled, close its descriptors, let the executor go.

        Raises RuntimeError while the loop runs; closing it twice is harmless.
        """
        super().close()
        self._release()
        if on_close is not None:
            on_close(self)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log the message and the context, as asyncio's loop does.

        Of a task or future it says as well where it was created, and of a task that is pending what
        it waits for, and where.
        """
        from ctask import _messages

        super().default_exception_handler(_messages.explain(context))

    # The policy may let go of a loop when the interpreter ends, after asyncio's modules and this
    # one were emptied; asyncio's __del__() fails then.
    def __del__(self, _asyncio: Any = unix_events) -> None:
        if _asyncio.sys is not None:
            super().__del__()

    # Transports.  asyncio makes them through these hooks.

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        owner = self._owner(fd)
        if owner is not None and not owner.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {owner!r}")
        super()._ensure_fd_no_transport(fd)  # type: ignore[misc]

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.Server | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Transport:
        if not self._is_plain_socket(
            sock
        ):  # one with methods of its own, or a stand-in: they are called
            contexts = {} if context is None else {"context": context}
            return super()._make_socket_transport(  # type: ignore
                sock, protocol, waiter, extra=extra, server=server, **contexts
            )
        self._ensure_fd_no_transport(sock)
        return self._make_stream(sock, protocol, waiter, extra, server, context)

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.DatagramTransport:
        if not self._is_plain_socket(sock) or sock.family not in _DATAGRAM_FAMILIES:
            return super()._make_datagram_transport(  # type: ignore[misc,no-any-return]
                sock, protocol, address, waiter, extra
            )
        self._ensure_fd_no_transport(sock)
        return self._make_datagram(sock, protocol, address, waiter, extra)

    if sys.version_info < (3, 13):

        async def create_datagram_endpoint(  # type: ignore[override]
            self,
            protocol_factory: Callable[[], Any],
            local_addr: Any = None,
            remote_addr: Any = None,
            *,
            family: int = 0,
            proto: int = 0,
            flags: int = 0,
            reuse_port: bool | None = None,
            allow_broadcast: bool | None = None,
            sock: Any = None,
        ) -> Any:
            """Return a transport for datagrams, and its protocol."""
            given = (local_addr, remote_addr, family, proto, flags, reuse_port, allow_broadcast)
            kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            if sock is None or sock.type in kinds or any(given):
                return await super().create_datagram_endpoint(
                    protocol_factory,
                    local_addr,
                    remote_addr,
                    family=family,
                    proto=proto,
                    flags=flags,
                    reuse_port=reuse_port,
                    allow_broadcast=allow_broadcast,
                    sock=sock,
                )
            # A raw socket, which early releases refuse.
            sock.setblocking(False)
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_datagram_transport(sock, protocol, None, waiter)
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
            return transport, protocol

    def _start_serving(  # type: ignore[no-untyped-def]
        self,
        protocol_factory,
        sock,
        sslcontext=None,
        server=None,
        backlog=100,
        ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT,
        context=None,
    ) -> None:
        if sock.fileno() == -1:
            return  # closed while it waited for descriptors to become free
        # From 3.15 on asyncio gives the context that protocols are called in.
        contexts = () if context is None else (context,)
        timeouts = (ssl_handshake_timeout, ssl_shutdown_timeout)
        arguments = (protocol_factory, sock, sslcontext, server, backlog, *timeouts, *contexts)
        if (
            sslcontext is not None
            or self._debug
            or server is None
            or not self._is_plain_socket(sock)
            or self._accepts_otherwise()
        ):
            super()._start_serving(*arguments)  # type: ignore[misc]
        else:
            self._accept_streams(protocol_factory, sock, server, backlog, arguments, *contexts)

    def _accepts_otherwise(self) -> bool:
        """Does a subclass replace a step of asyncio's way from connection to transport?"""
        cls = type(self)
        return cls is not EventLoop and any(
            getattr(cls, name) is not getattr(EventLoop, name)
            for name in ("_accept_connection", "_accept_connection2", "_make_socket_transport")
        )

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file, and return how many bytes were sent.

        Raises RuntimeError for a transport that is closing or cannot send files, and, with
        `fallback` False, SendfileNotAvailableError where the system call cannot be used.
        """
        mode = getattr(transport, "_sendfile_compatible", None)
        if not fallback and mode is constants._SendfileMode.FALLBACK and not transport.is_closing():
            raise asyncio.SendfileNotAvailableError(
                f"fallback is disabled and native sendfile is not supported "
                f"for transport {transport!r}"
            )
        return await super().sendfile(transport, file, offset, count, fallback=fallback)

    async def _sendfile_native(
        self, transp: asyncio.Transport, file: BinaryIO, offset: int, count: int
    ) -> int:
        if not isinstance(transp, _ctask.StreamTransport):
            return await super()._sendfile_native(transp, file, offset, count)  # type: ignore
        reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        sock = transp._lend()
        try:
            return await self.sock_sendfile(sock, file, offset, count, fallback=False)
        finally:
            transp._take_back()
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    def _sock_sendfile_native_impl(
        self, fut: asyncio.Future[int], registered_fd: int | None, sock: socket.socket, *rest: Any
    ) -> None:
        # There is no flag for one call: it would wait, had somebody the file block meanwhile.
        if sock.gettimeout() == 0 and sock.fileno() >= 0:
            os.set_blocking(sock.fileno(), False)
        super()._sock_sendfile_native_impl(fut, registered_fd, sock, *rest)  # type: ignore

    # Early releases send from where the file is when the offset is 0, and leave a position that
    # says nothing when nothing was sent.

    async def _sendfile_fallback(
        self, transp: asyncio.Transport, file: BinaryIO, offset: int, count: int
    ) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)
        return await super()._sendfile_fallback(transp, file, offset, count)  # type: ignore

    async def _sock_sendfile_fallback(
        self, sock: socket.socket, file: BinaryIO, offset: int, count: int
    ) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)
        return await super()._sock_sendfile_fallback(sock, file, offset, count)  # type: ignore

    def _sock_sendfile_update_filepos(self, fileno: int, offset: int, *_sent: int) -> None:
        os.lseek(fileno, offset, os.SEEK_SET)

    getaddrinfo = _dns.getaddrinfo
    getnameinfo = _dns.getnameinfo
    _make_subprocess_transport = _process.make_subprocess_transport
    subprocess_exec = _process.subprocess_exec

    if _tls is not None:
        _make_ssl_transport = _tls.make_ssl_transport
        start_tls = _tls.start_tls
        if sys.version_info < (3, 14):
            _create_connection_transport = _tls.create_connection_transport
            _accept_connection2 = _tls.accept_connection2

    # Signals come through a pair of sockets, as asyncio's own.  Other wake-ups do not need them,
    # so they are made when the first handler is added.

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Have `callback(*args)` called in the loop when the signal arrives.

        Raises ValueError, RuntimeError and TypeError as asyncio.loop.add_signal_handler does.
        """
        if self._csock is None and not self.is_closed():
            try:
                super()._make_self_pipe()  # type: ignore[misc]
            except BaseException:  # or nobody would read of the next handler's signals
                self._close_self_pipe()
                raise
        super().add_signal_handler(sig, callback, *args)

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()  # type: ignore[misc]


EventLoop._adopt_methods()
_process.set_class(EventLoop)


class _Selector:
    """What is left of `loop._selector`: polling is in C, and others ask what is polled.

    Who runs the loop's iterations by other code than ours (nest_asyncio) waits by select().
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._map: _Watched | None = _Watched(loop)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return who watches a descriptor; raises KeyError if nobody does."""
        if self._map is None:
            raise RuntimeError("Selector is closed")
        return self._map[fileobj]

    def get_map(self) -> "_Watched | None":
        """Return what is watched, by descriptor; None once the loop is closed."""
        return self._map

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for descriptors, make their handles ready, and return [] as nothing is left."""
        loop = self._loop()
        if loop is not None:
            _ctask.Loop._poll(loop, timeout)
        return []

    def close(self) -> None:
        """Forget what is watched; the loop closes its descriptors itself."""
        self._map = None


class _Watched(Mapping[Any, selectors.SelectorKey]):
    """What a loop watches: selectors.SelectorKey by descriptor, or by the object registered."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = weakref.ref(loop)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[int]:
        loop = self._loop()
        return iter(() if loop is None else loop._descriptors())

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        loop = self._loop()
        watched = None if loop is None else loop._watched(fileobj)
        if watched is None:
            raise KeyError(f"{fileobj!r} is not registered")
        registered, fd, reader, writer = watched
        events = (selectors.EVENT_READ if reader is not None else 0) | (
            selectors.EVENT_WRITE if writer is not None else 0
        )
        return selectors.SelectorKey(registered, fd, events, (reader, writer))


def new_event_loop() -> EventLoop:
    """Return a new event loop: a loop factory for asyncio.Runner, uvicorn and others."""
    return EventLoop()
