"""The faults: what brings each back, and who has to find it.

Where ctask is built otherwise than when it had the fault, the edit is the smallest that makes a
program see the same.
"""

from __future__ import annotations

from typing import NamedTuple

from .._edits import Edit


class Mend(NamedTuple):
    """The fault's name, its group, its edits, and the attack with its arguments.

    `("tests", ...)`: no attack can sensibly find it, for the reason `why`, and this test does.
    """

    name: str
    group: str
    edits: tuple[Edit, ...]
    attack: tuple[str, ...]
    why: str = ""
    since: tuple[int, int] = (3, 11)
    until: tuple[int, int] = (3, 99)


READ, WRITE, TRANSPORT = "src/io/stream_read.c", "src/io/stream_write.c", "src/io/transport.c"
STREAM, POLL, ITERATE = "src/io/stream.c", "src/loop/poll_epoll.c", "src/loop/iterate.c"
TLS, TLS_WRITE, MEMORY = "src/tls/tls.c", "src/tls/tls_write.c", "src/loop/memory.h"
SOCK, WATCH, CORO = "src/io/sock.c", "src/loop/watch.c", "src/coro/coro.c"
PROCESS, LOOP = "ctask/_process.py", "ctask/_loop.py"
TRANSPORTS = ("transports", "--count", "1000", "--form", "loop")

EDGES = Edit(
    POLL, "(events & POLL_ONCE ? EPOLLONESHOT : 0)", "(events & POLL_ONCE ? EPOLLONESHOT : EPOLLET)"
)
# What is written second in a callback waits for the loop to come round, as what is gathered does.
GATHERED = (
    Edit(
        WRITE,
        "    int blocked = t->queue.length > 0;\n    if (LIKELY(!blocked)) {\n        if "
        "(UNLIKELY(send_now",
        "    int blocked = t->queue.length > 0;\n    int gathers = s->write_turn == "
        "t->loop->ready.head && s->writes > 0;\n"
        "    if (LIKELY(!blocked && !gathers)) {\n        if (UNLIKELY(send_now",
    ),
)

# wait() ends when the pipes have, not with the child.
TOLD_WITH_THE_PIPES = Edit(
    "src/io/process.c",
    "        status = process_tell_waiting(st, self, returncode);\n"
    "        done = status < 0 ? -1 : process_is_disconnected(st, self);\n",
    "        done = process_is_disconnected(st, self);\n"
    "        status = done == 1 ? process_tell_waiting(st, self, returncode) : 0;\n",
)

