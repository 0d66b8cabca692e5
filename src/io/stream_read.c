/* Reading from a stream: one receive for each time the kernel tells of data, into a buffer that the loop's transports
   share.  The first turn of a transport is its beginning: connection_made(). */

#include "io/stream_parts.h"

/* ---- beginning ---- */

static int
begin(StreamObj *s)
{
    TransportObj *t = &s->base;
    t->begun = 1;
    int status = 0;
    PyObject *waiter = s->waiter;
    s->waiter = NULL;
    if (!t->conn_lost) {
        int err = transport_own(t);
        if (err < 0) {
            poll_raise(err);
            status = transport_fatal_error(t, "Fatal error on transport");
        }
    }
    if (status == 0) {
        transport_call_made(t);
    }
    return transport_connected((PyObject *)s, waiter, PyErr_GetRaisedException());
}

/* ---- reading ---- */

PART int
stream_is_reading(StreamObj *s)
{
    return !s->base.closing && !s->base.paused && !s->eof_seen && s->base.protocol != NULL;
}

static int
receive_eof(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (transport_debug(t, "%r received EOF") < 0) {
        return -1;
    }
    if (t->protocol == NULL) {
        return 0; // connection_lost() was called by who handles the line
    }
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, t->st->str.eof_received);
    Py_DECREF(protocol);
    int keep_open = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    if (keep_open < 0) {
        return transport_fatal_error(t, "Fatal error: protocol.eof_received() call failed.");
    }
    if (!keep_open) {
        return transport_close(t);
    }
    s->eof_seen = 1;
    if (t->loop != NULL) {
        transport_unwatch(t, POLL_READ);
    }
    return 0;
}

