/* sock_recv(), sock_sendall() and their relatives: coroutines in C.

   An operation tries the system call first, on the descriptor itself, and ends without a turn of the loop if
   that is enough.  Only after EAGAIN does it make a future, yield it, and have the loop watch the descriptor;
   when the task is woken it tries again.  So what a cancelled operation would have read is still there.

   Here is only what sockets usually are: a socket.socket whose methods nobody replaced, arguments of the usual
   types, addresses of which nothing has to be looked up.  Everything else is asyncio's own coroutine, either
   returned in place of ours or, if that shows later, driven by ours (`inner`). */

#include "transport.h"

#include <netinet/in.h>
#include <stddef.h>
#include <structmember.h>
#include <unistd.h>

/* Sending more than this gives up the interpreter lock. */
#define LONG_SEND (64 * 1024)
/* A peer that reads as fast as we write gets this many writes before the loop has a turn. */
#define SENDS_AT_ONCE 16

enum { OP_RECV, OP_RECV_INTO, OP_RECVFROM, OP_RECVFROM_INTO, OP_SENDALL, OP_SENDTO, OP_CONNECT, OP_ACCEPT };

enum {
    OP_NEW, // not awaited yet
    OP_TRYING, // about to make its system call
    OP_WAITING, // has yielded `fut`
    OP_DELEGATED, // is `inner`
    OP_ENDED,
};

typedef struct {
    PyObject_HEAD
    LoopObj *loop; // owned, as are all below until the operation has ended
    PyObject *sock;
    PyObject *arg; // the size, buffer, data or address; NULL for accept
    PyObject *arg2; // sendto's address, recvfrom_into's size, or NULL
    FutureObj *fut; // what it has yielded; NULL unless waiting
    PyObject *inner; // asyncio's coroutine, or NULL
    Py_buffer view; // sendall's data; view.obj is NULL until first tried
    Py_ssize_t done; // bytes that sendall has sent; connect: it is under way
    int fd; // while watching
    char kind;
    char state;
    char running; // send() or throw() is on the stack
    char watching; // the loop was asked to tell
    char held; // it counts among the users of the socket
} SockOp;

/* What a try comes to. */
enum { TRY_FAILED = -1, TRY_WAIT, TRY_DONE, TRY_OTHER, TRY_TURN };

static const struct {
    const char *name;
    const char *qualified;
    int min_args; // beside the socket
    int max_args;
    uint32_t side;
} op_kinds[] = {
#define KIND(name, min, max, side) {"sock_" name, "BaseSelectorEventLoop.sock_" name, min, max, side}
    [OP_RECV] = KIND("recv", 1, 1, POLL_READ),
    [OP_RECV_INTO] = KIND("recv_into", 1, 1, POLL_READ),
    [OP_RECVFROM] = KIND("recvfrom", 1, 1, POLL_READ),
    [OP_RECVFROM_INTO] = KIND("recvfrom_into", 1, 2, POLL_READ),
    [OP_SENDALL] = KIND("sendall", 1, 1, POLL_WRITE),
    [OP_SENDTO] = KIND("sendto", 2, 2, POLL_WRITE),
    [OP_CONNECT] = KIND("connect", 1, 1, POLL_WRITE),
    [OP_ACCEPT] = KIND("accept", 0, 0, POLL_READ),
#undef KIND
};

/* ---- the socket object ---- */

static inline int
socket_int(PyObject *sock, Py_ssize_t offset)
{
    return *(int *)((char *)sock + offset);
}

static inline int
socket_fd(const SockOp *op)
{
    return socket_int(op->sock, op->loop->st->sockets.fd);
}

