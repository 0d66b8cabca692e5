"""What of TLS happens once per connection: ctask.SSLProtocol is put below the protocol."""

import asyncio
import contextvars
import socket
import ssl
from asyncio import sslproto
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

from ctask import _ctask

_stock_protocol = sslproto.SSLProtocol
_stock_methods = dict(vars(_stock_protocol))
_stock_make_ssl_transport: Any = vars(BaseSelectorEventLoop)["_make_ssl_transport"]
_stock_start_tls: Any = asyncio.BaseEventLoop.start_tls
_stock_create_connection_transport: Any = vars(asyncio.BaseEventLoop)[
    "_create_connection_transport"
]
_stock_accept_connection2: Any = vars(BaseSelectorEventLoop)["_accept_connection2"]


def _is_patched() -> bool:
    """Has a program put something of its own into asyncio's TLS?  Then it is to be called."""
    return sslproto.SSLProtocol is not _stock_protocol or vars(_stock_protocol) != _stock_methods


def make_ssl_transport(
    loop: Any,
    rawsock: socket.socket,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext | None,
    waiter: asyncio.Future[Any] | None = None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    extra: dict[str, Any] | None = None,
    server: Any = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    context: contextvars.Context | None = None,
) -> asyncio.Transport:
    """Return the transport of a TLS connection over a connected socket.

    `context` is what callbacks run in, if the loop that asks has one for them (3.15).
    """
    given: dict[str, Any] = {} if context is None else {"context": context}
    if _is_patched():
        return _stock_make_ssl_transport(  # type: ignore[no-any-return]
            loop,
            rawsock,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            extra=extra,
            server=server,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            **given,
        )
    loop._ensure_fd_no_transport(rawsock)
    tls = _ctask.SSLProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side,
        server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    loop._make_socket_transport(rawsock, tls, extra=extra, server=server, **given)
    return tls._app_transport


async def _forgetting(coro: Any) -> Any:
    """Run a coroutine of asyncio, and then empty its frame.

    Up to 3.13 one of its variables is the future that a failed handshake gave its exception, which
    refers to the frame.
    """
    frame = coro.cr_frame
    try:
        return await coro
    finally:
        frame.clear()
        del frame  # its caller is this one


def create_connection_transport(
    loop: Any, sock: socket.socket, factory: Any, ssl: Any, *args: Any, **options: Any
) -> Any:
    """Return a coroutine that makes a transport and a protocol, as asyncio's does.

    Early releases leave the socket open if the factory raises.
    """

    def make_protocol() -> Any:
        try:
            return factory()
        except BaseException:
            sock.close()
            raise

    coro = _stock_create_connection_transport(loop, sock, make_protocol, ssl, *args, **options)
    return _forgetting(coro) if ssl else coro


def accept_connection2(
    loop: Any, factory: Any, conn: socket.socket, extra: Any, *args: Any, **options: Any
) -> Any:
    """Return a coroutine that makes an accepted connection's, as asyncio's does."""
    coro = _stock_accept_connection2(loop, factory, conn, extra, *args, **options)
    return _forgetting(coro) if args[:1] != (None,) else coro


async def start_tls(
    loop: Any,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> asyncio.Transport:
    """Have what goes over `transport` encrypted from now on; return the transport to use instead.

    Raises TypeError for a transport or a context that cannot, OSError if the handshake fails.
    """
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    if _is_patched():
        return await _stock_start_tls(  # type: ignore[no-any-return]
            loop,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
    waiter = loop.create_future()
    tls = _ctask.SSLProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side,
        server_hostname,
        call_connection_made=False,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    # Nothing may come before connection_made().
    transport.pause_reading()
    if server_side:
        _take_early(protocol, tls)
    transport.set_protocol(tls)
    made = loop.call_soon(tls.connection_made, transport)
    resumed = loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        transport.close()
        made.cancel()
        resumed.cancel()
        waiter = None  # its exception refers to this frame
        raise
    return tls._app_transport


def _take_early(protocol: Any, tls: _ctask.SSLProtocol) -> None:
    """What a client sent right behind its request for TLS belongs to the handshake.

    Left in the StreamReader it would pass for what comes encrypted afterwards.
    """
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        reader = getattr(protocol, "_stream_reader", None)
        if reader is not None and reader._buffer:
            tls._feed(bytes(reader._buffer))
            reader._buffer.clear()
