/* The system calls of sock_recv() and its relatives: one try of each operation, which ends it or says what comes next.

   They go to the descriptor itself, which is asked of the socket each time, and never wait. */

#include "io/sock_parts.h"

#include <fcntl.h>
#include <unistd.h>

/* Sending more than this gives up the interpreter lock. */
#define LONG_SEND (64 * 1024)
/* A peer that reads as fast as we write gets this many writes before the loop has a turn. */
#define SENDS_AT_ONCE 16

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
    count_received(op_loop(op), *n);
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
        count_sent(op_loop(op), n);
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
        count_sent(op_loop(op), n);
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

PART int
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