/* 0 and *n, which is -1 if there is nothing to read now; -1 if the connection is lost with it. */
static int
receive_into(StreamObj *s, char *buffer, size_t size, ssize_t *n)
{
    do {
        *n = recv(transport_descriptor(&s->base), buffer, size, MSG_DONTWAIT);
    } while (*n < 0 && errno == EINTR);
    if (LIKELY(*n >= 0) || errno == EAGAIN || errno == EWOULDBLOCK) {
        count_received(s->base.loop, *n);
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* What BufferedProtocol.get_buffer() gave is filled, and buffer_updated() called.  *n as receive_into()'s. */
static int
receive_buffered(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    TransportObj *t = &s->base;
    static const char get_failed[] = "Fatal error: protocol.get_buffer() call failed.";
    *n = -1;
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer = hint == NULL ? NULL : PyObject_CallMethodOneArg(protocol, t->st->str.get_buffer, hint);
    Py_XDECREF(hint);
    Py_buffer view;
    if (buffer == NULL) {
        return transport_fatal_error(t, get_failed);
    }
    Py_ssize_t items = PyObject_Length(buffer);
    if (items == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    if (items <= 0) {
        Py_DECREF(buffer);
        return transport_fatal_error(t, get_failed);
    }
    if (t->conn_lost || t->fd < 0 || !t->open) {
        Py_DECREF(buffer);
        return 0; // get_buffer() closed the connection
    }
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.200s",
                     Py_TYPE(buffer)->tp_name);
        Py_DECREF(buffer);
        return transport_fatal_error(t, "Fatal read error on socket transport");
    }
    int status = receive_into(s, view.buf, (size_t)view.len, n);
    PyBuffer_Release(&view);
    Py_DECREF(buffer);
    if (status < 0) {
        return transport_fatal_error(t, "Fatal read error on socket transport");
    }
    if (*n <= 0) {
        return 0;
    }
    PyObject *count = PyLong_FromSsize_t(*n);
    PyObject *res = count == NULL ? NULL
                                  : PyObject_CallMethodOneArg(protocol, t->st->str.buffer_updated, count);
    Py_XDECREF(count);
    if (res == NULL) {
        return transport_fatal_error(t, "Fatal error: protocol.buffer_updated() call failed.");
    }
    Py_DECREF(res);
    return 0;
}

/* Into the loop's buffer, and from there to a protocol that is ours. */
static int
receive_feed(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    LoopObj *loop = s->base.loop; // the caller holds it
    const sink_kind *sink = s->sink;
    char *buffer = loop_take_read_buffer(loop);
    int status = buffer == NULL ? -1 : receive_into(s, buffer, READ_BUFFER_SIZE, n);
    if (UNLIKELY(status < 0)) {
        loop_give_read_buffer(loop, buffer);
        return transport_fatal_error(&s->base, "Fatal read error on socket transport");
    }
    if (LIKELY(*n > 0)) {
        status = sink->feed(protocol, buffer, *n);
    }
    loop_give_read_buffer(loop, buffer);
    if (UNLIKELY(status < 0)) {
        return transport_fatal_error(&s->base, sink->failed);
    }
    return 0;
}

/* Where much comes at a time it is received into its own bytes object: copying 100 KiB takes as long as a system
   call.  What is less is copied from the loop's buffer, as the size is not known before. */
#define LARGE_READ (32 * 1024)

/* What is there to read.  NULL if that is nothing, with *n as receive_into()'s, or with an exception. */
static PyObject *
receive_bytes(StreamObj *s, ssize_t *n)
{
    LoopObj *loop = s->base.loop;
    PyObject *data = NULL;
    if (UNLIKELY(s->last_read >= LARGE_READ)) {
        size_t size = 2 * s->last_read < READ_BUFFER_SIZE ? 2 * s->last_read : READ_BUFFER_SIZE;
        data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (data == NULL || receive_into(s, PyBytes_AS_STRING(data), size, n) < 0 || *n <= 0) {
            Py_CLEAR(data);
        }
        else {
            (void)_PyBytes_Resize(&data, *n);
        }
    }
    else {
        char *buffer = loop_take_read_buffer(loop);
        if (LIKELY(buffer != NULL && receive_into(s, buffer, READ_BUFFER_SIZE, n) == 0 && *n > 0)) {
            data = PyBytes_FromStringAndSize(buffer, *n);
        }
        loop_give_read_buffer(loop, buffer);
    }
    if (*n > 0) {
        s->last_read = (size_t)*n;
    }
    return data;
}

static int
receive_plain(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    TransportObj *t = &s->base;
    PyObject *data = receive_bytes(s, n);
    if (UNLIKELY(data == NULL)) {
        return PyErr_Occurred() ? transport_fatal_error(t, "Fatal read error on socket transport") : 0;
    }
    PyObject *res = PyObject_CallMethodOneArg(protocol, t->st->str.data_received, data);
    Py_DECREF(data);
    if (UNLIKELY(res == NULL)) {
        return transport_fatal_error(t, "Fatal error: protocol.data_received() call failed.");
    }
    Py_DECREF(res);
    return 0;
}

static int
receive(StreamObj *s)
{
    TransportObj *t = &s->base;
    ssize_t n = -1;
    PyObject *protocol = Py_NewRef(t->protocol);
    int status = s->buffered       ? receive_buffered(s, protocol, &n)
                 : s->sink != NULL ? receive_feed(s, protocol, &n)
                                   : receive_plain(s, protocol, &n);
    Py_DECREF(protocol);
    if (UNLIKELY(status < 0)) {
        return -1;
    }
    return n == 0 && !t->conn_lost ? receive_eof(s) : 0;
}

PART int
stream_read_ready(LoopObj *loop, PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    int entered;
    if (UNLIKELY(t->loop == NULL || transport_enter(t, &entered) < 0)) {
        return t->loop == NULL ? 0 : -1;
    }
    (void)loop;
    int status = 0;
    if (UNLIKELY(!t->begun)) {
        status = begin(s);
    }
    else if (LIKELY(stream_is_reading(s))) {
        status = receive(s);
    }
    transport_exit(t, entered);
    return status;
}
