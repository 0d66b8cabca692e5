/* Writing: what waits to be encrypted, and what is encrypted and waits for the transport below.

   It owns the backlog of a connection and the outgoing half of its pipe (openssl.h).  No callback of the application's
   protocol is called from here but by tls_control_writing(). */

#include "io/stream.h"
#include "tls/tls_parts.h"

#define FLUSH_AT (64 * 1024) // ciphertext that is handed on before more is made
#define LOST_WRITES_TO_WARN 5 // asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES

/* ---- what is to be sent ---- */

/* Let OpenSSL write into the interpreter's buffer: there is nothing to allocate then. */
static void
output_lend(TlsObj *self)
{
    struct tls_buffers *buffers = self->st->tls.buffers;
    openssl_pipe *pipe = &self->pipe;
    if (self->ssl != NULL && pipe->out == NULL && buffers != NULL && !buffers->out_used) {
        buffers->out_used = 1;
        pipe->out = buffers->out;
        pipe->out_size = sizeof(buffers->out);
        pipe->out_start = pipe->out_end = 0;
        pipe->out_lent = 1;
        self->lending = 1;
    }
}

/* Forget what is in it. */
PART void
tls_output_release(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    if (!pipe->out_lent) {
        free(pipe->out);
    }
    pipe->out = NULL;
    pipe->out_size = pipe->out_start = pipe->out_end = 0;
    pipe->out_lent = 0;
    if (self->lending) {
        self->lending = 0;
        self->st->tls.buffers->out_used = 0;
    }
}

/* Give the interpreter's buffer back, what is in it kept in one of our own. */
static int
output_settle(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    if (pipe->out_start == pipe->out_end) {
        tls_output_release(self);
        return 0;
    }
    if (pipe->out_lent && openssl_own_output(pipe, 0) < 0) {
        tls_output_release(self);
        PyErr_NoMemory();
        return -1;
    }
    if (self->lending) {
        self->lending = 0;
        self->st->tls.buffers->out_used = 0;
    }
    return 0;
}

PART Py_ssize_t
tls_outgoing_size(TlsObj *self)
{
    if (LIKELY(self->ssl != NULL)) {
        return self->backlog_bytes + (Py_ssize_t)(self->pipe.out_end - self->pipe.out_start);
    }
    Py_ssize_t n = self->outgoing == NULL ? 0 : tls_bio_size(self, self->outgoing);
    return n < 0 ? -1 : n + self->backlog_bytes;
}

/* To a transport of our own: it sends from our memory and copies what the kernel does not take. */
static int
output_to_stream(TlsObj *self, Py_ssize_t length)
{
    openssl_pipe pipe = self->pipe;
    char lending = self->lending;
    self->pipe.out = NULL; // whatever is called may write anew
    self->pipe.out_size = self->pipe.out_start = self->pipe.out_end = 0;
    self->pipe.out_lent = self->lending = 0;
    PyObject *transport = Py_NewRef(self->transport);
    int result = stream_write_raw(transport, pipe.out + pipe.out_start, length);
    Py_DECREF(transport);
    if (!pipe.out_lent) {
        free(pipe.out);
    }
    if (lending) {
        self->st->tls.buffers->out_used = 0;
    }
    return result;
}

/* The ciphertext, which is no longer here then; NULL without an exception if there is none. */
static PyObject *
output_take(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    PyObject *data;
    if (self->ssl != NULL) {
        data = PyBytes_FromStringAndSize(pipe->out + pipe->out_start,
                                         (Py_ssize_t)(pipe->out_end - pipe->out_start));
        if (data != NULL) {
            tls_output_release(self);
        }
        return data;
    }
    data = PyObject_CallMethodNoArgs(self->outgoing, self->st->str.read);
    if (data != NULL && PyObject_Size(data) <= 0) {
        Py_CLEAR(data);
    }
    return data;
}

/* Hand the ciphertext to the transport below, unless it has asked for a pause. */
static int
output_flush(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    if (self->writing_paused || self->transport == NULL) {
        return output_settle(self);
    }
    if (self->ssl != NULL) {
        size_t length = pipe->out_end - pipe->out_start;
        if (length == 0) {
            return output_settle(self);
        }
        if (self->over_stream) {
            return output_to_stream(self, (Py_ssize_t)length);
        }
    }
    PyObject *transport = Py_NewRef(self->transport), *data = output_take(self);
    int result = 0;
    if (data != NULL) {
        result = tls_drop(PyObject_CallMethodOneArg(transport, self->st->str.write, data));
    }
    else if (PyErr_Occurred()) {
        result = -1;
    }
    Py_XDECREF(data);
    Py_DECREF(transport);
    return result;
}

