"""Name resolution: what needs no name server is answered at once, the rest by the executor.

asyncio sends every getaddrinfo() and getnameinfo() to a thread.  An address that is written in
numbers needs no look-up; the C library answers for it without waiting for anything.
"""

import asyncio
import socket
from typing import Any

# Only the C library's own answer is known not to wait.  Who replaces socket.getaddrinfo (with a
# caching or a blocking resolver, with a mock) has it called where asyncio calls it: in a thread.
_getaddrinfo = socket.getaddrinfo
_getnameinfo = socket.getnameinfo
# What EventLoop derives from, whoever replaces the name in asyncio later.
_AsyncioLoop = asyncio.SelectorEventLoop
_NUMBERS_ONLY = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def _is_number(port: Any) -> bool:
    # A name ("http") is looked up in a data base of services.
    if port is None or type(port) is int:
        return True
    return type(port) in (str, bytes) and port.isdigit() and port.isascii()


def _is_address(host: Any) -> bool:
    if host is None:
        return True
    if type(host) is bytes:
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if type(host) is not str:
        return False
    try:
        if ":" in host:
            # The zone ("fe80::1%eth0") names one of this machine's interfaces.
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


async def getaddrinfo(
    self: Any,
    host: Any,
    port: Any,
    *,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> Any:
    """Return what socket.getaddrinfo() returns; names are looked up in the default executor.

    Raises socket.gaierror as that does.  (asyncio.loop.getaddrinfo)
    """
    if _is_number(port) and _is_address(host) and socket.getaddrinfo is _getaddrinfo:
        self._check_closed()
        function = self._getaddrinfo_debug if self._debug else _getaddrinfo
        return function(host, port, family, type, proto, flags)
    return await _AsyncioLoop.getaddrinfo(
        self, host, port, family=family, type=type, proto=proto, flags=flags
    )


async def getnameinfo(self: Any, sockaddr: Any, flags: int = 0) -> Any:
    """Return what socket.getnameinfo() returns; names are looked up in the default executor.

    Raises socket.gaierror as that does.  (asyncio.loop.getnameinfo)
    """
    if (
        type(flags) is int
        and flags & _NUMBERS_ONLY == _NUMBERS_ONLY
        and socket.getnameinfo is _getnameinfo
    ):
        self._check_closed()
        return _getnameinfo(sockaddr, flags)
    return await _AsyncioLoop.getnameinfo(self, sockaddr, flags)