MENDS = (
    # ---- reading ----
    Mend(
        "upload_slows_the_loop",
        "reading",
        (
            Edit(
                READ,
                "        status = receive(s);\n",
                "        for (int i = 0; i < 64 && status == 0 && stream_is_reading(s); i++) {\n"
                "            status = receive(s);\n        }\n",
            ),
        ),
        TRANSPORTS,
    ),
    # ---- events ----
    Mend("signal_raises_data_lost", "events", (EDGES,), TRANSPORTS),
    Mend(
        "interrupt_leaves_data",
        "events",
        (
            Edit(
                TRANSPORT,
                "transport_fatal_error(TransportObj *t, const char *message)\n{\n    if "
                "(raised_is_exit()) {\n",
                "transport_fatal_error(TransportObj *t, const char *message)\n{\n    if "
                "(raised_is_exit()) {\n"
                "        transport_unwatch(t, POLL_READ);\n",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "interrupt_in_protocol_callback",
        "events",
        (
            Edit(
                TRANSPORT,
                "if (waiter != NULL && future_wake(",
                "if (waiter != NULL && raised == NULL && future_wake(",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "tcp_urgent_data",
        "events",
        (
            EDGES,
            Edit(
                READ,
                "        status = receive(s);\n",
                "        do { // what is not full was the last\n            s->last_read = 0;\n"
                "            status = receive(s);\n"
                "        } while (status == 0 && stream_is_reading(s) && s->last_read == "
                "READ_BUFFER_SIZE);\n",
            ),
        ),
        (*TRANSPORTS, "--only", "tcp"),
    ),
    # ---- gathered writes ----
    Mend("gathered_child_order", "gathered", GATHERED, TRANSPORTS),
    Mend("gathered_between_runs", "gathered", GATHERED, TRANSPORTS),
    Mend("gathered_leave_late", "gathered", GATHERED, TRANSPORTS),
    Mend("gathered_then_raise", "gathered", GATHERED, TRANSPORTS),
    Mend(
        "gathered_close_never_lost",
        "gathered",
        (
            *GATHERED,
            Edit(
                WRITE,
                "    return blocked ? transport_pause_protocol(t) : after_enqueue(s);",
                "    if (blocked && t->closing) {\n        transport_unwatch(t, "
                "POLL_WRITE);\n    }\n"
                "    return blocked ? transport_pause_protocol(t) : after_enqueue(s);",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "gathered_order_of_callbacks",
        "gathered",
        (
            Edit(
                TRANSPORT,
                "    t->closing = 1;\n    int status = transport_lose(t, exc);",
                "    if (t->closing && exc == NULL) {\n        t->conn_lost++;\n"
                "        return t->kind->call_lost(t);\n    }\n    t->closing = 1;\n"
                "    int status = transport_lose(t, exc);",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "gathered_empty_waiter_crash",
        "gathered",
        (
            Edit(
                STREAM,
                "    PyObject *future = future_create(s->base.st, (PyObject *)s->base.loop);\n"
                "    if (future == NULL) {\n        return NULL;\n    }\n    s->empty_waiter",
                "    PyObject *future = s->base.closing ? NULL : future_create(s->base.st, "
                "(PyObject *)s->base.loop);\n"
                "    s->empty_waiter",
            ),
        ),
        ("evil", "--program", "transports", "--count", "400"),
    ),
    Mend(
        "sendfile_after_gathered_writes",
        "gathered",
        (
            *GATHERED,
            Edit(
                WRITE,
                "    transport_unwatch(t, POLL_WRITE);\n    if (s->empty_waiter != NULL) {",
                "    transport_unwatch(t, POLL_WRITE);\n    if (s->empty_waiter != NULL && "
                "s->writes < 2) {",
            ),
        ),
        TRANSPORTS,
    ),
    # ---- TLS ----
    Mend(
        "tls_writes_before_abort",
        "tls",
        (
            Edit(
                TLS_WRITE,
                "    if (LIKELY(self->state == TLS_WRAPPED && tls_backlog_empty(self) && "
                "!self->busy",
                "    if (0 && LIKELY(self->state == TLS_WRAPPED && tls_backlog_empty(self) && "
                "!self->busy",
            ),
            Edit(
                TLS_WRITE,
                "        result = self->state == TLS_WRAPPED ? tls_do_write(self) : 0;\n",
                "        result = tls_call_method_soon(self, (PyObject *)self, "
                "self->st->str._resume, NULL);\n",
            ),
        ),
        (*TRANSPORTS, "--only", "tlsmade"),
    ),
    Mend(
        "tls_undecodable_certificate",
        "tls",
        (
            Edit(
                TLS,
                "if (tls_state_set(self, TLS_WRAPPED) < 0 || session_ask(self, "
                "st->str.getpeercert, st->str.peercert) < 0) {\n"
                "        return tls_handshake_failed(self);",
                "if (tls_state_set(self, TLS_WRAPPED) < 0 || session_ask(self, "
                "st->str.getpeercert, st->str.peercert) < 0) {\n"
                "        PyErr_Clear();",
            ),
        ),
        ("tests", "tls/test_tls_handshake.py", "-k", "cannot_be_decoded"),
        "the attack's certificates are good ones",
    ),
    Mend(
        "tls_close_unread_download",
        "tls",
        (
            Edit(
                "src/tls/tls_transport.c",
                "    protocol->discarding = 1;\n    int result = tls_start_shutdown(protocol);",
                "    int result = tls_start_shutdown(protocol);",
            ),
        ),
        ("tests", "tls/test_tls_close.py", "-k", "what_was_not_read"),
        "of 1 000 programs none: it takes an end that stopped reading, and a peer that sent on",
    ),
    Mend(
        "tls_close_never_ends",
        "tls",
        (
            Edit(
                TLS,
                "int ended = self->eof_received && self->discarding && self->state == "
                "TLS_FLUSHING;",
                "int ended = 0;",
            ),
        ),
        ("tests", "tls/test_tls_close.py", "-k", "without_a_word"),
        "asyncio has the same fault, so programs that close a paused TLS connection are not "
        "compared",
    ),
    Mend(
        "tls_input_overwritten",
        "tls",
        (
            Edit(
                MEMORY,
                "    loop->read_buffer = NULL;\n    if (UNLIKELY(buffer == NULL)) {\n        "
                "buffer",
                "    if (UNLIKELY(buffer == NULL)) {\n        loop->read_buffer = buffer",
            ),
            Edit(
                MEMORY,
                "if (LIKELY(loop->read_buffer == NULL)) {",
                "if (LIKELY(loop->read_buffer == NULL || loop->read_buffer == buffer)) {",
            ),
        ),
        ("tests", "tls/test_tls_input.py"),
        "no program of the attack calls sock_recv() within connection_made()",
    ),
    Mend(
        "tls_write_in_pause_writing",
        "tls",
        (
            Edit(
                TLS_WRITE,
                "        return tls_tell_app(self, self->st->str.pause_writing, "
                '"protocol.pause_writing() failed");',
                "        tls_state before = self->state;\n        self->state = "
                "TLS_UNWRAPPED; // so it is lost\n"
                "        int told = tls_tell_app(self, self->st->str.pause_writing, "
                '"protocol.pause_writing() failed");\n'
                "        self->state = before;\n        return told;",
            ),
        ),
        ("tests", "tls/test_tls_writing.py", "-k", "what_pause_writing_writes"),
        "when TLS pauses writing differs from asyncio, so nothing is done there in programs "
        "that are compared",
    ),
    Mend(
        "tls_sni_and_keylog",
        "tls",
        (
            Edit(
                TLS,
                "    return self->st->tls.openssl != NULL && "
                "self->st->tls.openssl->ERR_peek_error() != 0;",
                "    (void)self;\n    return 0;",
            ),
        ),
        ("tests", "tls/test_tls_handshake.py", "-k", "keylog_file_that_cannot"),
        "the attack's contexts write no keys to a file",
    ),
    Mend(
        "tls_connection_memory",
        "tls",
        (Edit("ctask/_tls.py", "        frame.clear()\n", ""),),
        ("tests", "tls/test_tls_cycles.py"),
        "the soak collects garbage before it measures, as asyncio's own cycles would count "
        "otherwise",
        until=(3, 13),
    ),
    Mend(
        "start_tls_after_eof",
        "tls",
        (
            Edit(
                STREAM,
                "        s->eof_seen = 0; // whoever is the protocol now hears of it as "
                "well\n    }\n"
                "    return Transport_resume_reading(self, ignored);",
                "        if (s->eof_seen) {\n            s->base.paused = 0;\n            "
                "Py_RETURN_NONE;\n        }\n    }\n"
                "    return Transport_resume_reading(self, ignored);",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "sendfile_tls_error",
        "tls",
        (
            Edit(
                LOOP,
                "        if not fallback and mode is",
                "        if False and not fallback and mode is",
            ),
        ),
        TRANSPORTS,
    ),
    # ---- descriptors ----
    Mend(
        "socket_closed_behind",
        "descriptors",
        (
            Edit(
                "src/io/transport.h",
                "    return LIKELY(socket_int(t->sock, t->st->io.sockets.fd) == t->fd) ? "
                "t->fd : -1;",
                "    return t->fd;",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "blocking_flag_freezes",
        "descriptors",
        (
            Edit(
                WRITE,
                "int fd = transport_descriptor(&s->base), flags = MSG_NOSIGNAL | MSG_DONTWAIT "
                "| hold_back",
                "int fd = transport_descriptor(&s->base), flags = MSG_NOSIGNAL | hold_back",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "dup2_over_socket",
        "descriptors",
        (
            Edit(SOCK, ": watch_once(loop,", ": watch_object(loop,"),
            Edit(
                WATCH,
                "if (slot->owner != NULL && slot->events & side) {",
                "if (slot->events & side) {",
            ),
        ),
        ("tests", "loop/test_readiness.py", "-k", "in_the_place_of_its_descriptor"),
        "of 6 000 programs none: it takes two sock_recv() that wait, one before and one after",
    ),
    Mend(
        "reader_of_closed_socket",
        "descriptors",
        (
            Edit(
                WATCH,
                "    for (int fd = 0; fd < loop->poll.n_slots; fd++) {\n        if "
                "(loop->poll.slots[fd].file == obj) {",
                "    for (int fd = 0; 0;) {\n        if (loop->poll.slots[fd].file == obj) {",
            ),
        ),
        (*TRANSPORTS, "--only", "socks"),
    ),
    Mend(
        "socket_close_while_receiving",
        "descriptors",
        (
            Edit(
                SOCK,
                "    op_set_watched_fd(op, fd);\n",
                "    if (op_kind_of(op) == OP_RECV) {\n        op->n = dup(fd); // the socket "
                "stays open\n    }\n"
                "    op_set_watched_fd(op, fd);\n",
            ),
            Edit(
                SOCK,
                "    op->waiter = NULL;\n",
                "    op->waiter = NULL;\n    if (op_kind_of(op) == OP_RECV) {\n        "
                "close((int)op->n);\n    }\n",
            ),
            Edit(SOCK, '#include "coro/coro.h"\n', '#include "coro/coro.h"\n#include <unistd.h>\n'),
        ),
        (*TRANSPORTS, "--only", "socks"),
    ),
    Mend(
        "add_reader_huge_descriptor",
        "descriptors",
        (
            Edit(
                POLL,
                "    int err = control(poll->fd, EPOLL_CTL_ADD, fd, 1, events);\n    if (err "
                "< 0) {\n        return err;\n    }\n"
                "    err = grow_slots(poll, fd);\n",
                "    int err = grow_slots(poll, fd);\n    if (err == 0) {\n"
                "        err = control(poll->fd, EPOLL_CTL_ADD, fd, 1, events);\n    }\n",
            ),
        ),
        (*TRANSPORTS, "--only", "socks"),
    ),
    Mend(
        "server_backlog_zero",
        "descriptors",
        (
            Edit(
                "src/io/server.c",
                "left = a->backlog < 0 ? 0 : a->backlog;\n",
                "left = a->backlog;\n    if (left <= 0) {\n        return 0;\n    }\n",
            ),
        ),
        ("tests", "io/test_server.py", "-k", "small_backlog"),
        "asyncio itself accepts nothing then, up to 3.13",
    ),
    # ---- replaced methods ----
    Mend(
        "transport_methods_patched",
        "replaced",
        (
            Edit(
                "src/io/stream_info.c",
                "    if (UNLIKELY(_PyType_Lookup((PyTypeObject *)st->stock_Transport, "
                "st->str.get_extra_info) !=\n"
                "                 st->stock_get_extra_info)) {",
                "    if (0) {",
            ),
        ),
        ("tests", "io/test_transport_patched.py"),
        "a program that replaces methods of asyncio's classes replaces what it is compared with",
    ),
    Mend(
        "socket_subclass_methods",
        "replaced",
        (
            Edit(
                "src/io/socketobj.h",
                "    if (Py_TYPE(sock) != (PyTypeObject *)st->socket_type) {\n        return 0;",
                "    if (Py_TYPE(sock) != (PyTypeObject *)st->socket_type) {\n"
                "        return PyObject_TypeCheck(sock, (PyTypeObject *)st->socket_type);",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "socket_class_replaced",
        "replaced",
        (
            Edit(
                LOOP,
                "        return self._make_stream(sock,",
                "        assert isinstance(sock, socket.socket)\n        return "
                "self._make_stream(sock,",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "sock_methods_coroutine_functions",
        "replaced",
        (
            Edit(
                "src/coro/standin.c",
                "    if (PyObject_GetOptionalAttr(((StandinObj *)self)->stock, name, &value) "
                "!= 0) {",
                '    if (PyUnicode_CompareWithASCIIString(name, "__code__") != 0 &&\n'
                "        PyObject_GetOptionalAttr(((StandinObj *)self)->stock, name, &value) "
                "!= 0) {",
            ),
        ),
        ("tests", "io/test_sock.py", "-k", "coroutine_functions"),
        "what inspect says of a function is no matter of what a program does",
    ),
    Mend(
        "unbound_base_methods",
        "replaced",
        (
            Edit(
                "src/loop/schedule.c",
                "    if (UNLIKELY(kwnames != NULL) && is_stored_waiter(callback, &call)) {",
                "    if (0 && UNLIKELY(kwnames != NULL) && is_stored_waiter(callback, &call)) {",
            ),
        ),
        ("programs", "--modes", "loop", "--count", "2000"),
    ),
    Mend(
        "unbound_get_name",
        "replaced",
        (
            Edit(
                "src/tasks/task_type.c",
                '    return PyUnicode_FromFormat("Task-%llu", (unsigned long '
                "long)++st->tasks.counter);",
                "    return PyLong_FromUnsignedLongLong(++st->tasks.counter);",
            ),
        ),
        ("tests", "tasks/test_unbound.py", "-k", "names_of_tasks"),
        "names of tasks are what the log is put in order by",
        until=(3, 11),
    ),
    Mend(
        "nest_asyncio_applied",
        "replaced",
        (
            Edit(
                ITERATE,
                "        if (UNLIKELY(loop_check_overrides(loop))) {",
                "        if (0 && UNLIKELY(loop_check_overrides(loop))) {",
            ),
        ),
        ("tests", "loop/test_nested.py"),
        "who runs the loop's iterations by other code is compared with nobody",
    ),
    # ---- objects ----
    Mend(
        "coroutine_awaited_twice",
        "objects",
        (
            Edit(
                CORO,
                "    if (UNLIKELY(((CoroObj *)self)->state == CORO_SUSPENDED)) {\n        "
                "refuse_second_await();",
                "    if (0) {\n        refuse_second_await();",
            ),
        ),
        ("programs", "--modes", "installed", "--count", "2000"),
    ),
    Mend(
        "copy_and_pickle",
        "objects",
        (
            Edit(
                "src/coro/core.c",
                "    long version = PyLong_AsLong(protocol);\n",
                '    PyErr_SetString(PyExc_TypeError, "cannot pickle");\n    return NULL;\n'
                "    long version = PyLong_AsLong(protocol);\n",
            ),
        ),
        ("programs", "--modes", "installed", "--count", "2000"),
    ),
    Mend(
        "signatures_after_install",
        "objects",
        (
            Edit(
                "src/coro/standin.c",
                "    if (PyObject_GetOptionalAttr(((StandinObj *)self)->stock, name, &value) "
                "!= 0) {",
                '    if (PyUnicode_CompareWithASCIIString(name, "__defaults__") != 0 &&\n'
                "        PyObject_GetOptionalAttr(((StandinObj *)self)->stock, name, &value) "
                "!= 0) {",
            ),
        ),
        ("tests", "package/test_signatures.py"),
        "what inspect says of a function is no matter of what a program does",
    ),
    # ---- crashes ----
    Mend(
        "deep_nesting",
        "crashes",
        (
            Edit(
                "src/combinators/gather.c",
                '    if (Py_EnterRecursiveCall(" while cancelling a future")) {\n'
                "        return -1; /* the children may be of gather(), too */\n    }\n",
                "",
            ),
            Edit(
                "src/combinators/gather.c",
                "    Py_LeaveRecursiveCall();\n    if (any > 0) {",
                "    if (any > 0) {",
            ),
        ),
        ("tests", "house/test_evil_nesting.py", "-k", "cancelling_nested_gathers"),
        "what is nested so deeply takes the collector longer than an evil program has",
    ),
    Mend(
        "core_evil: a_tg_del_tasks",
        "crashes",
        (
            Edit(
                "src/combinators/taskgroup.c",
                "    return group->tasks != NULL && PySet_CheckExact(group->tasks) && "
                "PySet_GET_SIZE",
                "    return PySet_GET_SIZE",
            ),
            Edit(
                "src/combinators/taskgroup.c",
                "    if (UNLIKELY(group->overridden || group->tasks == NULL || "
                "!PySet_CheckExact(group->tasks))) {",
                "    if (UNLIKELY(group->overridden)) {",
            ),
            Edit(
                "src/combinators/taskgroup.c",
                "    if (UNLIKELY(parent == NULL || tasks == NULL || !PySet_CheckExact(tasks))) {",
                "    if (0) {",
            ),
        ),
        ("evil", "--program", "combinators", "--count", "600"),
    ),
    Mend(
        "ascompleted_queue_emptied",
        "crashes",
        (
            Edit(
                "src/combinators/ascompleted_iterator.c",
                "PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i));",
                "PyObject *item = PyList_GET_ITEM(items, i);",
            ),
            Edit(
                "src/combinators/ascompleted_iterator.c",
                "        Py_XDECREF(res);\n        Py_DECREF(item);\n    }\n    Py_DECREF(items);",
                "        Py_XDECREF(res);\n    }\n    Py_DECREF(items);",
            ),
        ),
        ("evil", "--program", "combinators-directed", "--steps", "13", "--count", "25"),
        since=(3, 13),
    ),
    Mend(
        "core_evil: a_source_traceback_evil",
        "crashes",
        (
            Edit("src/loop/report.c", "    Py_XINCREF(source);\n    int status", "    int status"),
            Edit(
                "src/loop/report.c",
                "    Py_XDECREF(source);\n    return status;",
                "    return status;",
            ),
        ),
        ("tests", "house/test_evil_attributes.py", "-k", "loses_its_traceback"),
        "the evil object has to be the very attribute that its own method deletes",
    ),
    Mend(
        "core_evil: a_signal_lost_sock_recv",
        "crashes",
        (
            Edit(
                ITERATE,
                "    if (LIKELY(!loop->interrupted || waiting == 0) && poll_events(loop, ts) "
                "< 0) {",
                "    if (UNLIKELY(loop->interrupted)) {\n        loop_forget_ready(loop);\n    }\n"
                "    if (poll_events(loop, ts) < 0) {",
            ),
        ),
        ("interrupts", "--count", "2000"),
    ),
    Mend(
        "import_without_memory",
        "crashes",
        (
            Edit("ctask.c", "key == NULL ? NULL : PyCapsule_New(", "PyCapsule_New("),
            Edit("ctask.c", "capsule == NULL ? -1 : PyDict_SetItem(", "PyDict_SetItem("),
        ),
        ("faults", "--scenario", "import_", "--kind", "memory", "--count", "0"),
    ),
    # ---- processes ----
    Mend(
        "run_ends_with_cancelled_process",
        "processes",
        (
            Edit(
                PROCESS,
                "            loop._debug\n            or loop._task_factory is not None\n",
                "            True\n",
            ),
            Edit(
                PROCESS,
                "        if self._closed:  # given up before this began\n            return\n",
                "",
            ),
            Edit(
                PROCESS,
                "        self.close()\n        if self._connecting is not None:\n",
                "        self.close()\n        if False:\n",
            ),
            TOLD_WITH_THE_PIPES,
        ),
        ("tests", "package/test_process.py", "-k", "start or given_up"),
        "how long a child takes is nothing that two runs have in common",
        until=(3, 13),
    ),
    Mend(
        "process_grandchild_keeps_pipe",
        "processes",
        (TOLD_WITH_THE_PIPES,),
        ("tests", "package/test_process.py", "-k", "grandchild"),
        "up to 3.13.0 asyncio hangs as well",
    ),
    Mend(
        "blocking_mode_restored",
        "processes",
        (
            Edit(
                "src/loop/blocking.c",
                "    if (!file->restores) {\n        return;",
                "    if (1) {\n        return;",
            ),
        ),
        ("tests", "io/test_pipe.py", "-k", "block_again"),
        "asyncio leaves files as they are, so there is nothing to compare with",
    ),
    # ---- memory ----
    Mend(
        "big_blocks_go_back",
        "memory",
        (
            Edit(
                "src/loop/memory.c",
                "#ifdef __GLIBC__\n    if (LIKELY((char *)sbrk(0)",
                "    return timeout;\n#ifdef __GLIBC__\n    if (LIKELY((char *)sbrk(0)",
            ),
        ),
        ("tests", "house/test_memory.py", "-k", "what_was_read_and_dropped"),
        "the soak's bodies are all of one size, whose room is used again",
    ),
    Mend(
        "write_flood_memory",
        "memory",
        (
            Edit(
                TRANSPORT,
                "    Py_XDECREF(protocol);\n    queue_clear(&t->queue);\n",
                "    Py_XDECREF(protocol);\n",
            ),
            Edit(
                TRANSPORT,
                "    queue_clear(&t->queue); // last, as who is let go of may end the connection\n",
                "",
            ),
        ),
        ("soak", "--scenario", "unsent", "--count", "100"),
    ),
    Mend(
        "subinterpreter_memory",
        "memory",
        (
            Edit(
                "ctask.c",
                "        census.st->base.given_up = module;\n        Py_DECREF(module);\n",
                "",
            ),
        ),
        ("tests", "house/test_interpreters.py", "-k", "leaves_no_memory"),
        "the soak runs in one interpreter",
        since=(3, 14),
    ),
    # ---- starving ----
    Mend(
        "turns_until_io",
        "starving",
        (
            Edit(
                ITERATE,
                "        if (LIKELY(loop->poll.watched == 0)) {",
                "        static unsigned turns;\n        if (LIKELY(loop->poll.watched == 0) "
                "|| ++turns % 64 != 0) {",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "zero_timeout_sees_readable",
        "starving",
        (
            Edit(
                ITERATE,
                "        if (LIKELY(loop->poll.watched == 0)) {",
                "        static unsigned turns;\n        if (LIKELY(loop->poll.watched == 0) "
                "|| ++turns % 4 != 0) {",
            ),
        ),
        TRANSPORTS,
    ),
    Mend(
        "busy_tasks_latency",
        "starving",
        (Edit(ITERATE, "    if (UNLIKELY(compute)) {", "    if (0 && UNLIKELY(compute)) {"),),
        ("tests", "loop/test_readiness.py", "-k", "tasks_that_compute"),
        "what takes how long is measured by `python -m benchmarks --latency`, and no matter "
        "of right and wrong",
    ),
    # ---- eager starts, names ----
    Mend(
        "eager_start_failures",
        "eager",
        (
            Edit(
                "src/tasks/task.c",
                "before == NULL) ? -1 : step_apart(task, st);",
                "before == NULL) ? -1 : step(task, st, NULL);",
            ),
            Edit(
                "src/tasks/task.c",
                "static int\nstep_apart(",
                "__attribute__((unused)) static int\nstep_apart(",
            ),
        ),
        ("tests", "tasks/test_eager_start.py", "-k", "creator_handles"),
        "before 3.14 an eager task of asyncio's sees what its creator handles, so chains are "
        "not compared",
        since=(3, 12),
    ),
    Mend(
        "executor_saturated_dns",
        "eager",
        (
            Edit(
                "ctask/_dns.py",
                "    if _is_number(port) and _is_address(host) and socket.getaddrinfo is "
                "_getaddrinfo:",
                "    if False:",
            ),
        ),
        ("tests", "package/test_dns.py", "-k", "numeric_addresses"),
        "asyncio asks the executor for everything",
    ),
)
