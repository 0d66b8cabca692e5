/* The writing side of a pipe: what is written at once, what waits in the queue, a reader that hangs up. */

#include "io/pipe_parts.h"

#define PIPE_CHUNKS 64

/* The reader is gone. */
PART int
pipe_hung_up(PipeObj *p)
{
    if (pipe_log_hangup(p) < 0) {
        return -1;
    }
    PyObject *exc = NULL;
    if (p->base.queue.length > 0 && (exc = PyObject_CallNoArgs(PyExc_BrokenPipeError)) == NULL) {
        return -1;
    }
    int status = transport_force_close(&p->base, exc);
    Py_XDECREF(exc);
    return status;
}

/* errno says why. */
static int
pipe_write_failed(PipeObj *p)
{
    p->lost_writes++;
    PyErr_SetFromErrno(PyExc_OSError);
    return transport_fatal_error(&p->base, "Fatal write error on pipe transport");
}

/* -1 with errno. */
static int
pipe_send_queue(PipeObj *p, int fd)
{
    write_queue *queue = &p->base.queue;
    while (queue->length > 0) {
        struct iovec iov[PIPE_CHUNKS];
        size_t asked;
        ssize_t n;
        int count = queue_iovec(queue, iov, PIPE_CHUNKS, &asked);
        PyObject *first = Py_NewRef(queue->chunks[queue->head].owner);
        do {
            n = pipe_transfer(p, fd, iov, count, POLL_WRITE);
        } while (n < 0 && errno == EINTR);
        int err = errno;
        Py_DECREF(first);
        errno = err;
        if (n < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        }
        queue_advance(queue, (size_t)n);
        if ((size_t)n < asked) {
            return 0;
        }
    }
    return 0;
}

PART int
pipe_send_waiting(TransportObj *t)
{
    PipeObj *p = (PipeObj *)t;
    if (t->queue.length == 0) {
        return 0;
    }
    int fd = pipe_fd(p);
    if (UNLIKELY(t->loop == NULL || t->conn_lost)) {
        return 0;
    }
    if (pipe_send_queue(p, fd) < 0) {
        return pipe_write_failed(p);
    }
    if (t->queue.length > 0 || t->loop == NULL || t->conn_lost) { // lost, by another thread
        return 0; // as asyncio, which resumes when all is written, whatever the limits
    }
    transport_unwatch(t, POLL_WRITE);
    if (transport_resume_protocol(t) < 0) {
        return -1;
    }
    if (t->closing && t->queue.length == 0 && !t->conn_lost && t->loop != NULL) {
        t->conn_lost++;
        return transport_end(t);
    }
    return 0;
}

/* Bytes of a lost connection go nowhere. */
static int
pipe_write_to_lost(PipeObj *p)
{
    static const char text[] = "pipe closed by peer or os.write(pipe, data) raised exception.";
    return transport_log_lost(&p->base, p->lost_writes++, text);
}

/* Write at once what the kernel takes; -1 with errno. */
static int
pipe_write_now(PipeObj *p, int fd, const char *data, size_t size, size_t *written)
{
    ssize_t n;
    do {
        struct iovec iov = {(void *)data, size};
        n = pipe_transfer(p, fd, &iov, 1, POLL_WRITE);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        return -1;
    }
    *written = n < 0 ? 0 : (size_t)n;
    return 0;
}

/* `owner`, which is taken, holds the memory; NULL if the memory may change after this call.  *failed is the
   error of the descriptor, which the caller deals with once it has let go of the memory. */
static int
pipe_write_bytes(PipeObj *p, int fd, PyObject *owner, const char *data, size_t size, int *failed)
{
    TransportObj *t = &p->base;
    size_t written = 0;
    *failed = 0;
    if (t->queue.length == 0) {
        if (pipe_write_now(p, fd, data, size, &written) < 0) {
            *failed = errno;
            Py_XDECREF(owner);
            return 0;
        }
        if (LIKELY(written == size)) {
            Py_XDECREF(owner);
            return 0;
        }
        if (t->loop == NULL || transport_wait(t, POLL_WRITE) < 0) {
            Py_XDECREF(owner);
            return t->loop == NULL && !PyErr_Occurred() ? 0 : -1; // lost meanwhile, by another thread
        }
    }
    if (owner == NULL) {
        owner = PyBytes_FromStringAndSize(data + written, (Py_ssize_t)(size - written));
        if (owner == NULL) {
            return -1;
        }
        data = PyBytes_AS_STRING(owner);
    }
    else {
        data += written;
    }
    if (queue_push(&t->queue, owner, data, size - written) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

PART int
pipe_write(PipeObj *p, PyObject *data)
{
    TransportObj *t = &p->base;
    Py_buffer view = {0};
    PyObject *owner = NULL;
    const char *bytes;
    size_t size;
    if (LIKELY(PyBytes_CheckExact(data))) {
        owner = Py_NewRef(data);
        bytes = PyBytes_AS_STRING(data);
        size = (size_t)PyBytes_GET_SIZE(data);
    }
    else if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyObject *repr = PyObject_Repr(data);
        if (repr != NULL) {
            PyErr_SetObject(PyExc_AssertionError, repr);
            Py_DECREF(repr);
        }
        return -1;
    }
    else if (PyMemoryView_Check(data) && !PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(data), 'C')) {
        owner = PyBytes_FromObject(data);
        if (owner == NULL) {
            return -1;
        }
        bytes = PyBytes_AS_STRING(owner);
        size = (size_t)PyBytes_GET_SIZE(owner);
    }
    else {
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return -1;
        }
        bytes = view.buf;
        size = (size_t)view.len;
    }
    int status = 0, failed = 0, fd = t->queue.length > 0 ? -1 : pipe_fd(p); // -1 is not used then
    if (size == 0 || t->closing || t->loop == NULL) {
        Py_XDECREF(owner);
        status = size == 0 ? 0 : pipe_write_to_lost(p);
    }
    else {
        status = pipe_write_bytes(p, fd, owner, bytes, size, &failed);
    }
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    if (failed) {
        errno = failed;
        return pipe_write_failed(p);
    }
    return status < 0 || t->loop == NULL ? status : transport_pause_protocol(t);
}

/* Close, once everything is written. */
PART int
pipe_write_eof(PipeObj *p)
{
    TransportObj *t = &p->base;
    if (t->closing || t->loop == NULL) {
        return 0;
    }
    t->closing = 1;
    return t->queue.length > 0 ? 0 : transport_lose(t, NULL);
}