/* Are the methods that we stand for the socket module's own, and is the descriptor where we think? */
static __attribute__((noinline)) int
socket_check(ctask_state *st, PyObject *sock)
{
    static const char *const names[] = {"recv",
                                        "recv_into",
                                        "recvfrom",
                                        "recvfrom_into",
                                        "send",
                                        "sendto",
                                        "connect",
                                        "getsockopt",
                                        "fileno",
                                        "gettimeout"};
    socket_layout *known = &st->sockets;
    if (known->fd == 0) {
        return 0;
    }
    int own = 1;
    for (size_t i = 0; own && i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *theirs = PyObject_GetAttrString(st->socket_type, names[i]);
        PyObject *base = theirs == NULL ? NULL : PyObject_GetAttrString(st->base_socket_type, names[i]);
        own = base != NULL && theirs == base;
        Py_XDECREF(theirs);
        Py_XDECREF(base);
    }
    if (own) {
        PyObject *accept = PyObject_GetAttrString(st->socket_type, "accept");
        own = accept == st->socket_accept;
        Py_XDECREF(accept);
    }
    if (own) {
        PyObject *number = PyObject_CallMethodNoArgs(sock, st->str.fileno);
        own = number != NULL && PyLong_AsLong(number) == socket_int(sock, known->fd);
        Py_XDECREF(number);
    }
    PyErr_Clear();
    known->version = own ? ((PyTypeObject *)st->socket_type)->tp_version_tag : 0;
    return own;
}

static inline int
socket_is_plain(ctask_state *st, PyObject *sock)
{
    if (Py_TYPE(sock) != (PyTypeObject *)st->socket_type) {
        return 0;
    }
    return (LIKELY(st->sockets.version == Py_TYPE(sock)->tp_version_tag && st->sockets.version != 0)) ||
           socket_check(st, sock);
}

/* socket.socket counts who still uses it, and closes its descriptor when the last has gone: so do its
   makefile()s, and so does an operation that waits.  Closing it meanwhile takes effect at the end. */
