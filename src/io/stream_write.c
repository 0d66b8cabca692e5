/* Writing to a stream: what is sent at once, what waits in the queue, the end of the writing side.

   write() sends at once, and what the kernel does not take waits in a queue of the caller's own objects: nothing else
   ever does.  That the writes of one callback (head and body of a response) leave in one packet is the kernel's
   doing: see hold_back(). */

#include "io/stream_parts.h"

#include <netinet/tcp.h>
#include <sys/ioctl.h>

#define CHUNKS_AT_ONCE 64
/* What is larger fills packets by itself: holding its end back costs two system calls, and saves little. */
#define WORTH_JOINING (16 * 1024)

/* ---- writing ---- */

/* The callback has ended with less writes than usual.  (Of a socket that was detached meanwhile, as well; should the
   number be another connection's by now, nothing changes for that one.) */
static void
stream_uncork(LoopObj *loop)
{
    StreamObj *s = (StreamObj *)loop->corked;
    loop->corked = NULL;
    int corked = 1, fd = s->base.fd;
    socklen_t length = sizeof(corked);
    /* Unless the program has corked it itself. */
    if (getsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, &length) == 0 && !corked) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, length);
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_DECREF(s);
    PyErr_SetRaisedException(raised);
}

/* MSG_MORE, if the packet will be sent for sure when the callback ends: in the loop's own thread, while one runs.
   One connection at a time.  Not while there is something to be read: who closes the socket then, or ends the process,
   resets the connection, and the kernel drops what it waits with. */
static __attribute__((noinline)) int
stream_cork(StreamObj *s)
{
    LoopObj *loop = s->base.loop;
    int unread;
    if (!s->is_tcp || loop->draining != PyThreadState_Get() ||
        (loop->corked != NULL && loop->corked != (PyObject *)s) ||
        ioctl(transport_descriptor(&s->base), FIONREAD, &unread) < 0 || unread > 0) {
        return 0;
    }
    if (loop->corked == NULL) {
        loop->corked = Py_NewRef((PyObject *)s);
        loop->uncork = stream_uncork;
    }
    return MSG_MORE;
}

/* Send what the queue has, up to what the kernel takes. */
static int
send_queue(StreamObj *s, int more)
{
    TransportObj *t = &s->base;
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT | more;
    while (t->queue.length > 0) {
        int fd = transport_descriptor(t); // what was sent may have closed it as it went
        struct iovec iov[CHUNKS_AT_ONCE];
        size_t asked;
        ssize_t n;
        int count = queue_iovec(&t->queue, iov, CHUNKS_AT_ONCE, &asked);
        do {
            if (count == 1) {
                n = send(fd, iov[0].iov_base, iov[0].iov_len, flags);
            }
            else {
                struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
                n = sendmsg(fd, &message, flags);
            }
        } while (n < 0 && errno == EINTR);
        if (n < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                return 0;
            }
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        count_sent(t->loop, n);
        queue_advance(&t->queue, (size_t)n);
        if ((size_t)n < asked) {
            return 0;
        }
    }
    return 0;
}

