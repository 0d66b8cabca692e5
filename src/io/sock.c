/* sock_recv(), sock_sendall() and their relatives: steps of coroutines in C (coro.h).

   An operation tries the system call first, on the descriptor itself, and ends without a turn of the loop if
   that is enough.  Only after EAGAIN does it wait for a future, which the loop completes when it is told of the
   descriptor, and then tries again.  So what a cancelled operation would have read is still there.

   It keeps nothing about the descriptor but its number, to end the wait: before each system call it looks at the
   socket again, which may have been closed, or have got another method, since.  It does not keep the socket open.

   Here is only what sockets usually are: a socket.socket whose methods nobody replaced, arguments of the usual
   types, addresses of which nothing has to be looked up.  Everything else is asyncio's own coroutine, either
   returned in place of ours or, if that shows later, driven by ours. */

#include "coro/coro.h"
#include "io/sock_parts.h"

#include "coro/standin.h"
#include "tasks/futures.h"

static const struct {
    const char *name;
    const char *qualified;
    int min_args; // with the socket
    int max_args;
    uint32_t side;
} op_kinds[OP_KINDS] = {
#define KIND(name, min, max, side) {"sock_" name, "BaseSelectorEventLoop.sock_" name, min, max, side}
    [OP_RECV] = KIND("recv", 2, 2, POLL_READ),
    [OP_RECV_INTO] = KIND("recv_into", 2, 2, POLL_READ),
    [OP_RECVFROM] = KIND("recvfrom", 2, 2, POLL_READ),
    [OP_RECVFROM_INTO] = KIND("recvfrom_into", 2, 3, POLL_READ),
    [OP_SENDALL] = KIND("sendall", 2, 2, POLL_WRITE),
    [OP_SENDTO] = KIND("sendto", 3, 3, POLL_WRITE),
    [OP_CONNECT] = KIND("connect", 2, 2, POLL_WRITE),
    [OP_ACCEPT] = KIND("accept", 1, 1, POLL_READ),
#undef KIND
};

/* ---- asyncio's own coroutine ---- */

/* What is left to be sent. */
static int
op_skip_sent(CoroObj *op, PyObject **data)
{
    PyObject *bytes = PyObject_CallMethod(*data, "cast", "s", "B");
    if (bytes == NULL) {
        return -1;
    }
    *data = PySequence_GetSlice(bytes, op->n, PY_SSIZE_T_MAX);
    Py_DECREF(bytes);
    return *data == NULL ? -1 : 0;
}

/* From here on the operation is asyncio's. */
static int
op_delegate(CoroObj *op)
{
    PyObject *stack[] = {op->owner, op->subject, op->arg, NULL}, *rest = NULL;
    Py_ssize_t n = op->arg == NULL ? 2 : 3;
    if (op_has_tuple(op_kind_of(op))) {
        stack[2] = PyTuple_GET_ITEM(op->arg, 0);
        if (PyTuple_GET_SIZE(op->arg) > 1) {
            stack[3] = PyTuple_GET_ITEM(op->arg, 1);
            n = 4;
        }
    }
    if (op_kind_of(op) == OP_SENDALL && op->n > 0) {
        rest = stack[2];
        if (op_skip_sent(op, &rest) < 0) {
            return CORO_ERROR;
        }
        stack[2] = rest;
    }
    int status = coro_await(op, PyObject_Vectorcall(op->function, stack, (size_t)n, NULL), NULL);
    Py_XDECREF(rest);
    return status;
}

/* ---- waiting ---- */

static void
op_unwait(CoroObj *op)
{
    PyObject *fut = op->waiter;
    op->waiter = NULL;
    watch_forget(op_loop(op), op_watched_fd(op), op_kinds[op_kind_of(op)].side, fut);
    Py_DECREF(fut);
}

static void
find_transports(LoopObj *loop)
{
    PyObject *transports = PyObject_GetAttr((PyObject *)loop, loop->st->str._transports);
    PyObject *data = transports == NULL ? NULL : PyObject_GetAttr(transports, loop->st->str.data);
    if (data != NULL && PyDict_CheckExact(data)) {
        Py_XSETREF(loop->transports, Py_NewRef(data));
    }
    Py_XDECREF(data);
    Py_XDECREF(transports);
    PyErr_Clear();
}