PART int
tls_control_writing(TlsObj *self)
{
    Py_ssize_t size = tls_outgoing_size(self);
    if (size < 0) {
        return -1;
    }
    if (UNLIKELY(size >= self->outgoing_high && size > self->outgoing_low && !self->app_writing_paused)) {
        self->app_writing_paused = 1;
        return tls_tell_app(self, self->st->str.pause_writing, "protocol.pause_writing() failed");
    }
    if (UNLIKELY(size <= self->outgoing_low && self->app_writing_paused)) {
        self->app_writing_paused = 0;
        return tls_tell_app(self, self->st->str.resume_writing, "protocol.resume_writing() failed");
    }
    return 0;
}

PART int
tls_process_outgoing(TlsObj *self)
{
    return output_flush(self) < 0 ? -1 : tls_control_writing(self);
}

/* ---- writing ---- */

PART int
tls_backlog_append(TlsObj *self, PyObject *data)
{
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "a bytes-like object is required, not '%.200s'", Py_TYPE(data)->tp_name);
        return -1;
    }
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL) {
        return -1;
    }
    if (PyBytes_GET_SIZE(bytes) == 0) {
        Py_DECREF(bytes);
        return 0;
    }
    if (self->backlog_end == self->backlog_size) {
        Py_ssize_t length = self->backlog_end - self->backlog_start;
        if (self->backlog_start > length) {
            memmove(self->backlog, self->backlog + self->backlog_start, (size_t)length * sizeof(PyObject *));
        }
        else {
            Py_ssize_t size = Py_MAX(8, 2 * length);
            PyObject **items = PyMem_New(PyObject *, (size_t)size);
            if (items == NULL) {
                Py_DECREF(bytes);
                PyErr_NoMemory();
                return -1;
            }
            if (length > 0) {
                memcpy(items, self->backlog + self->backlog_start, (size_t)length * sizeof(PyObject *));
            }
            PyMem_Free(self->backlog);
            self->backlog = items;
            self->backlog_size = size;
        }
        self->backlog_start = 0;
        self->backlog_end = length;
    }
    self->backlog[self->backlog_end++] = bytes;
    self->backlog_bytes += PyBytes_GET_SIZE(bytes);
    return 0;
}

static void
backlog_consume(TlsObj *self, Py_ssize_t n)
{
    self->backlog_bytes -= n;
    while (n > 0) {
        PyObject *first = self->backlog[self->backlog_start];
        Py_ssize_t left = PyBytes_GET_SIZE(first) - self->backlog_offset;
        if (n < left) {
            self->backlog_offset += n;
            return;
        }
        n -= left;
        self->backlog_offset = 0;
        self->backlog_start++;
        Py_DECREF(first); // exact bytes: no code runs
    }
    if (self->backlog_start == self->backlog_end) {
        PyMem_Free(self->backlog);
        self->backlog = NULL;
        self->backlog_start = self->backlog_end = self->backlog_size = 0;
    }
}

PART void
tls_backlog_clear(TlsObj *self)
{
    backlog_consume(self, self->backlog_bytes);
}

/* Encrypt; *done is how much OpenSSL took.  Ciphertext is handed on as it piles up, the rest is left to the
   caller. */
static int
tls_encrypt(TlsObj *self, const char *data, Py_ssize_t size, Py_ssize_t *done)
{
    *done = 0;
    output_lend(self);
    while (*done < size) {
        int n = tls_record_write(self, data + *done, (int)Py_MIN(size - *done, 1 << 20));
        if (n < 0) {
            return n == AGAIN ? 0 : -1;
        }
        *done += n;
        if (self->pipe.out_end - self->pipe.out_start >= FLUSH_AT) {
            if (output_flush(self) < 0) {
                return -1;
            }
            if (self->state != TLS_WRAPPED && self->state != TLS_FLUSHING) {
                return 0;
            }
            output_lend(self);
        }
    }
    return 0;
}

/* Small pieces go into one record. */
static Py_ssize_t
backlog_join(TlsObj *self, char *buffer, Py_ssize_t size)
{
    Py_ssize_t length = 0, offset = self->backlog_offset;
    for (Py_ssize_t i = self->backlog_start; i < self->backlog_end && length < size; i++) {
        Py_ssize_t n = Py_MIN(PyBytes_GET_SIZE(self->backlog[i]) - offset, size - length);
        memcpy(buffer + length, PyBytes_AS_STRING(self->backlog[i]) + offset, (size_t)n);
        length += n;
        offset = 0;
    }
    return length;
}

