/* sock_recv(), sock_sendall() and their relatives: steps of coroutines in C (coro.h).

   An operation tries the system call first, on the descriptor itself, and ends without a turn of the loop if
   that is enough.  Only after EAGAIN does it wait for a future, which the loop completes when it is told of the
   descriptor, and then tries again.  So what a cancelled operation would have read is still there.

   It keeps nothing about the descriptor but its number, to end the wait: before each system call it looks at the
   socket again, which may have been closed, or have got another method, since.  It does not keep the socket open.

   Here is only what sockets usually are: a socket.socket whose methods nobody replaced, arguments of the usual
   types, addresses of which nothing has to be looked up.  Everything else is asyncio's own coroutine, either
   returned in place of ours or, if that shows later, driven by ours. */

#include "io/transport.h"
#include "coro/coro.h"
#include "tasks/futures.h"
#include "coro/standin.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

/* Sending more than this gives up the interpreter lock. */
#define LONG_SEND (64 * 1024)
/* A peer that reads as fast as we write gets this many writes before the loop has a turn. */
#define SENDS_AT_ONCE 16

/* Of the coroutine of an operation, `owner` is the loop, `subject` the socket, `arg` what else the method was given
   (a tuple where that is several), `waiter` the future while it waits, and `n` the bytes that sendall has sent, or
   that a connection is under way. */
typedef enum {
    OP_RECV,
    OP_RECV_INTO,
    OP_RECVFROM,
    OP_RECVFROM_INTO,
    OP_SENDALL,
    OP_SENDTO,
    OP_CONNECT,
    OP_ACCEPT,
    OP_KINDS,
} op_kind;

/* What a try comes to. */
enum { TRY_FAILED = -1, TRY_WAIT, TRY_DONE, TRY_OTHER, TRY_TURN };

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

/* ---- the parts of an operation ---- */

/* `offset` is its kind and the number of the descriptor that it waits for. */

static inline op_kind
op_kind_of(const CoroObj *op)
{
    return (op_kind)(op->offset & 15);
}

static inline int
op_watched_fd(const CoroObj *op)
{
    return (int)(op->offset >> 4);
}

static inline void
op_set_watched_fd(CoroObj *op, int fd)
{
    op->offset = ((Py_ssize_t)fd << 4) | op_kind_of(op);
}

static inline LoopObj *
op_loop(const CoroObj *op)
{
    return (LoopObj *)op->owner;
}

static inline int
op_has_tuple(op_kind kind)
{
    return kind == OP_SENDTO || kind == OP_RECVFROM_INTO;
}

static inline int
op_fd(const CoroObj *op)
{
    return socket_int(op->subject, op->st->io.sockets.fd);
}

static inline int
op_family(const CoroObj *op)
{
    return socket_int(op->subject, op->st->io.sockets.family);
}

/* A nonblocking socket for a descriptor that accept4() gave, which it takes also when it fails. */
static PyObject *
socket_wrap(ctask_state *st, PyObject *listener, int fd)
{
    /* With SOCK_NONBLOCK the object knows, and no system call is made. */
    int numbers[] = {socket_int(listener, st->io.sockets.family),
                     socket_int(listener, st->io.sockets.type) | SOCK_NONBLOCK,
                     socket_int(listener, st->io.sockets.proto),
                     fd};
    PyObject *args[4] = {0}, *sock = NULL;
    int n = 0;
    while (n < 4 && (args[n] = PyLong_FromLong(numbers[n])) != NULL) {
        n++;
    }
    if (n == 4) {
        sock = PyObject_Vectorcall(st->socket_type, args, 4, NULL);
    }
    if (sock == NULL) {
        close(fd);
    }
    while (n > 0) {
        Py_DECREF(args[--n]);
    }
    return sock;
}

/* ---- system calls ---- */

static int
op_failed(void)
{
    PyErr_SetFromErrno(PyExc_OSError);
    return TRY_FAILED;
}

/* After a system call that failed.  (None of them waits, so none is interrupted; should one be, the kernel tells
   when it can go on.) */