/* asyncio refuses to wait for a descriptor that a transport uses. */
static int
check_no_transport(LoopObj *loop, int fd)
{
    int owned = watch_owner(loop, fd) != NULL;
    if (UNLIKELY(loop->transports == NULL)) {
        find_transports(loop);
    }
    if (LIKELY(!owned && loop->transports != NULL && PyDict_GET_SIZE(loop->transports) == 0)) {
        return 0;
    }
    PyObject *number = PyLong_FromLong(fd), *known = Py_XNewRef(loop->transports);
    int used = number == NULL ? -1 : owned || known == NULL ? 1 : PyDict_Contains(known, number);
    Py_XDECREF(known);
    if (used > 0) {
        PyObject *res = PyObject_CallMethodOneArg(
            (PyObject *)loop, loop->st->str._ensure_fd_no_transport, number);
        used = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    Py_XDECREF(number);
    return used;
}

static int sock_step(CoroObj *op, PyObject **result);

/* Have the loop tell, and wait for it. */
static int
op_wait(CoroObj *op)
{
    LoopObj *loop = op_loop(op);
    int fd = op_fd(op);
    uint32_t side = op_kinds[op_kind_of(op)].side;
    if (fd < 0) {
        errno = EBADF; // closed by another thread
        return op_failed();
    }
    if (loop_check_open(loop) < 0 || check_no_transport(loop, fd) < 0) {
        return CORO_ERROR;
    }
    PyObject *fut = loop_new_future(loop->st, (PyObject *)loop);
    if (fut == NULL) {
        return CORO_ERROR;
    }
    /* Who was asked, or has made the future, may have closed the socket: the number may be another file's. */
    int err = op_fd(op) != fd ? -EBADF : watch_once(loop, fd, side, fut, watch_wake);
    if (err < 0) {
        Py_DECREF(fut);
        poll_raise(err);
        return CORO_ERROR;
    }
    op_set_watched_fd(op, fd);
    op->waiter = fut;
    op->unwait = op_unwait;
    return coro_await(op, Py_NewRef(fut), sock_step);
}

/* ---- the course of an operation ---- */

static int
sock_step(CoroObj *op, PyObject **result)
{
    int tried = TRY_OTHER;
    /* A connection that is under way, asyncio would begin again. */
    if (LIKELY(socketobj_is_plain(op->st, op->subject)) || (op_kind_of(op) == OP_CONNECT && op->n)) {
        tried = op_try(op, result);
    }
    if (LIKELY(tried == TRY_DONE)) {
        return CORO_RETURN;
    }
    switch (tried) {
    case TRY_WAIT:
        return op_wait(op);
    case TRY_OTHER:
        return op_delegate(op);
    case TRY_TURN:
        op->step = sock_step;
        return CORO_YIELD;
    default:
        return CORO_ERROR;
    }
}

static int
check_nonblocking(CoroObj *op)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(op->subject, op->st->str.gettimeout);
    if (timeout == NULL) {
        return -1;
    }
    int nonblocking = PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0.0;
    Py_DECREF(timeout);
    if (!nonblocking) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return nonblocking ? 0 : -1;
}

static int
sock_start(CoroObj *op, PyObject **result)
{
    if (UNLIKELY(op_loop(op)->debug) && check_nonblocking(op) < 0) {
        return CORO_ERROR;
    }
    return sock_step(op, result);
}

/* ---- the loop's methods ---- */

static PyObject *
sock_call(ctask_state *st, op_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
          PyObject *stock)
{
    Py_ssize_t n = nargs - 1;
    int ours = kwnames == NULL && n >= op_kinds[kind].min_args && n <= op_kinds[kind].max_args &&
               socketobj_is_plain(st, args[1]);
    if (ours && (kind == OP_RECVFROM || kind == OP_RECVFROM_INTO || kind == OP_ACCEPT || kind == OP_CONNECT)) {
        int family = socket_int(args[1], st->io.sockets.family);
        ours = address_family_known(family) && (kind != OP_CONNECT || family != AF_UNIX);
    }
    if (UNLIKELY(!ours)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *arg = n > 1 ? args[2] : NULL, *several = NULL;
    if (op_has_tuple(kind)) {
        arg = several = n > 2 ? PyTuple_Pack(2, args[2], args[3]) : PyTuple_Pack(1, args[2]);
        if (several == NULL) {
            return NULL;
        }
    }
    CoroObj *op = (CoroObj *)coro_new(st, args[0], sock_start, op_kinds[kind].qualified, 0, arg);
    Py_XDECREF(several);
    if (op != NULL) {
        op->subject = Py_NewRef(args[1]);
        op->offset = -16 + (Py_ssize_t)kind; // watches no descriptor
    }
    return (PyObject *)op;
}

#define METHOD(function, kind)                                   \
    static PyObject *function(ctask_state *st,                   \
                              PyObject *Py_UNUSED(self),         \
                              PyObject *const *args,             \
                              Py_ssize_t nargs,                  \
                              PyObject *kwnames,                 \
                              PyObject *stock)                   \
    {                                                            \
        return sock_call(st, kind, args, nargs, kwnames, stock); \
    }
METHOD(Loop_sock_recv, OP_RECV)
METHOD(Loop_sock_recv_into, OP_RECV_INTO)
METHOD(Loop_sock_recvfrom, OP_RECVFROM)
METHOD(Loop_sock_recvfrom_into, OP_RECVFROM_INTO)
METHOD(Loop_sock_sendall, OP_SENDALL)
METHOD(Loop_sock_sendto, OP_SENDTO)
METHOD(Loop_sock_connect, OP_CONNECT)
METHOD(Loop_sock_accept, OP_ACCEPT)
#undef METHOD

PART int
sock_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    static const standin_call functions[OP_KINDS] = {
        [OP_RECV] = Loop_sock_recv,
        [OP_RECV_INTO] = Loop_sock_recv_into,
        [OP_RECVFROM] = Loop_sock_recvfrom,
        [OP_RECVFROM_INTO] = Loop_sock_recvfrom_into,
        [OP_SENDALL] = Loop_sock_sendall,
        [OP_SENDTO] = Loop_sock_sendto,
        [OP_CONNECT] = Loop_sock_connect,
        [OP_ACCEPT] = Loop_sock_accept,
    };
    for (size_t i = 0; i < OP_KINDS; i++) {
        if (standin_method(st, st->LoopType, st->stock_Loop, op_kinds[i].name, functions[i]) < 0) {
            return -1;
        }
    }
    return 0;
}