static int
socket_add_user(ctask_state *st, PyObject *sock, long delta)
{
    PyObject **count = (PyObject **)((char *)sock + st->sockets.io_refs);
    if (*count == NULL || !PyLong_CheckExact(*count)) {
        return 0;
    }
    long n = PyLong_AsLong(*count);
    PyObject *changed = n + delta < 0 ? NULL : PyLong_FromLong(n + delta);
    if (changed == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_SETREF(*count, changed);
    return 1;
}

static void
socket_drop_user(ctask_state *st, PyObject *sock)
{
    if (!socket_add_user(st, sock, -1) || *(PyObject **)((char *)sock + st->sockets.closed) != Py_True) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *res = PyObject_CallMethodNoArgs(sock, st->str.close);
    if (res == NULL) {
        PyErr_WriteUnraisable(sock);
    }
    Py_XDECREF(res);
    PyErr_SetRaisedException(raised);
}

/* A nonblocking socket for a descriptor that accept4() gave, which it takes also when it fails. */
static PyObject *
socket_wrap(ctask_state *st, PyObject *listener, int fd)
{
    /* With SOCK_NONBLOCK the object knows, and no system call is made. */
    int numbers[] = {socket_int(listener, st->sockets.family),
                     socket_int(listener, st->sockets.type) | SOCK_NONBLOCK,
                     socket_int(listener, st->sockets.proto),
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

/* After a system call that failed: TRY_WAIT, TRY_FAILED, or TRY_TURN for once more at once. */
static int
op_failed_or_wait(void)
{
    if (LIKELY(errno == EAGAIN || errno == EWOULDBLOCK)) {
        return TRY_WAIT;
    }
    if (errno == EINTR) {
        return PyErr_CheckSignals() < 0 ? TRY_FAILED : TRY_TURN;
    }
    return op_failed();
}

static int
op_receive(SockOp *op, void *buffer, size_t size, socket_address *from, ssize_t *n)
{
    int fd = socket_fd(op), result;
    do {
        if (from == NULL) {
            *n = recv(fd, buffer, size, MSG_DONTWAIT);
        }
        else {
            from->length = sizeof(from->u);
            *n = recvfrom(fd, buffer, size, MSG_DONTWAIT, &from->u.any, &from->length);
        }
        result = LIKELY(*n >= 0) ? TRY_DONE : op_failed_or_wait();
    } while (result == TRY_TURN);
    return result;
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
try_large_recv(SockOp *op, Py_ssize_t size, socket_address *from, PyObject **data)
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

static int
try_recv_bytes(SockOp *op, socket_address *from, PyObject **data)
{
    LoopObj *loop = op->loop;
    Py_ssize_t size = PyNumber_AsSsize_t(op->arg, PyExc_OverflowError), n;
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
try_recv(SockOp *op, PyObject **result)
{
    return try_recv_bytes(op, NULL, result);
}

static int
try_recvfrom(SockOp *op, PyObject **result)
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
try_recv_into(SockOp *op, PyObject **result)
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
try_recvfrom_into(SockOp *op, PyObject **result)
{
    Py_buffer view;
    socket_address from;
    ssize_t n = 0;
    Py_ssize_t size = 0;
    if (op->arg2 != NULL) {
        size = PyLong_CheckExact(op->arg2) ? PyLong_AsSsize_t(op->arg2) : -1;
        PyErr_Clear();
        if (size < 0) {
            return TRY_OTHER;
        }
    }
    int tried = op_buffer(op->arg, &view);
    if (tried != TRY_DONE) {
        return tried;
    }
    if (view.itemsize != 1 || size > view.len) {
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

static int
try_sendall(SockOp *op, PyObject **result)
{
    if (op->view.obj == NULL && PyObject_GetBuffer(op->arg, &op->view, PyBUF_SIMPLE) < 0) {
        return TRY_FAILED;
    }
    /* Until EAGAIN, also after a part was taken: only then is a change sure to come. */
    for (int i = 0; i < SENDS_AT_ONCE; i++) {
        ssize_t n = op_send_some(
            socket_fd(op), (const char *)op->view.buf + op->done, (size_t)(op->view.len - op->done));
        if (UNLIKELY(n < 0)) {
            int tried = op_failed_or_wait();
            if (tried != TRY_TURN) {
                return tried;
            }
            continue;
        }
        op->done += n;
        if (LIKELY(op->done == op->view.len)) {
            *result = Py_NewRef(Py_None);
            return TRY_DONE;
        }
    }
    return TRY_TURN;
}

static int
try_sendto(SockOp *op, PyObject **result)
{
    socket_address to;
    int known = address_read(&to, socket_int(op->sock, op->loop->st->sockets.family), op->arg2);
    if (known <= 0) {
        return known < 0 ? TRY_FAILED : TRY_OTHER;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(op->arg, &view, PyBUF_SIMPLE) < 0) {
        return TRY_FAILED;
    }
    int tried = TRY_FAILED;
    if (PySys_Audit("socket.sendto", "OO", op->sock, op->arg2) == 0) {
        ssize_t n;
        do {
            n = sendto(
                socket_fd(op), view.buf, (size_t)view.len, MSG_DONTWAIT | MSG_NOSIGNAL, &to.u.any, to.length);
            tried = LIKELY(n >= 0) ? TRY_DONE : op_failed_or_wait();
        } while (tried == TRY_TURN);
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
connect_failed(SockOp *op, int err)
{
    PyObject *peer = op->arg, *message = NULL, *exc = NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(peer);
    if (socket_int(op->sock, op->loop->st->sockets.family) == AF_INET6 && n < 4) {
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
try_connect(SockOp *op, PyObject **result)
{
    int fd = socket_fd(op);
    ctask_state *st = op->loop->st;
    if (op->done) {
        int err = 0;
        socklen_t size = sizeof(err);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0) {
            return op_failed();
        }
        if (err != 0) {
            return err == EAGAIN || err == EINPROGRESS || err == EINTR ? TRY_WAIT : connect_failed(op, err);
        }
        *result = Py_NewRef(Py_None);
        return TRY_DONE;
    }
    int type = socket_int(op->sock, st->sockets.type), proto = socket_int(op->sock, st->sockets.proto);
    socket_address to;
    if ((type != SOCK_STREAM && type != SOCK_DGRAM) ||
        (proto != 0 && proto != IPPROTO_TCP && proto != IPPROTO_UDP)) {
        return TRY_OTHER;
    }
    int known = address_read(&to, socket_int(op->sock, st->sockets.family), op->arg);
    if (known <= 0) {
        return known < 0 ? TRY_FAILED : TRY_OTHER;
    }
    if (PySys_Audit("socket.connect", "OO", op->sock, op->arg) < 0) {
        return TRY_FAILED;
    }
    if (connect(fd, &to.u.any, to.length) == 0) {
        *result = Py_NewRef(Py_None);
        return TRY_DONE;
    }
    if (errno == EINPROGRESS || errno == EAGAIN || errno == EALREADY || errno == EINTR) {
        op->done = 1; // interrupted or not, it goes on by itself
        return TRY_WAIT;
    }
    return op_failed();
}

static int
try_accept(SockOp *op, PyObject **result)
{
    socket_address from;
    for (;;) {
        memset(&from, 0, sizeof(from));
        from.length = sizeof(from.u);
        int fd = accept4(socket_fd(op), &from.u.any, &from.length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            return with_address(socket_wrap(op->loop->st, op->sock, fd), &from, result);
        }
        int tried = op_failed_or_wait();
        if (tried != TRY_TURN) {
            return tried;
        }
    }
}

static int
try_it(SockOp *op, PyObject **result)
{
    switch (op->kind) {
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

static PyObject *
stock_operation(ctask_state *st, int kind, PyObject *const *stack, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *function = PyObject_GetAttrString(st->stock_Loop, op_kinds[kind].name);
    if (function == NULL) {
        return NULL;
    }
    PyObject *coro = PyObject_Vectorcall(function, stack, (size_t)nargs, kwnames);
    Py_DECREF(function);
    return coro;
}

/* From here on the operation is asyncio's. */
static int
op_delegate(SockOp *op)
{
    PyObject *stack[] = {(PyObject *)op->loop, op->sock, op->arg, op->arg2};
    Py_ssize_t nargs = op->arg == NULL ? 2 : op->arg2 == NULL ? 3 : 4;
    PyObject *coro = stock_operation(op->loop->st, op->kind, stack, nargs, NULL);
    if (coro == NULL) {
        return -1;
    }
    op->inner = coro;
    op->state = OP_DELEGATED;
    return 0;
}

/* ---- waiting ---- */

static void
op_unwatch(SockOp *op)
{
    if (op->watching) {
        op->watching = 0;
        watch_forget_object(op->loop, op->fd, op_kinds[(int)op->kind].side, (PyObject *)op);
    }
}

/* The loop tells that the descriptor is ready: wake who waits for the future. */
static int
op_ready(LoopObj *loop, PyObject *owner)
{
    SockOp *op = (SockOp *)owner;
    op_unwatch(op);
    if (op->state != OP_WAITING || op->fut == NULL || op->fut->state != FUTURE_PENDING) {
        return 0;
    }
    FutureObj *fut = (FutureObj *)Py_NewRef(op->fut);
    int result = future_set_result(fut, loop->st, Py_None);
    Py_DECREF(fut);
    return result;
}

/* asyncio refuses to wait for a descriptor that a transport uses. */
static int
check_no_transport(SockOp *op, int fd)
{
    ctask_state *st = op->loop->st;
    poll_state *poll = &op->loop->poll;
    int owned = fd < poll->n_slots && poll->slots[fd].owned;
    PyObject *transports = PyObject_GetAttr((PyObject *)op->loop, st->str._transports);
    PyObject *data = transports == NULL ? NULL : PyObject_GetAttr(transports, st->str.data);
    Py_XDECREF(transports);
    if (LIKELY(!owned && data != NULL && PyDict_CheckExact(data) && PyDict_GET_SIZE(data) == 0)) {
        Py_DECREF(data);
        return 0;
    }
    PyErr_Clear();
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL) {
        Py_XDECREF(data);
        return -1;
    }
    int used = owned || data == NULL || !PyDict_CheckExact(data) ? 1 : PyDict_Contains(data, number);
    Py_XDECREF(data);
    if (used > 0) {
        PyObject *res = PyObject_CallMethodOneArg(
            (PyObject *)op->loop, st->str._ensure_fd_no_transport, number);
        used = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    Py_DECREF(number);
    return used;
}

/* Have the loop tell, and make the future that is to be yielded. */
static int
op_wait(SockOp *op, PyObject **result)
{
    LoopObj *loop = op->loop;
    int fd = socket_fd(op);
    if (fd < 0) {
        errno = EBADF; // closed by what ran since
        return op_failed();
    }
    if (loop_check_open(loop) < 0 || check_no_transport(op, fd) < 0) {
        return TRY_FAILED;
    }
    FutureObj *fut = (FutureObj *)future_create(loop->st, (PyObject *)loop);
    if (fut == NULL) {
        return TRY_FAILED;
    }
    int err = watch_once(loop, fd, op_kinds[(int)op->kind].side, (PyObject *)op, op_ready);
    if (err < 0) {
        Py_DECREF(fut);
        poll_raise(err);
        return TRY_FAILED;
    }
    op->fd = fd;
    op->watching = 1;
    op->fut = fut;
    op->state = OP_WAITING;
    /* A listening socket is let go of when it is closed: its address is wanted. */
    if (!op->held && op->kind != OP_ACCEPT) {
        op->held = (char)socket_add_user(loop->st, op->sock, 1);
    }
    fut->blocking = 1;
    *result = Py_NewRef(fut);
    return TRY_WAIT;
}

/* ---- the course of an operation ---- */

/* Give everything back.  An exception that is set stays set. */
static void
op_end(SockOp *op)
{
    op->state = OP_ENDED;
    if (op->loop == NULL) {
        return;
    }
    op_unwatch(op);
    LoopObj *loop = op->loop;
    PyObject *sock = op->sock, *arg = op->arg, *arg2 = op->arg2, *inner = op->inner;
    FutureObj *fut = op->fut;
    int held = op->held != 0;
    op->loop = NULL;
    op->sock = op->arg = op->arg2 = op->inner = NULL;
    op->fut = NULL;
    op->held = 0;
    /* From here on anything may run; the operation refers to nothing any more. */
    Py_buffer view = op->view;
    op->view.obj = NULL;
    PyObject *raised = PyErr_GetRaisedException();
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    if (held) {
        socket_drop_user(loop->st, sock);
    }
    Py_XDECREF(fut);
    Py_XDECREF(inner);
    Py_XDECREF(arg2);
    Py_XDECREF(arg);
    Py_DECREF(sock);
    Py_DECREF(loop);
    PyErr_SetRaisedException(raised);
}

/* 1 if the socket does not block, 0 if it does, -1. */
static int
is_nonblocking(SockOp *op)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(op->sock, op->loop->st->str.gettimeout);
    if (timeout == NULL) {
        return -1;
    }
    int result = PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0.0;
    Py_DECREF(timeout);
    return result;
}

/* The checks that come first.  connect() and accept() on a socket that blocks would stop everything: asyncio's
   own do so without the interpreter lock. */
static int
op_start(SockOp *op)
{
    op->state = OP_TRYING;
    if (LIKELY(!op->loop->debug && op->kind < OP_CONNECT)) {
        return 0;
    }
    int nonblocking = is_nonblocking(op);
    if (nonblocking != 0) {
        return nonblocking < 0 ? -1 : 0;
    }
    if (op->loop->debug) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
        return -1;
    }
    return op_delegate(op);
}

/* The future that was yielded is done: what came of it? */
static int
op_woken(SockOp *op)
{
    FutureObj *fut = op->fut;
    if (UNLIKELY(fut->state == FUTURE_PENDING)) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return -1;
    }
    op_unwatch(op);
    op->fut = NULL;
    op->state = OP_TRYING;
    if (LIKELY(fut->state == FUTURE_FINISHED && fut->exception == NULL)) {
        fut->log_traceback = 0;
        Py_DECREF(fut);
        return 0;
    }
    PyObject *res = PyObject_CallOneArg(op->loop->st->stock_result, (PyObject *)fut);
    Py_DECREF(fut);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static PySendResult
op_advance(SockOp *op, PyObject *value, PyObject **result)
{
    if (op->state == OP_NEW) {
        if (UNLIKELY(value != Py_None)) {
            op->state = OP_NEW;
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        if (op_start(op) < 0) {
            op_end(op);
            return PYGEN_ERROR;
        }
    }
    else if (op->state == OP_WAITING && op_woken(op) < 0) {
        op_end(op);
        return PYGEN_ERROR;
    }
    if (LIKELY(op->state == OP_TRYING)) {
        int tried = try_it(op, result);
        if (tried == TRY_WAIT) {
            tried = op_wait(op, result);
            if (LIKELY(tried == TRY_WAIT)) {
                return PYGEN_NEXT;
            }
        }
        if (tried == TRY_TURN) {
            *result = Py_NewRef(Py_None);
            return PYGEN_NEXT;
        }
        if (tried != TRY_OTHER || op_delegate(op) < 0) {
            op_end(op);
            return tried == TRY_DONE ? PYGEN_RETURN : PYGEN_ERROR;
        }
    }
    PyObject *inner = Py_NewRef(op->inner);
    PySendResult outcome = PyIter_Send(inner, value, result);
    Py_DECREF(inner);
    if (outcome != PYGEN_NEXT) {
        op_end(op);
    }
    return outcome;
}

/* 0 if the operation can go on; what is wrong otherwise. */
static int
op_check(SockOp *op)
{
    if (UNLIKELY(op->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (UNLIKELY(op->state == OP_ENDED)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    return 0;
}

static PySendResult
op_send(PyObject *self, PyObject *value, PyObject **result)
{
    SockOp *op = (SockOp *)self;
    *result = NULL;
    if (op_check(op) < 0) {
        return PYGEN_ERROR;
    }
    op->running = 1;
    PySendResult outcome = op_advance(op, value, result);
    op->running = 0;
    return outcome;
}

/* What the interpreter calls for `await`; returning NULL with nothing set stands for StopIteration(None). */
static PyObject *
op_iternext(PyObject *self)
{
    PyObject *result;
    if (op_send(self, Py_None, &result) != PYGEN_RETURN) {
        return result;
    }
    if (result != Py_None) {
        (void)set_stop_iteration(result);
    }
    Py_DECREF(result);
    return NULL;
}

PyDoc_STRVAR(op_send_doc, "send($self, value, /)\n--\n\nGo on until the next future; what a task calls.");

static PyObject *
op_send_method(PyObject *self, PyObject *value)
{
    PyObject *result;
    if (op_send(self, value, &result) == PYGEN_RETURN) {
        (void)set_stop_iteration(result);
        Py_CLEAR(result);
    }
    return result;
}

PyDoc_STRVAR(op_throw_doc, "Raise an exception where the operation waits, which ends it.");

static PyObject *
op_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    SockOp *op = (SockOp *)self;
    if (op_check(op) < 0) {
        return NULL;
    }
    if (op->inner == NULL) {
        if (future_throw_arguments(args, nargs) == 0) {
            op_end(op);
        }
        return NULL;
    }
    PyObject *inner = Py_NewRef(op->inner);
    op->running = 1;
    PyObject *function = PyObject_GetAttr(inner, op->loop->st->str.throw);
    PyObject *result = function == NULL ? NULL : PyObject_Vectorcall(function, args, (size_t)nargs, NULL);
    Py_XDECREF(function);
    Py_DECREF(inner);
    op->running = 0;
    if (result == NULL) {
        op_end(op);
    }
    return result;
}

PyDoc_STRVAR(op_close_doc, "close($self, /)\n--\n\nEnd the operation, wherever it is.");

static PyObject *
op_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    SockOp *op = (SockOp *)self;
    if (op->running) {
        return op_check(op) < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (op->inner != NULL) {
        PyObject *inner = Py_NewRef(op->inner);
        op->running = 1;
        PyObject *res = PyObject_CallMethodNoArgs(inner, op->loop->st->str.close);
        op->running = 0;
        Py_DECREF(inner);
        if (res == NULL) {
            op_end(op);
            return NULL;
        }
        Py_DECREF(res);
    }
    op_end(op);
    Py_RETURN_NONE;
}

/* What debug mode calls in place of op_ready(). */
static PyObject *
op_ready_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    SockOp *op = (SockOp *)self;
    if (op->loop != NULL && op_ready(op->loop, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
op_repr(PyObject *self)
{
    return PyUnicode_FromFormat(
        "<coroutine object %s at %p>", op_kinds[(int)((SockOp *)self)->kind].qualified, self);
}

static PyObject *
op_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(op_kinds[(int)((SockOp *)self)->kind].name);
}

static PyObject *
op_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(op_kinds[(int)((SockOp *)self)->kind].qualified);
}

/* ---- life ---- */

static int
op_traverse(PyObject *self, visitproc visit, void *arg)
{
    SockOp *op = (SockOp *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->loop);
    Py_VISIT(op->sock);
    Py_VISIT(op->arg);
    Py_VISIT(op->arg2);
    Py_VISIT(op->fut);
    Py_VISIT(op->inner);
    Py_VISIT(op->view.obj);
    return 0;
}

static int
op_clear(PyObject *self)
{
    op_end((SockOp *)self);
    return 0;
}

static void
op_finalize(PyObject *self)
{
    SockOp *op = (SockOp *)self;
    if (op->state != OP_NEW) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    op->state = OP_ENDED;
    if (PyErr_WarnFormat(
            PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", op_kinds[(int)op->kind].qualified) <
        0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_SetRaisedException(raised);
}

static void
op_dealloc(PyObject *self)
{
    SockOp *op = (SockOp *)self;
    if (UNLIKELY(op->state == OP_NEW) && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    ctask_state *st = PyType_GetModuleState(Py_TYPE(self));
    PyObject_GC_UnTrack(self);
    op_end(op);
    freelist_give(&st->free_sock_ops, self, 1);
}

static PyObject *
op_create(PyObject *self, int kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    LoopObj *loop = (LoopObj *)self;
    ctask_state *st = loop->st;
    int ours = kwnames == NULL && nargs > op_kinds[kind].min_args && nargs - 1 <= op_kinds[kind].max_args &&
               socket_is_plain(st, args[0]);
    if (ours && (kind == OP_RECVFROM || kind == OP_RECVFROM_INTO || kind == OP_ACCEPT || kind == OP_CONNECT)) {
        int family = socket_int(args[0], st->sockets.family);
        ours = address_family_known(family) && (kind != OP_CONNECT || family != AF_UNIX);
    }
    if (UNLIKELY(!ours)) {
        Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
        PyObject *small[8], **stack = small;
        if (nargs + nkw + 1 > (Py_ssize_t)Py_ARRAY_LENGTH(small)) {
            stack = PyMem_New(PyObject *, (size_t)(nargs + nkw) + 1);
            if (stack == NULL) {
                return PyErr_NoMemory();
            }
        }
        stack[0] = self;
        memcpy(stack + 1, args, (size_t)(nargs + nkw) * sizeof(*args));
        PyObject *coro = stock_operation(st, kind, stack, nargs + 1, kwnames);
        if (stack != small) {
            PyMem_Free(stack);
        }
        return coro;
    }
    SockOp *op = (SockOp *)freelist_take(&st->free_sock_ops, st->SockOpType);
    if (op == NULL) {
        return NULL;
    }
    op->loop = (LoopObj *)Py_NewRef(loop);
    op->sock = Py_NewRef(args[0]);
    op->arg = nargs > 1 ? Py_NewRef(args[1]) : NULL;
    op->arg2 = nargs > 2 ? Py_NewRef(args[2]) : NULL;
    op->fut = NULL;
    op->inner = NULL;
    op->view.obj = NULL;
    op->done = 0;
    op->fd = -1;
    op->kind = (char)kind;
    op->state = OP_NEW;
    op->running = op->watching = op->held = 0;
    PyObject_GC_Track(op);
    return (PyObject *)op;
}

/* ---- the loop's methods ---- */

PART void
sock_let_go(poll_slot *slot)
{
    SockOp *waiting[2] = {NULL, NULL};
    if (slot->read_ready == op_ready) {
        waiting[0] = (SockOp *)Py_XNewRef(slot->reader);
    }
    if (slot->write_ready == op_ready) {
        waiting[1] = (SockOp *)Py_XNewRef(slot->writer);
    }
    for (int i = 0; i < 2; i++) {
        SockOp *op = waiting[i];
        if (op != NULL && op->held) {
            PyObject *sock = Py_NewRef(op->sock);
            op->held = 0;
            socket_drop_user(op->loop->st, sock);
            Py_DECREF(sock);
        }
        Py_XDECREF(op);
    }
}

#define METHOD(function, kind)                                                                            \
    static PyObject *function(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) \
    {                                                                                                     \
        return op_create(self, kind, args, nargs, kwnames);                                               \
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

PyDoc_STRVAR(sock_recv_doc,
"sock_recv($self, sock, n)\n--\n\n"
"Receive up to `n` bytes; return bytes, empty at the end of the stream.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_recv)");

PyDoc_STRVAR(sock_recv_into_doc,
"sock_recv_into($self, sock, buf)\n--\n\n"
"Receive into a writable buffer; return the number of bytes.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_recv_into)");

PyDoc_STRVAR(sock_recvfrom_doc,
"sock_recvfrom($self, sock, bufsize)\n--\n\n"
"Receive a datagram of up to `bufsize` bytes; return it and the sender's address.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_recvfrom)");

PyDoc_STRVAR(sock_recvfrom_into_doc,
"sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\n"
"Receive a datagram of up to `nbytes` bytes (0: as many as fit) into a writable buffer; return the number of\n"
"bytes and the sender's address.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_recvfrom_into)");

PyDoc_STRVAR(sock_sendall_doc,
"sock_sendall($self, sock, data)\n--\n\n"
"Send all of `data`.\n\n"
"A coroutine.  Raises OSError; how much was sent cannot be told then.  (asyncio.loop.sock_sendall)");

PyDoc_STRVAR(sock_sendto_doc,
"sock_sendto($self, sock, data, address)\n--\n\n"
"Send a datagram to `address`; return the number of bytes sent.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_sendto)");

PyDoc_STRVAR(sock_connect_doc,
"sock_connect($self, sock, address)\n--\n\n"
"Connect to `address`, looking up its host with getaddrinfo() if that is a name.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_connect)");

PyDoc_STRVAR(sock_accept_doc,
"sock_accept($self, sock)\n--\n\n"
"Accept a connection; return its socket, which does not block, and the peer's address.\n\n"
"A coroutine.  Raises OSError.  (asyncio.loop.sock_accept)");

#define ENTRY(name, function, doc) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, doc}

static PyMethodDef sock_methods[] = {
    ENTRY("sock_recv", Loop_sock_recv, sock_recv_doc),
    ENTRY("sock_recv_into", Loop_sock_recv_into, sock_recv_into_doc),
    ENTRY("sock_recvfrom", Loop_sock_recvfrom, sock_recvfrom_doc),
    ENTRY("sock_recvfrom_into", Loop_sock_recvfrom_into, sock_recvfrom_into_doc),
    ENTRY("sock_sendall", Loop_sock_sendall, sock_sendall_doc),
    ENTRY("sock_sendto", Loop_sock_sendto, sock_sendto_doc),
    ENTRY("sock_connect", Loop_sock_connect, sock_connect_doc),
    ENTRY("sock_accept", Loop_sock_accept, sock_accept_doc),
    {NULL, NULL, 0, NULL},
};
#undef ENTRY

static PyMethodDef op_methods[] = {
    {"send", op_send_method, METH_O, op_send_doc},
    {"throw", (PyCFunction)(void (*)(void))op_throw, METH_FASTCALL, op_throw_doc},
    {"close", op_close, METH_NOARGS, op_close_doc},
    {"_read_ready", op_ready_method, METH_NOARGS, NULL},
    {"_write_ready", op_ready_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef op_getset[] = {
    {"__name__", op_get_name, NULL, NULL, NULL},
    {"__qualname__", op_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(op_doc, "The coroutine that a sock_*() method of the loop returns.");

static PyType_Slot op_slots[] = {
    {Py_tp_doc, (void *)op_doc},
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_finalize, op_finalize},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_repr, op_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, op_iternext},
    {Py_tp_methods, op_methods},
    {Py_tp_getset, op_getset},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, op_send},
    {0, NULL},
};

static PyType_Spec op_spec = {
    .name = "ctask.SockOperation",
    .basicsize = sizeof(SockOp),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = op_slots,
};

/* Where a C structure's member or a slot of a Python class is, as the class itself says; 0 if it does not. */
static Py_ssize_t
member_offset(PyObject *type, const char *name, int kind)
{
    Py_ssize_t offset = 0;
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
        ((PyMemberDescrObject *)descriptor)->d_member->type == kind) {
        offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    Py_XDECREF(descriptor);
    PyErr_Clear();
    return offset;
}

PART int
sock_setup(PyObject *module, ctask_state *st)
{
    socket_layout *known = &st->sockets;
    known->family = member_offset(st->base_socket_type, "family", T_INT);
    known->type = member_offset(st->base_socket_type, "type", T_INT);
    known->proto = member_offset(st->base_socket_type, "proto", T_INT);
    known->io_refs = member_offset(st->socket_type, "_io_refs", T_OBJECT_EX);
    known->closed = member_offset(st->socket_type, "_closed", T_OBJECT_EX);
    /* The descriptor is the first member, before the family; socket_check() compares it with fileno(). */
    int as_known = known->family == (Py_ssize_t)(sizeof(PyObject) + sizeof(int)) && known->type > 0 &&
                   known->proto > 0 && known->io_refs > 0 && known->closed > 0;
    known->fd = as_known ? (Py_ssize_t)sizeof(PyObject) : 0;
    st->socket_accept = PyObject_GetAttrString(st->socket_type, "accept");
    if (st->socket_accept == NULL || add_type(module, NULL, &st->SockOpType, &op_spec, NULL) < 0) {
        return -1;
    }
    return add_methods(st->LoopType, sock_methods);
}
