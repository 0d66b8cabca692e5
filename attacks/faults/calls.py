"""Which errors which calls can give, and which of them nobody may notice."""

from __future__ import annotations

import errno

SHORT = 1000  # wrap.c's: one byte goes over

_SHORTAGE = ("ENOMEM", "ENOBUFS")
_FILES = ("EMFILE", "ENFILE", "ENOMEM")
_RECEIVING = ("EINTR", "EAGAIN", "ECONNRESET", "ENOMEM", "EIO", "EBADF")
_SENDING = ("EINTR", "EAGAIN", "ECONNRESET", "EPIPE", "ENOBUFS", "ENOMEM", "EBADF")

ERRORS: dict[str, tuple[str, ...]] = {
    "memory": ("ENOMEM",),
    "malloc": ("ENOMEM",),
    "epoll_create1": _FILES,
    "epoll_ctl": ("ENOMEM", "ENOSPC", "EBADF", "EPERM", "ENOENT"),
    "epoll_wait": ("EINTR", "EBADF", "SHORT"),
    "epoll_pwait2": ("EINTR", "ENOSYS", "EPERM", "EBADF", "SHORT"),
    "eventfd": _FILES,
    "recv": (*_RECEIVING, "SHORT"),
    "recvfrom": (*_RECEIVING, "ECONNREFUSED"),
    "recvmsg": _RECEIVING,
    "send": (*_SENDING, "SHORT"),
    "sendto": (*_SENDING, "ECONNREFUSED", "EMSGSIZE"),
    "sendmsg": (*_SENDING, "SHORT"),
    "read": ("EINTR", "EAGAIN", "EIO", "EBADF", "SHORT"),
    "write": ("EINTR", "EAGAIN", "EIO", "EPIPE", "ENOSPC", "SHORT"),
    "readv": ("EINTR", "EAGAIN", "EIO", "EBADF", "SHORT"),
    "writev": ("EINTR", "EAGAIN", "EIO", "EPIPE", "ENOSPC", "SHORT"),
    "preadv2": ("EINTR", "EAGAIN", "EOPNOTSUPP", "ENOSYS", "EIO", "EBADF", "SHORT"),
    "pwritev2": ("EINTR", "EAGAIN", "EOPNOTSUPP", "ENOSYS", "EIO", "EPIPE", "ENOSPC", "SHORT"),
    "accept4": (
        "EINTR",
        "EAGAIN",
        "ECONNABORTED",
        "EMFILE",
        "ENFILE",
        *_SHORTAGE,
        "EPROTO",
        "EPERM",
        "EBADF",
    ),
    "socket": (*_FILES, "ENOBUFS", "EACCES"),
    "socketpair": _FILES,
    "bind": ("EADDRINUSE", "EACCES", "ENOMEM"),
    "listen": ("EADDRINUSE",),
    "connect": ("EINTR", "ECONNREFUSED", "ETIMEDOUT", "EADDRNOTAVAIL", "ENETUNREACH", *_SHORTAGE),
    "getsockopt": ("ENOBUFS", "EBADF", "ENOPROTOOPT"),
    "setsockopt": ("ENOMEM", "EINVAL", "ENOPROTOOPT"),
    "getsockname": ("ENOBUFS", "EBADF"),
    "getpeername": ("ENOBUFS", "ENOTCONN"),
    "ioctl": ("EBADF", "ENOTTY"),
    "fcntl": ("EBADF", "EPERM"),
    "shutdown": ("ENOTCONN",),
    "close": ("EINTR", "EIO"),
    "open": ("EINTR", *_FILES),
    "dup": ("EMFILE", "EBADF"),
    "pipe2": _FILES,
    "sendfile": ("EINTR", "EAGAIN", "EIO", "EPIPE", "ENOMEM", "EINVAL", "SHORT"),
    "pidfd_open": (*_FILES, "ENOSYS"),
}

# The call is made again, in another way or for the rest.
_AGAIN = ("EINTR", "EAGAIN", "SHORT", "ENOSYS", "EOPNOTSUPP", "ECONNABORTED")
_TRIED_AGAIN = (
    *(
        "epoll_wait",
        "epoll_pwait2",
        "recv",
        "recvfrom",
        "send",
        "sendto",
        "sendmsg",
        "read",
        "write",
        "readv",
    ),
    *("writev", "preadv2", "pwritev2", "accept4"),
)


def kind(call: str) -> str:
    return call if call in ("memory", "malloc") else "syscalls"


def number(how: str) -> int:
    return SHORT if how == "SHORT" else getattr(errno, how, 0)


def is_unseen(call: str, how: str) -> bool:
    """Whether the scenario has to go as if nothing had been."""
    return (call in _TRIED_AGAIN and how in _AGAIN) or (call, how) == ("epoll_pwait2", "EPERM")


def times(call: str, how: str) -> tuple[int, ...]:
    """How many calls in a row fail: of allocations also several, as where memory is short."""
    if kind(call) != "syscalls":
        return 1, 4
    return (1, 300) if how == "SHORT" else (1,)
