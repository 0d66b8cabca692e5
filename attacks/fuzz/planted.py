"""Faults to plant into a copy of the source: does the attack find them, and how soon?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    target: str
    what: str
    file: str
    right: str
    wrong: str


# One of each target in a build: the first of each are those of the first.
FAULTS = [
    Fault(
        "reader",
        "a separator over the border of two pieces is overlooked",
        "src/streams/streamreader.c",
        "        *end = coro->offset = length + 1 - n;\n",
        "        *end = length + 1 - n;\n        coro->offset = length;\n",
    ),
    Fault(
        "addresses",
        "an IPv6 scope loses its upper half",
        "src/io/address.c",
        "in6->sin6_scope_id = (uint32_t)scope;",
        "in6->sin6_scope_id = (uint16_t)scope;",
    ),
    Fault(
        "datagrams",
        "what is behind a batch that is sent in part is lost",
        "src/io/datagram_send.c",
        "int done = status > 0 && sent > 0 ? sent : status != 0;",
        "int done = status > 0 && sent > 0 ? sent + 1 : status != 0;",
    ),
    Fault(
        "tls",
        "the peer's goodbye is overlooked",
        "src/tls/tls_record.c",
        "== SSL_RECEIVED_SHUTDOWN) {\n        return 0;\n",
        "== SSL_RECEIVED_SHUTDOWN) {\n        return AGAIN;\n",
    ),
    Fault(
        "command",
        "an option with its argument behind it stays as it is in sys.argv",
        "ctask/__main__.py",
        "sys.argv[:] = [option[:2], *args]",
        "sys.argv[:] = [option, *args]",
    ),
    Fault(
        "reader",
        "what is appended goes over the end of the buffer",
        "src/streams/streambuf.h",
        "n > PyBytes_GET_SIZE(buf->store) - buf->start - buf->length) {",
        "n > PyBytes_GET_SIZE(buf->store) - buf->length) {",
    ),
    Fault(
        "addresses",
        "a path is read beyond what the kernel gave",
        "src/io/address.c",
        "(Py_ssize_t)strnlen(un->sun_path, n)",
        "(Py_ssize_t)strnlen(un->sun_path, n + 1)",
    ),
    Fault(
        "tls",
        "a record that is not authentic is waited for again",
        "src/tls/tls_record.c",
        "        return 0;\n    }\n    return read_by_python(self, buffer, size);",
        "        return 0;\n    }\n    return AGAIN;",
    ),
    Fault(
        "datagrams",
        "a datagram that had to wait is sent with what lies behind it",
        "src/io/datagram_send.c",
        "iov[n - 1] = (struct iovec){(void *)chunk.data, chunk.size - HEADER_SIZE};",
        "iov[n - 1] = (struct iovec){(void *)chunk.data, chunk.size};",
    ),
]


def builds() -> list[list[Fault]]:
    """Each has at most one fault for each target."""
    made: list[list[Fault]] = []
    for fault in FAULTS:
        for faults in made:
            if all(fault.target != other.target for other in faults):
                faults.append(fault)
                break
        else:
            made.append([fault])
    return made


def plant(faults: list[Fault], source: Path, folder: Path) -> None:
    """Copy the source into the folder, with these in it."""
    shutil.copy(source / "ctask.c", folder)
    for part in ("src", "ctask"):
        shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("*.so"))
    for fault in faults:
        path = folder / fault.file
        text = path.read_text()
        if text.count(fault.right) != 1:
            raise ValueError(f"{fault.file} has {fault.right!r} not once")
        path.write_text(text.replace(fault.right, fault.wrong))