/* Its frame is large, and gone before the ciphertext is handed on: who gets that may write again, and again. */
static __attribute__((noinline)) int
backlog_encrypt(TlsObj *self)
{
    char joined[TLS_RECORD];
    self->encrypting = 1;
    int result = 0;
    while (result == 0 && !tls_backlog_empty(self)) {
        PyObject *first = Py_NewRef(self->backlog[self->backlog_start]);
        Py_ssize_t size = PyBytes_GET_SIZE(first) - self->backlog_offset, done;
        const char *data = PyBytes_AS_STRING(first) + self->backlog_offset;
        if (size < TLS_RECORD && self->backlog_end - self->backlog_start > 1) {
            size = backlog_join(self, joined, TLS_RECORD);
            data = joined;
        }
        result = tls_encrypt(self, data, size, &done);
        Py_DECREF(first);
        /* It may have been cleared meanwhile. */
        backlog_consume(self, Py_MIN(done, self->backlog_bytes));
        if (done < size) {
            break;
        }
    }
    self->encrypting = 0;
    return result;
}

/* After encrypting: hand on, or keep what was made before it failed. */
static int
output_finish(TlsObj *self, int result)
{
    if (LIKELY(result >= 0)) {
        return tls_process_outgoing(self);
    }
    PyObject *exc = PyErr_GetRaisedException();
    (void)output_settle(self);
    PyErr_SetRaisedException(exc);
    return -1;
}

/* Encrypt the backlog, then hand on. */
PART int
tls_do_write(TlsObj *self)
{
    if (self->encrypting || self->busy) {
        return 0;
    }
    return output_finish(self, backlog_encrypt(self));
}

/* Encrypt what is not kept by anybody; what OpenSSL does not take now is copied into the backlog. */
static int
tls_write_now(TlsObj *self, const char *data, Py_ssize_t size)
{
    Py_ssize_t done;
    self->encrypting = 1;
    int result = tls_encrypt(self, data, size, &done);
    self->encrypting = 0;
    if (result == 0 && done < size && (self->state == TLS_WRAPPED || self->state == TLS_FLUSHING)) {
        PyObject *rest = PyBytes_FromStringAndSize(data + done, size - done);
        result = rest == NULL ? -1 : tls_backlog_append(self, rest);
        Py_XDECREF(rest);
    }
    else if (result == 0 && !tls_backlog_empty(self)) {
        return tls_do_write(self); // written while we were handing on
    }
    return output_finish(self, result);
}

static int
tls_write_lost(TlsObj *self)
{
    int result = 0;
    if (self->lost_writes >= LOST_WRITES_TO_WARN) {
        result = tls_drop(PyObject_CallMethod(self->st->logger, "warning", "s", "SSL connection is closed"));
    }
    self->lost_writes++;
    return result;
}

/* `data` is bytes, bytearray or memoryview; what may change while others are called is copied. */
PART int
tls_write(TlsObj *self, PyObject *data)
{
    if (!tls_takes_writes(self)) {
        return tls_write_lost(self);
    }
    int result;
    if (LIKELY(self->state == TLS_WRAPPED && tls_backlog_empty(self) && !self->busy && !self->encrypting &&
               PyBytes_CheckExact(data))) {
        result = tls_write_now(self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    }
    else if (tls_backlog_append(self, data) < 0) {
        return -1;
    }
    else {
        result = self->state == TLS_WRAPPED ? tls_do_write(self) : 0;
    }
    return result < 0 ? tls_fatal_raised(self, "Fatal error on SSL protocol") : 0;
}

PART int
tls_writelines(TlsObj *self, PyObject *items)
{
    if (!tls_takes_writes(self)) {
        return tls_write_lost(self);
    }
    PyObject *iterator = PyObject_GetIter(items);
    if (iterator == NULL) {
        return -1;
    }
    int result = 0;
    PyObject *item;
    while (result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = tls_backlog_append(self, item);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    if (result < 0 || PyErr_Occurred()) {
        return -1;
    }
    return self->state == TLS_WRAPPED && tls_do_write(self) < 0
               ? tls_fatal_raised(self, "Fatal error on SSL protocol")
               : 0;
}
