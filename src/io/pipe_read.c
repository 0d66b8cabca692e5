/* The reading side of a pipe, and what both have called when there is something to be read: the beginning, with
   connection_made(), and for a writing one the end, as its reader is gone then. */

#include "io/pipe_parts.h"

/* ---- beginning ---- */

static int
pipe_begin(PipeObj *p)
{
    TransportObj *t = &p->base;
    t->begun = 1;
    PyObject *waiter = p->waiter;
    p->waiter = NULL;
    transport_call_made(t);
    PyObject *raised = PyErr_GetRaisedException();
    /* connection_made() may have paused it or closed it, and nested calls of the loop even more. */
    int wanted = p->writes ? p->sees_hangup && !t->conn_lost : pipe_is_reading(p);
    if (t->loop != NULL && wanted) {
        (void)transport_wait(t, POLL_READ);
    }
    return transport_connected((PyObject *)p, waiter, raised);
}

/* ---- reading ---- */

/* The writer is gone: eof_received(), then connection_lost(), each in a turn of the ring as asyncio's handles. */
static int
pipe_end(PipeObj *p)
{
    TransportObj *t = &p->base;
    t->closing = p->eof_due = 1;
    transport_unwatch(t, POLL_READ);
    return transport_schedule(t) < 0 ? -1 : transport_lose(t, NULL);
}

static int
pipe_call_eof(PipeObj *p)
{
    TransportObj *t = &p->base;
    PyObject *protocol = Py_NewRef(t->protocol);
    p->eof_due = 0;
    PyObject *res = PyObject_CallMethodNoArgs(protocol, t->st->str.eof_received);
    int status = res == NULL ? transport_report_callback(t, protocol, t->st->str.eof_received, NULL) : 0;
    Py_XDECREF(res);
    Py_DECREF(protocol);
    return status;
}

static int
pipe_read_failed(PipeObj *p, int err)
{
    static const char message[] = "Fatal read error on pipe transport";
    TransportObj *t = &p->base;
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    if (err == EIO) {
        return transport_fatal_error(t, message); // how a terminal says that its other side is gone
    }
    PyObject *exc = PyErr_GetRaisedException();
    int status = transport_report(t, message, exc);
    if (status == 0) {
        status = transport_force_close(t, exc);
    }
    Py_DECREF(exc);
    return status;
}

static int
pipe_receive(PipeObj *p)
{
    TransportObj *t = &p->base;
    ssize_t n;
    int fd = pipe_fd(p);
    if (UNLIKELY(t->loop == NULL || !pipe_is_reading(p))) {
        return 0;
    }
    LoopObj *loop = (LoopObj *)Py_NewRef((PyObject *)t->loop);
    char *buffer = loop_take_read_buffer(loop);
    if (UNLIKELY(buffer == NULL)) {
        Py_DECREF(loop);
        return -1;
    }
    do {
        struct iovec iov = {buffer, READ_BUFFER_SIZE};
        n = pipe_transfer(p, fd, &iov, 1, POLL_READ);
    } while (n < 0 && errno == EINTR);
    int err = errno;
    PyObject *data = n > 0 ? PyBytes_FromStringAndSize(buffer, n) : NULL;
    loop_give_read_buffer(loop, buffer);
    Py_DECREF(loop);
    if (UNLIKELY(t->loop == NULL)) {
        Py_XDECREF(data);
        return n > 0 && data == NULL ? -1 : 0;
    }
    if (UNLIKELY(n < 0)) {
        return err == EAGAIN || err == EWOULDBLOCK ? 0 : pipe_read_failed(p, err);
    }
    if (UNLIKELY(n == 0)) {
        if (pipe_log_hangup(p) < 0) {
            return -1;
        }
        if (t->closing || t->loop == NULL) {
            return 0; // by a handler of the log's
        }
        return pipe_end(p);
    }
    if (data == NULL) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *res = PyObject_CallMethodOneArg(protocol, t->st->str.data_received, data);
    Py_DECREF(protocol);
    Py_DECREF(data);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
pipe_read_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    PipeObj *p = (PipeObj *)self;
    TransportObj *t = &p->base;
    int entered, status = 0;
    if (UNLIKELY(t->loop == NULL || transport_enter(t, &entered) < 0)) {
        return t->loop == NULL ? 0 : -1;
    }
    if (UNLIKELY(!t->begun)) {
        status = pipe_begin(p);
    }
    else if (p->writes) {
        status = t->conn_lost ? 0 : pipe_hung_up(p);
    }
    else if (UNLIKELY(p->eof_due)) {
        status = pipe_call_eof(p);
    }
    else if (LIKELY(pipe_is_reading(p))) {
        status = pipe_receive(p);
    }
    transport_exit(t, entered);
    return status;
}