/* Sending failed, with the exception set: the connection is lost. */
static int
write_failed(StreamObj *s)
{
    TransportObj *t = &s->base;
    PyObject *exc = PyErr_GetRaisedException();
    PyErr_SetRaisedException(Py_NewRef(exc));
    int status = transport_fatal_error(t, "Fatal write error on socket transport");
    if (s->empty_waiter != NULL && status == 0) {
        PyObject *res = PyObject_CallMethod(s->empty_waiter, "set_exception", "O", exc);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    Py_DECREF(exc);
    return status;
}

static int
wait_until_writable(StreamObj *s)
{
    TransportObj *t = &s->base;
    int err = transport_watch(t, POLL_WRITE);
    if (LIKELY(err == 0)) {
        return 0;
    }
    poll_raise(err);
    return write_failed(s);
}

static int
shut_down(StreamObj *s)
{
    if (shutdown(transport_descriptor(&s->base), SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* The queue has become empty. */
static int
all_sent(StreamObj *s)
{
    TransportObj *t = &s->base;
    transport_unwatch(t, POLL_WRITE);
    if (s->empty_waiter != NULL) {
        PyObject *res = PyObject_CallMethod(s->empty_waiter, "set_result", "O", Py_None);
        Py_XDECREF(res);
        if (res == NULL) {
            return -1;
        }
    }
    if (t->closing && !t->conn_lost) {
        t->conn_lost = 1;
        return transport_lost_ready(t->loop, (PyObject *)s);
    }
    return s->eof_sent && t->open && !t->conn_lost ? shut_down(s) : 0;
}

/* Send what waits for the kernel. */
PART int
stream_send_waiting(TransportObj *t)
{
    StreamObj *s = (StreamObj *)t;
    if (t->queue.length == 0) {
        transport_unwatch(t, POLL_WRITE);
        return 0;
    }
    if (send_queue(s, 0) < 0) {
        return write_failed(s);
    }
    if (transport_resume_protocol(t) < 0) { // which may write
        return -1;
    }
    if (t->conn_lost || t->loop == NULL) {
        return 0;
    }
    return t->queue.length == 0 ? all_sent(s) : wait_until_writable(s);
}

PART int
stream_call_lost(TransportObj *t)
{
    StreamObj *s = (StreamObj *)t;
    PyObject *waiter = s->empty_waiter;
    s->empty_waiter = NULL;
    if (Py_REFCNT(s) > 1) {
        stream_remember_own_address(s); // not only the ring and the poller hold it: somebody may ask
    }
    int status = transport_end(t);
    if (waiter != NULL) {
        PyObject *raised = PyErr_GetRaisedException();
        PyObject *exc = PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
        PyObject *done = exc == NULL ? NULL : PyObject_CallMethod(waiter, "done", NULL);
        PyObject *res = NULL;
        if (done == Py_False) {
            res = PyObject_CallMethod(waiter, "set_exception", "O", exc);
        }
        if (PyErr_Occurred()) {
            PyErr_WriteUnraisable((PyObject *)s);
        }
        Py_XDECREF(res);
        Py_XDECREF(done);
        Py_XDECREF(exc);
        Py_DECREF(waiter);
        PyErr_SetRaisedException(raised);
    }
    return status;
}

static int
check_writable(StreamObj *s, const char *method)
{
    if (UNLIKELY(s->eof_sent)) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (UNLIKELY(s->empty_waiter != NULL)) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 0;
}

/* Put bytes on the queue; `owner` is taken. */
static int
enqueue(StreamObj *s, PyObject *owner, const char *data, size_t size)
{
    if (UNLIKELY(queue_push(&s->base.queue, owner, data, size) < 0)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The queue has grown. */
static int
after_enqueue(StreamObj *s)
{
    if (wait_until_writable(s) < 0) {
        return -1;
    }
    return s->base.conn_lost ? 0 : transport_pause_protocol(&s->base);
}

/* The flags for the next send: MSG_MORE where this callback is going to write again, going by the last two that
   wrote.  The bytes are the kernel's at once, whatever becomes of the callback or the process; it only waits with
   the packet for the next ones, 200 ms at most. */
static inline int
hold_back(StreamObj *s, size_t size)
{
    LoopObj *loop = s->base.loop;
    size_t turn = loop->ready.head;
    if (LIKELY(s->write_turn != turn)) {
        s->write_turn = turn;
        s->usual_writes = Py_MIN(s->last_writes, s->writes);
        s->last_writes = s->writes;
        s->writes = 0;
    }
    s->writes += s->writes < UCHAR_MAX;
    if (UNLIKELY(s->writes < s->usual_writes) && size < WORTH_JOINING) {
        return stream_cork(s);
    }
    if (UNLIKELY(loop->corked == (PyObject *)s)) {
        Py_CLEAR(loop->corked); // what is sent now takes with it what waits
    }
    return 0;
}

/* -1 with an exception; *n is what the kernel took of it. */
static inline int
send_now(StreamObj *s, const char *data, size_t size, size_t *n)
{
    int fd = transport_descriptor(&s->base), flags = MSG_NOSIGNAL | MSG_DONTWAIT | hold_back(s, size);
    ssize_t sent;
    do {
        sent = send(fd, data, size, flags);
    } while (sent < 0 && errno == EINTR);
    if (LIKELY(sent >= 0)) {
        count_sent(s->base.loop, sent);
        *n = (size_t)sent;
        return 0;
    }
    *n = 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int
write_chunk(StreamObj *s, PyObject *data, const char *bytes, size_t size)
{
    TransportObj *t = &s->base;
    size_t sent = 0;
    int blocked = t->queue.length > 0;
    if (LIKELY(!blocked)) {
        if (UNLIKELY(send_now(s, bytes, size, &sent) < 0)) {
            return write_failed(s);
        }
        if (LIKELY(sent == size)) {
            return 0;
        }
    }
    bytes += sent;
    size -= sent;
    PyObject *owner = Py_XNewRef(data);
    if (owner == NULL) {
        owner = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
        if (owner == NULL) {
            return -1;
        }
        bytes = PyBytes_AS_STRING(owner);
    }
    if (enqueue(s, owner, bytes, size) < 0) {
        return -1;
    }
    return blocked ? transport_pause_protocol(t) : after_enqueue(s);
}

/* Memory in pieces: the connection is lost, as send() would refuse it. */
static int
not_contiguous(StreamObj *s)
{
    PyErr_SetString(PyExc_BufferError, "memoryview: underlying buffer is not C-contiguous");
    return write_failed(s);
}

/* Memory that may change after write() has returned is copied; memory that cannot is kept by a view. */
static int
write_view(StreamObj *s, PyObject *data)
{
    PyObject *view = PyMemoryView_FromObject(data);
    if (view == NULL) {
        return -1;
    }
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    int status = -1;
    if (!PyBuffer_IsContiguous(buffer, 'C')) {
        status = not_contiguous(s);
    }
    else if (buffer->len == 0) {
        status = 0;
    }
    else if (s->base.conn_lost) { // the view was made by a __buffer__() that ended the connection
        status = transport_write_lost(&s->base);
    }
    else {
        status = write_chunk(s, buffer->readonly ? view : NULL, buffer->buf, (size_t)buffer->len);
    }
    Py_DECREF(view);
    return status;
}

PART int
stream_write(StreamObj *s, PyObject *data)
{
    TransportObj *t = &s->base;
    /* A wheel serves every release of 3.13. */
    if (UNLIKELY(!PyBytes_Check(data)) &&
        transport_check_data(data,
                             Py_Version >= 0x030D0900 ? "bytes, bytearray, or memoryview" : "bytes-like") < 0) {
        return -1;
    }
    if (check_writable(s, "write") < 0) {
        return -1;
    }
    if (LIKELY(PyBytes_CheckExact(data))) {
        Py_ssize_t size = PyBytes_GET_SIZE(data);
        if (UNLIKELY(size == 0)) {
            return 0;
        }
        if (UNLIKELY(t->conn_lost)) {
            return transport_write_lost(t);
        }
        return write_chunk(s, data, PyBytes_AS_STRING(data), (size_t)size);
    }
    int truth = PyObject_IsTrue(data);
    if (truth <= 0) {
        return truth;
    }
    return t->conn_lost ? transport_write_lost(t) : write_view(s, data);
}

PART int
stream_write_raw(PyObject *transport, const char *data, Py_ssize_t n)
{
    StreamObj *s = (StreamObj *)transport;
    if (check_writable(s, "write") < 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    return s->base.conn_lost ? transport_write_lost(&s->base) : write_chunk(s, NULL, data, (size_t)n);
}

PART PyObject *
Stream_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *data = single_argument(self, "write", "data", args, nargs, kwnames);
    if (UNLIKELY(data == NULL || stream_write((StreamObj *)self, data) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PART PyObject *
Stream_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *lines = single_argument(self, "writelines", "list_of_data", args, nargs, kwnames);
    if (lines == NULL) {
        return NULL;
    }
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    if (check_writable(s, "writelines") < 0) {
        return NULL;
    }
    int any = PyObject_IsTrue(lines);
    if (any <= 0) {
        return any < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *chunks = PySequence_List(lines);
    if (chunks == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyList_GET_SIZE(chunks);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!PyBytes_CheckExact(PyList_GET_ITEM(chunks, i))) {
            PyObject *view = PyMemoryView_FromObject(PyList_GET_ITEM(chunks, i));
            if (view == NULL) {
                Py_DECREF(chunks);
                return NULL;
            }
            PyList_SetItem(chunks, i, view);
        }
    }
    if (n == 0) {
        Py_DECREF(chunks);
        Py_RETURN_NONE;
    }
    if (t->conn_lost) {
        Py_DECREF(chunks);
        if (transport_write_lost(t) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    int blocked = t->queue.length > 0, status = 0;
    for (Py_ssize_t i = 0; i < n && status == 0; i++) {
        PyObject *chunk = PyList_GET_ITEM(chunks, i);
        const char *data;
        Py_ssize_t size;
        if (PyBytes_CheckExact(chunk)) {
            data = PyBytes_AS_STRING(chunk);
            size = PyBytes_GET_SIZE(chunk);
            Py_INCREF(chunk);
        }
        else {
            Py_buffer *buffer = PyMemoryView_GET_BUFFER(chunk);
            if (!PyBuffer_IsContiguous(buffer, 'C')) {
                status = not_contiguous(s);
                break;
            }
            int keep = buffer->readonly;
            chunk = keep ? Py_NewRef(chunk) : PyBytes_FromObject(chunk);
            if (chunk == NULL) {
                status = -1;
                break;
            }
            data = keep ? buffer->buf : PyBytes_AS_STRING(chunk);
            size = keep ? buffer->len : PyBytes_GET_SIZE(chunk);
        }
        if (size == 0) {
            Py_DECREF(chunk);
            continue;
        }
        status = enqueue(s, chunk, data, (size_t)size);
    }
    Py_DECREF(chunks);
    if (t->queue.length > 0 && !t->conn_lost && t->loop != NULL) {
        if (!blocked) {
            if (send_queue(s, hold_back(s, t->queue.size)) < 0) {
                status = write_failed(s);
            }
        }
#if PY_VERSION_HEX >= 0x030C0000 // before, it is write() of the lines joined
        else if (stream_send_waiting(t) < 0) {
            status = -1;
        }
#endif
        if (t->queue.length > 0 && !t->conn_lost && t->loop != NULL && after_enqueue(s) < 0) {
            status = -1;
        }
    }
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PART PyObject *
Stream_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    if (s->base.closing || s->eof_sent) {
        Py_RETURN_NONE;
    }
    s->eof_sent = 1;
    if (s->base.queue.length == 0 && shut_down(s) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PART PyObject *
Stream_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}