static int
op_failed_or_wait(void)
{
    return LIKELY(errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? TRY_WAIT : op_failed();
}

static int
op_receive(CoroObj *op, void *buffer, size_t size, socket_address *from, ssize_t *n)
{
    if (from == NULL) {
        *n = recv(op_fd(op), buffer, size, MSG_DONTWAIT);
    }
    else {
        from->length = sizeof(from->u);
        *n = recvfrom(op_fd(op), buffer, size, MSG_DONTWAIT, &from->u.any, &from->length);
    }
    return LIKELY(*n >= 0) ? TRY_DONE : op_failed_or_wait();
}

/* Steals `data`. */
static int
with_address(PyObject *data, const socket_address *from, PyObject **result)
{
    PyObject *peer = data == NULL ? NULL : address_build(from);
    *result = peer == NULL ? NULL : PyTuple_New(2);
    if (*result == NULL) {
        Py_XDECREF(peer);
        Py_XDECREF(data);
        return TRY_FAILED;
    }
    PyTuple_SET_ITEM(*result, 0, data);
    PyTuple_SET_ITEM(*result, 1, peer);
    return TRY_DONE;
}

static int
try_large_recv(CoroObj *op, Py_ssize_t size, socket_address *from, PyObject **data)
{
    *data = PyBytes_FromStringAndSize(NULL, size);
    if (*data == NULL) {
        return TRY_FAILED;
    }
    ssize_t n;
    int result = op_receive(op, PyBytes_AS_STRING(*data), (size_t)size, from, &n);
    if (result != TRY_DONE) {
        Py_CLEAR(*data);
        return result;
    }
    return _PyBytes_Resize(data, n) < 0 ? TRY_FAILED : TRY_DONE;
}

/* A size as the socket module reads one, with its words for what is none; -1 also for -1. */
static Py_ssize_t
op_size(PyObject *obj)
{
    if (LIKELY(PyLong_CheckExact(obj))) {
        return PyLong_AsSsize_t(obj);
    }
    PyObject *index = PyNumber_Index(obj);
    Py_ssize_t size = index == NULL ? -1 : PyLong_AsSsize_t(index);
    Py_XDECREF(index);
    return size;
}

static int
try_recv_bytes(CoroObj *op, socket_address *from, PyObject **data)
{
    LoopObj *loop = op_loop(op);
    Py_ssize_t size = op_size(op->arg), n;
    if (size < 0 || (size == 0 && from == NULL)) {
        if (!PyErr_Occurred()) {
            return TRY_OTHER; // asyncio says what is wrong; recv(0) asks nobody
        }
        return TRY_FAILED;
    }
    if (UNLIKELY(size > READ_BUFFER_SIZE)) {
        return try_large_recv(op, size, from, data);
    }
    char *buffer = loop_take_read_buffer(loop);
    if (UNLIKELY(buffer == NULL)) {
        return TRY_FAILED;
    }
    int result = op_receive(op, buffer, (size_t)size, from, &n);
    if (LIKELY(result == TRY_DONE)) {
        *data = PyBytes_FromStringAndSize(buffer, n);
        result = *data == NULL ? TRY_FAILED : TRY_DONE;
    }
    loop_give_read_buffer(loop, buffer);
    return result;
}

static int
try_recv(CoroObj *op, PyObject **result)
{
    return try_recv_bytes(op, NULL, result);
}

static int
try_recvfrom(CoroObj *op, PyObject **result)
{
    socket_address from;
    PyObject *data;
    int tried = try_recv_bytes(op, &from, &data);
    return tried == TRY_DONE ? with_address(data, &from, result) : tried;
}

/* What is not a simple writable buffer, asyncio complains of. */
static int
op_buffer(PyObject *obj, Py_buffer *view)
{
    if (LIKELY(PyObject_GetBuffer(obj, view, PyBUF_WRITABLE) == 0)) {
        return TRY_DONE;
    }
    PyErr_Clear();
    return TRY_OTHER;
}

static int
try_recv_into(CoroObj *op, PyObject **result)
{
    Py_buffer view;
    ssize_t n = 0;
    int tried = op_buffer(op->arg, &view);
    if (tried != TRY_DONE) {
        return tried;
    }
    if (view.len > 0) {
        tried = op_receive(op, view.buf, (size_t)view.len, NULL, &n);
    }
    PyBuffer_Release(&view);
    if (tried == TRY_DONE) {
        *result = PyLong_FromSsize_t(n);
        return *result == NULL ? TRY_FAILED : TRY_DONE;
    }
    return tried;
}

static int
try_recvfrom_into(CoroObj *op, PyObject **result)
{
    Py_buffer view;
    socket_address from;
    ssize_t n = 0;
    Py_ssize_t size = 0;
    PyObject *buffer = PyTuple_GET_ITEM(op->arg, 0);
    if (PyTuple_GET_SIZE(op->arg) > 1) {
        PyObject *wanted = PyTuple_GET_ITEM(op->arg, 1);
        size = PyLong_CheckExact(wanted) ? PyLong_AsSsize_t(wanted) : -1;
        PyErr_Clear();
        if (size < 0) {
            return TRY_OTHER;
        }
    }
    int tried = op_buffer(buffer, &view);
    if (tried != TRY_DONE) {
        return tried;
    }
    if (PyObject_Size(buffer) != view.len || size > view.len) {
        PyErr_Clear();
        tried = TRY_OTHER; // what len() counts are not bytes; or an error
    }
    else {
        tried = op_receive(op, view.buf, (size_t)(size == 0 ? view.len : size), &from, &n);
    }
    PyBuffer_Release(&view);
    return tried == TRY_DONE ? with_address(PyLong_FromSsize_t(n), &from, result) : tried;
}

static ssize_t
op_send_some(int fd, const char *data, size_t size)
{
    if (LIKELY(size <= LONG_SEND)) {
        return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    ssize_t n;
    Py_BEGIN_ALLOW_THREADS n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    Py_END_ALLOW_THREADS return n;
}

/* From now on the data is a view of its own, whatever becomes of what we were given. */
static int
op_keep_data(CoroObj *op)
{
    PyObject *view = PyMemoryView_FromObject(op->arg);
    if (view == NULL) {
        return -1;
    }
    Py_SETREF(op->arg, view);
    return 0;
}

static int
try_sendall(CoroObj *op, PyObject **result)
{
    Py_buffer view;
    int tried = TRY_TURN;
    if (PyObject_GetBuffer(op->arg, &view, PyBUF_SIMPLE) < 0) {
        return TRY_FAILED;
    }
    if (UNLIKELY(op->n > view.len)) { // asked a second time, an object in Python may give another buffer
        PyErr_SetString(PyExc_BufferError, "the data has become shorter while it was sent");
        tried = TRY_FAILED;
    }
    for (int i = 0; i < SENDS_AT_ONCE && tried == TRY_TURN; i++) {
        ssize_t n = op_send_some(op_fd(op), (const char *)view.buf + op->n, (size_t)(view.len - op->n));
        if (UNLIKELY(n < 0)) {
            tried = op_failed_or_wait();
            break;
        }
        op->n += n;
        if (LIKELY(op->n == view.len)) {
            *result = Py_NewRef(Py_None);
            tried = TRY_DONE;
        }
    }
    if (UNLIKELY(tried == TRY_WAIT || tried == TRY_TURN) && op_watched_fd(op) < 0 && op_keep_data(op) < 0) {
        tried = TRY_FAILED;
    }
    PyBuffer_Release(&view);
    return tried;
}

static int
try_sendto(CoroObj *op, PyObject **result)
{
    socket_address to;
    PyObject *data = PyTuple_GET_ITEM(op->arg, 0), *address = PyTuple_GET_ITEM(op->arg, 1);
    int known = address_read(&to, op_family(op), address);
    if (known <= 0) {
        return known < 0 ? TRY_FAILED : TRY_OTHER;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return TRY_FAILED;
    }
    int tried = TRY_FAILED;
    if (PySys_Audit("socket.sendto", "OO", op->subject, address) == 0) {
        ssize_t n = sendto(
            op_fd(op), view.buf, (size_t)view.len, MSG_DONTWAIT | MSG_NOSIGNAL, &to.u.any, to.length);
        tried = LIKELY(n >= 0) ? TRY_DONE : op_failed_or_wait();
        if (tried == TRY_DONE) {
            *result = PyLong_FromSsize_t(n);
            tried = *result == NULL ? TRY_FAILED : TRY_DONE;
        }
    }
    PyBuffer_Release(&view);
    return tried;
}

/* asyncio names the address as getaddrinfo() would have given it. */
static int
connect_failed(CoroObj *op, int err)
{
    PyObject *peer = op->arg, *message = NULL, *exc = NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(peer);
    if (op_family(op) == AF_INET6 && n < 4) {
        PyObject *zero = PyLong_FromLong(0);
        peer = zero == NULL ? NULL
                            : PyTuple_Pack(4,
                                           PyTuple_GET_ITEM(peer, 0),
                                           PyTuple_GET_ITEM(peer, 1),
                                           n > 2 ? PyTuple_GET_ITEM(peer, 2) : zero,
                                           zero);
        Py_XDECREF(zero);
    }
    else {
        Py_INCREF(peer);
    }
    if (peer != NULL) {
        message = PyUnicode_FromFormat("Connect call failed %S", peer);
        Py_DECREF(peer);
    }
    if (message != NULL) {
        exc = PyObject_CallFunction(PyExc_OSError, "iN", err, message);
    }
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return TRY_FAILED;
}

static int
connect_outcome(CoroObj *op, PyObject **result)
{
    int err = 0;
    socklen_t size = sizeof(err);
    if (getsockopt(op_fd(op), SOL_SOCKET, SO_ERROR, &err, &size) < 0) {
        return op_failed();
    }
    if (err != 0) {
        return err == EAGAIN || err == EINPROGRESS || err == EINTR ? TRY_WAIT : connect_failed(op, err);
    }
    *result = Py_NewRef(Py_None);
    return TRY_DONE;
}

static int
try_connect(CoroObj *op, PyObject **result)
{
    if (op->n) {
        return connect_outcome(op, result);
    }
    PyObject *sock = op->subject, *address = op->arg;
    int type = socket_int(sock, op->st->io.sockets.type), proto = socket_int(sock, op->st->io.sockets.proto);
    socket_address to;
    if ((type != SOCK_STREAM && type != SOCK_DGRAM) || op_family(op) == AF_UNIX ||
        (proto != 0 && proto != IPPROTO_TCP && proto != IPPROTO_UDP)) {
        return TRY_OTHER;
    }
    int known = address_read(&to, op_family(op), address);
    if (known <= 0) {
        return known < 0 ? TRY_FAILED : TRY_OTHER;
    }
    int flags = fcntl(op_fd(op), F_GETFL);
    if (UNLIKELY(flags >= 0 && !(flags & O_NONBLOCK))) {
        return TRY_OTHER; // asyncio's own waits without the interpreter lock
    }
    if (PySys_Audit("socket.connect", "OO", sock, address) < 0) {
        return TRY_FAILED;
    }
    if (connect(op_fd(op), &to.u.any, to.length) == 0) {
        *result = Py_NewRef(Py_None);
        return TRY_DONE;
    }
    if (errno == EINPROGRESS || errno == EAGAIN || errno == EALREADY || errno == EINTR) {
        op->n = 1; // interrupted or not, it goes on by itself
        return TRY_WAIT;
    }
    return op_failed();
}

static int
try_accept(CoroObj *op, PyObject **result)
{
    if (UNLIKELY(socketobj_is_replaced(op->st))) {
        return TRY_OTHER;
    }
    socket_address from;
    memset(&from, 0, sizeof(from));
    int fd = socketobj_accept(op_fd(op), &from);
    return fd < 0 ? op_failed_or_wait() : with_address(socket_wrap(op->st, op->subject, fd), &from, result);
}

static int
op_try(CoroObj *op, PyObject **result)
{
    switch (op_kind_of(op)) {
    case OP_RECV:
        return try_recv(op, result);
    case OP_SENDALL:
        return try_sendall(op, result);
    case OP_RECV_INTO:
        return try_recv_into(op, result);
    case OP_RECVFROM:
        return try_recvfrom(op, result);
    case OP_RECVFROM_INTO:
        return try_recvfrom_into(op, result);
    case OP_SENDTO:
        return try_sendto(op, result);
    case OP_CONNECT:
        return try_connect(op, result);
    default:
        return try_accept(op, result);
    }
}

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
    int err = watch_once(loop, fd, side, fut, watch_wake);
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
