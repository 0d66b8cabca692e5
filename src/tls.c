/* ctask.SSLProtocol: TLS as a protocol over any transport, in the place of asyncio.sslproto.SSLProtocol.

   It owns the state of one TLS connection: handshake, encrypting, decrypting, flow control on both sides, the
   orderly end.  The transport below calls it (feed or get_buffer() and buffer_updated(), eof_received(), ...),
   and so does the application's transport (tls_transport.c).  Contexts, handshakes and errors are Python's
   ssl; records are read and written by OpenSSL directly where openssl.c allows it, else through the methods
   of the SSLObject, as asyncio does.

   OpenSSL is never entered twice at a time for one connection: `busy` is set while it is, as callbacks of ssl
   (SNI, messages) are Python code. */

#include <structmember.h>

#include "stream.h"
#include "streams.h"
#include "tls.h"

#define RECORD (16 * 1024)
#define FLUSH_AT (64 * 1024) // ciphertext that is handed on before more is made
#define OWN_PLAIN (64 * 1024)
#define LOST_WRITES_TO_WARN 5 // asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES

enum { AGAIN = -1, FAILED = -2 }; // of what reads and writes records, beside numbers of bytes

static int tls_do_read(TlsObj *self);
static int tls_unstage(TlsObj *self);

/* ---- small helpers ---- */

static int
tls_drop(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* In the connection's context. */
static int
tls_call_method_soon(TlsObj *self, PyObject *object, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr(object, name);
    int result = method == NULL
                     ? -1
                     : call_soon(
                           self->st, self->loop, method, arg, self->context == NULL ? Py_None : self->context);
    Py_XDECREF(method);
    return result;
}

/* Whoever's call brings it about, the application's callbacks run in the context in which its connection was
   made.  Returns 1 if it was entered. */
static int
tls_context_enter(TlsObj *self)
{
    PyContext *context = (PyContext *)self->context;
    if (LIKELY(context == NULL || context->ctx_entered)) {
        return 0; // the transport below, or a callback of its own, called us
    }
    return PyContext_Enter(self->context) < 0 ? -1 : 1;
}

static PyObject *
tls_call_app(TlsObj *self, PyObject *protocol, PyObject *name, PyObject *arg)
{
    PyObject *stack[] = {protocol, arg};
    int entered = tls_context_enter(self);
    PyObject *result = entered < 0 ? NULL : PyObject_VectorcallMethod(name, stack, arg == NULL ? 1 : 2, NULL);
    if (entered > 0 && UNLIKELY(PyContext_Exit(self->context) < 0)) {
        Py_CLEAR(result);
    }
    return result;
}

static int
tls_in_debug(TlsObj *self)
{
    if (loop_plain(self->loop) != NULL) {
        return 0;
    }
    PyObject *debug = PyObject_CallMethodNoArgs(self->loop, self->st->str.get_debug);
    int result = debug == NULL ? -1 : PyObject_IsTrue(debug);
    Py_XDECREF(debug);
    return result;
}

static int
tls_loop_time(TlsObj *self, double *now)
{
    PyObject *time = PyObject_CallMethodNoArgs(self->loop, self->st->str.time);
    *now = time == NULL ? -1.0 : PyFloat_AsDouble(time);
    Py_XDECREF(time);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
tls_call_later(TlsObj *self, PyObject *delay, PyObject *name)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, name);
    if (method == NULL) {
        return NULL;
    }
    PyObject *stack[] = {self->loop, delay, method};
    PyObject *handle = PyObject_VectorcallMethod(self->st->str.call_later, stack, 3, NULL);
    Py_DECREF(method);
    return handle;
}

static int
tls_timer_cancel(TlsObj *self, PyObject **timer)
{
    PyObject *handle = *timer;
    *timer = NULL;
    int result = handle == NULL ? 0 : tls_drop(PyObject_CallMethodNoArgs(handle, self->st->str.cancel));
    Py_XDECREF(handle);
    return result;
}

static struct tls_buffers *
tls_buffers_of(ctask_state *st)
{
    if (UNLIKELY(st->tls == NULL)) {
        struct tls_buffers *buffers = malloc(sizeof(*buffers));
        if (buffers == NULL) {
            return NULL;
        }
        buffers->plain_used = buffers->out_used = 0;
        buffers->stage_owner = NULL;
        buffers->stage_length = 0;
        st->tls = buffers;
    }
    return st->tls;
}

/* ---- errors ---- */

static int
tls_report(TlsObj *self, const char *message, PyObject *exc, PyObject *transport)
{
    PyObject *context = Py_BuildValue("{s:s,s:O,s:O,s:O}",
                                      "message",
                                      message,
                                      "exception",
                                      exc,
                                      "transport",
                                      transport == NULL ? Py_None : transport,
                                      "protocol",
                                      (PyObject *)self);
    if (context == NULL) {
        return -1;
    }
    int result = tls_drop(PyObject_CallMethodOneArg(self->loop, self->st->str.call_exception_handler, context));
    Py_DECREF(context);
    return result;
}

/* End the connection because of `exc`, and tell whom it concerns. */
static int
tls_fatal_error(TlsObj *self, PyObject *exc, const char *message)
{
    PyObject *transport = Py_XNewRef(self->transport);
    int result = 0;
    if (transport != NULL) {
        result = tls_drop(PyObject_CallMethodOneArg(transport, self->st->str._force_close, exc));
    }
    if (result == 0 && PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        result = tls_in_debug(self);
        if (result > 0) {
            PyObject *debug = PyObject_GetAttrString(self->st->logger, "debug");
            PyObject *args = Py_BuildValue("(sOs)", "%r: %s", (PyObject *)self, message);
            PyObject *kwargs = Py_BuildValue("{s:O}", "exc_info", exc);
            result = debug == NULL || args == NULL || kwargs == NULL
                         ? -1
                         : tls_drop(PyObject_Call(debug, args, kwargs));
            Py_XDECREF(kwargs);
            Py_XDECREF(args);
            Py_XDECREF(debug);
        }
    }
    else if (result == 0 && !PyErr_GivenExceptionMatches(exc, self->st->CancelledError)) {
        result = tls_report(self, message, exc, self->transport);
    }
    Py_XDECREF(transport);
    return result;
}

/* For the exception that is set: what is no Exception (KeyboardInterrupt, ...) goes to the caller. */
static int
tls_fatal_raised(TlsObj *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int result = tls_fatal_error(self, exc, message);
    Py_DECREF(exc);
    return result;
}

/* An exception of a callback of the application that must not end the connection. */
static int
tls_is_exit(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
}

static PyObject *
tls_state_name(const char *type, const char *const *names, int value)
{
    PyObject *module = PyImport_ImportModule("asyncio.sslproto");
    PyObject *states = module == NULL ? NULL : PyObject_GetAttrString(module, type);
    PyObject *state = states == NULL ? NULL : PyObject_GetAttrString(states, names[value]);
    Py_XDECREF(states);
    Py_XDECREF(module);
    return state;
}

static const char *const tls_state_names[] = {"UNWRAPPED", "DO_HANDSHAKE", "WRAPPED", "FLUSHING", "SHUTDOWN"};
static const char *const app_state_names[] = {"STATE_INIT", "STATE_CON_MADE", "STATE_EOF", "STATE_CON_LOST"};

/* A connection goes through the states in order, and may end in each. */
static int
tls_state_set(TlsObj *self, tls_state state)
{
    if (LIKELY(state == TLS_UNWRAPPED || state == self->state + 1)) {
        self->state = state;
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError,
                 "cannot switch state from SSLProtocolState.%s to SSLProtocolState.%s",
                 tls_state_names[self->state],
                 tls_state_names[state]);
    return -1;
}

static int
tls_wakeup_waiter(TlsObj *self, PyObject *exc)
{
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return 0;
    }
    self->waiter = NULL;
    PyObject *cancelled = PyObject_CallMethodNoArgs(waiter, self->st->str.cancelled);
    int result = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
    Py_XDECREF(cancelled);
    if (result == 0) {
        result = exc == NULL || exc == Py_None
                     ? tls_drop(PyObject_CallMethodOneArg(waiter, self->st->str.set_result, Py_None))
                     : tls_drop(PyObject_CallMethodOneArg(waiter, self->st->str.set_exception, exc));
    }
    Py_DECREF(waiter);
    return result < 0 ? -1 : 0;
}

/* ---- what is to be sent ---- */

/* Let OpenSSL write into the interpreter's buffer: there is nothing to allocate then. */
static void
output_lend(TlsObj *self)
{
    struct tls_buffers *buffers = self->st->tls;
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
static void
output_release(TlsObj *self)
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
        self->st->tls->out_used = 0;
    }
}

/* Give the interpreter's buffer back, what is in it kept in one of our own. */
static int
output_settle(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    if (pipe->out_start == pipe->out_end) {
        output_release(self);
        return 0;
    }
    if (pipe->out_lent && openssl_own_output(pipe, 0) < 0) {
        output_release(self);
        PyErr_NoMemory();
        return -1;
    }
    if (self->lending) {
        self->lending = 0;
        self->st->tls->out_used = 0;
    }
    return 0;
}

PART Py_ssize_t
tls_outgoing_size(TlsObj *self)
{
    Py_ssize_t size = self->backlog_bytes;
    if (self->ssl != NULL) {
        size += (Py_ssize_t)(self->pipe.out_end - self->pipe.out_start);
    }
    else if (self->outgoing != NULL) {
        PyObject *pending = PyObject_GetAttr(self->outgoing, self->st->str.pending);
        Py_ssize_t n = pending == NULL ? -1 : PyLong_AsSsize_t(pending);
        Py_XDECREF(pending);
        if (n < 0) {
            return -1;
        }
        size += n;
    }
    if (self->st->tls != NULL && self->st->tls->stage_owner == self) {
        size += self->st->tls->stage_length;
    }
    return size;
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
        self->st->tls->out_used = 0;
    }
    return result;
}

/* Hand the ciphertext to the transport below, unless it has asked for a pause. */
static int
output_flush(TlsObj *self)
{
    openssl_pipe *pipe = &self->pipe;
    PyObject *transport = self->transport;
    if (self->writing_paused || transport == NULL) {
        return output_settle(self);
    }
    PyObject *data;
    if (self->ssl != NULL) {
        size_t length = pipe->out_end - pipe->out_start;
        if (length == 0) {
            return output_settle(self);
        }
        if (self->over_stream) {
            return output_to_stream(self, (Py_ssize_t)length);
        }
        data = PyBytes_FromStringAndSize(pipe->out + pipe->out_start, (Py_ssize_t)length);
        if (data == NULL) {
            return -1;
        }
        output_release(self);
    }
    else {
        data = PyObject_CallMethodNoArgs(self->outgoing, self->st->str.read);
        Py_ssize_t length = data == NULL ? -1 : PyObject_Size(data);
        if (length <= 0) {
            Py_XDECREF(data);
            return (int)length;
        }
    }
    Py_INCREF(transport);
    int result = tls_drop(PyObject_CallMethodOneArg(transport, self->st->str.write, data));
    Py_DECREF(transport);
    Py_DECREF(data);
    return result;
}

static int
process_outgoing(TlsObj *self)
{
    return output_flush(self) < 0 ? -1 : tls_control_writing(self);
}

/* ---- records ---- */

/* Stale errors of others' calls would be taken for ours. */
static inline void
errors_clear(const openssl_api *api)
{
    if (UNLIKELY(api->ERR_peek_error() != 0)) {
        api->ERR_clear_error();
    }
}

/* After a failed call of a method of the SSLObject. */
static int
again_or_failed(TlsObj *self)
{
    if (PyErr_ExceptionMatches(self->st->ssl_again)) {
        PyErr_Clear();
        return AGAIN;
    }
    return FAILED;
}

static PyObject *
sslobj_call(TlsObj *self, PyObject *name, PyObject *arg)
{
    char busy = self->busy;
    self->busy = 1;
    PyObject *stack[] = {self->sslobj, arg};
    PyObject *result = PyObject_VectorcallMethod(name, stack, arg == NULL ? 1 : 2, NULL);
    self->busy = busy;
    if (UNLIKELY(self->pipe.no_memory)) {
        self->pipe.no_memory = 0;
        Py_XDECREF(result);
        PyErr_Clear();
        return PyErr_NoMemory();
    }
    return result;
}

/* Through the SSLObject: where OpenSSL cannot be called directly, and where it has failed, so that ssl makes
   the exception (OpenSSL fails the same way again, and the queue of its errors was left as it is). */
static int
read_by_python(TlsObj *self, char *buffer, int size)
{
    PyObject *number = PyLong_FromLong(size);
    PyObject *data = number == NULL ? NULL : sslobj_call(self, self->st->str.read, number);
    Py_XDECREF(number);
    if (data == NULL) {
        return again_or_failed(self);
    }
    Py_buffer view;
    int n = FAILED;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
        n = (int)Py_MIN(view.len, size);
        memcpy(buffer, view.buf, (size_t)n);
        PyBuffer_Release(&view);
    }
    Py_DECREF(data);
    return n;
}

static int
write_by_python(TlsObj *self, const char *data, int size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, size);
    PyObject *number = bytes == NULL ? NULL : sslobj_call(self, self->st->str.write, bytes);
    Py_XDECREF(bytes);
    if (number == NULL) {
        return again_or_failed(self);
    }
    Py_ssize_t n = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    if (n == -1 && PyErr_Occurred()) {
        return FAILED;
    }
    return n <= 0 ? AGAIN : (int)Py_MIN(n, size);
}

/* Bytes of one record, 0 at its end (close_notify), AGAIN or FAILED. */
static int
record_read(TlsObj *self, char *buffer, int size)
{
    const openssl_api *api = self->st->openssl;
    if (UNLIKELY(self->ssl == NULL)) {
        return read_by_python(self, buffer, size);
    }
    errors_clear(api);
    self->busy = 1;
    int n = api->SSL_read(self->ssl, buffer, size);
    self->busy = 0;
    if (LIKELY(n > 0)) {
        return n;
    }
    int error = api->SSL_get_error(self->ssl, n);
    if (LIKELY(error == SSL_ERROR_WANT_READ)) {
        return AGAIN;
    }
    if (error == SSL_ERROR_ZERO_RETURN && api->SSL_get_shutdown(self->ssl) == SSL_RECEIVED_SHUTDOWN) {
        return 0;
    }
    return read_by_python(self, buffer, size);
}

/* Bytes that were encrypted, AGAIN or FAILED. */
static int
record_write(TlsObj *self, const char *data, int size)
{
    const openssl_api *api = self->st->openssl;
    if (UNLIKELY(self->ssl == NULL)) {
        return write_by_python(self, data, size);
    }
    errors_clear(api);
    self->busy = 1;
    int n = api->SSL_write(self->ssl, data, size);
    self->busy = 0;
    if (LIKELY(n > 0)) {
        return n;
    }
    if (UNLIKELY(self->pipe.no_memory)) {
        self->pipe.no_memory = 0;
        PyErr_NoMemory();
        return FAILED;
    }
    int error = api->SSL_get_error(self->ssl, n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return AGAIN;
    }
    return write_by_python(self, data, size);
}

/* Has everything that came been read?  Then asking OpenSSL once more would tell nothing new. */
static inline int
read_all(TlsObj *self)
{
    return self->ssl != NULL && self->pipe.in_len == 0 && self->st->openssl->SSL_pending(self->ssl) == 0;
}

PART Py_ssize_t
tls_incoming_size(TlsObj *self)
{
    if (LIKELY(self->ssl != NULL || self->incoming == NULL)) {
        return (Py_ssize_t)self->pipe.in_len;
    }
    PyObject *pending = PyObject_GetAttr(self->incoming, self->st->str.pending);
    Py_ssize_t n = pending == NULL ? -1 : PyLong_AsSsize_t(pending);
    Py_XDECREF(pending);
    return n;
}

static int
incoming_feed(TlsObj *self, const char *data, Py_ssize_t n)
{
    if (self->ssl != NULL) {
        if (openssl_feed(&self->pipe, data, (size_t)n) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        return 0;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data, n);
    int result = bytes == NULL
                     ? -1
                     : tls_drop(PyObject_CallMethodOneArg(self->incoming, self->st->str.write, bytes));
    Py_XDECREF(bytes);
    return result;
}

/* ---- writing ---- */

PART int
tls_backlog_append(TlsObj *self, PyObject *data)
{
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

static void
backlog_clear(TlsObj *self)
{
    backlog_consume(self, self->backlog_bytes);
}

static inline int
backlog_empty(TlsObj *self)
{
    return self->backlog_start == self->backlog_end;
}

/* Encrypt; *done is how much OpenSSL took.  Ciphertext is handed on as it piles up, the rest is left to the
   caller. */
static int
tls_encrypt(TlsObj *self, const char *data, Py_ssize_t size, Py_ssize_t *done)
{
    *done = 0;
    output_lend(self);
    while (*done < size) {
        int n = record_write(self, data + *done, (int)Py_MIN(size - *done, 1 << 20));
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

/* Encrypt the backlog, then hand on. */
static int
tls_do_write(TlsObj *self)
{
    char joined[RECORD];
    if (self->encrypting || self->busy) {
        return 0;
    }
    self->encrypting = 1;
    int result = 0;
    while (result == 0 && !backlog_empty(self)) {
        PyObject *first = Py_NewRef(self->backlog[self->backlog_start]);
        Py_ssize_t size = PyBytes_GET_SIZE(first) - self->backlog_offset, done;
        const char *data = PyBytes_AS_STRING(first) + self->backlog_offset;
        if (size < RECORD && self->backlog_end - self->backlog_start > 1) {
            size = backlog_join(self, joined, RECORD);
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
    if (result < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        (void)output_settle(self);
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return process_outgoing(self);
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
    else if (result == 0 && !backlog_empty(self)) {
        return tls_do_write(self); // written while we were handing on
    }
    if (result < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        (void)output_settle(self);
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return process_outgoing(self);
}

/* While the application handles what it got, its small writes are collected: one record, one send. */
static int
stage_begin(TlsObj *self)
{
    struct tls_buffers *buffers = self->st->tls;
    if (buffers == NULL || buffers->stage_owner != NULL || self->outgoing_high < 4 * RECORD) {
        return 0;
    }
    buffers->stage_owner = self;
    buffers->stage_length = 0;
    return 1;
}

static int
tls_unstage(TlsObj *self)
{
    struct tls_buffers *buffers = self->st->tls;
    if (buffers == NULL || buffers->stage_owner != self || buffers->stage_length == 0) {
        return 0;
    }
    int size = buffers->stage_length;
    buffers->stage_length = 0;
    if (self->state != TLS_WRAPPED) {
        return 0;
    }
    return tls_write_now(self, buffers->stage, size);
}

static int
stage_end(TlsObj *self)
{
    int result = tls_unstage(self);
    self->st->tls->stage_owner = NULL;
    return result;
}

static void
stage_forget(TlsObj *self)
{
    if (self->st->tls != NULL && self->st->tls->stage_owner == self) {
        self->st->tls->stage_length = 0;
    }
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

static inline int
takes_writes(TlsObj *self)
{
    return self->state == TLS_HANDSHAKE || self->state == TLS_WRAPPED;
}

/* `data` is bytes, bytearray or memoryview. */
PART int
tls_write(TlsObj *self, PyObject *data)
{
    if (!takes_writes(self)) {
        return tls_write_lost(self);
    }
    if (self->state != TLS_WRAPPED || !backlog_empty(self) || self->busy || self->encrypting) {
        if (tls_backlog_append(self, data) < 0) {
            return -1;
        }
        return self->state == TLS_WRAPPED && tls_do_write(self) < 0
                   ? tls_fatal_raised(self, "Fatal error on SSL protocol")
                   : 0;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) {
            return -1;
        }
        PyErr_Clear(); // not contiguous
        return tls_backlog_append(self, data) < 0 ? -1
               : tls_do_write(self) < 0           ? tls_fatal_raised(self, "Fatal error on SSL protocol")
                                                  : 0;
    }
    struct tls_buffers *buffers = tls_buffers_of(self->st);
    int result = 0;
    if (buffers != NULL && buffers->stage_owner == self) {
        if (view.len <= RECORD - buffers->stage_length) {
            memcpy(buffers->stage + buffers->stage_length, view.buf, (size_t)view.len);
            buffers->stage_length += (int)view.len;
            PyBuffer_Release(&view);
            return 0;
        }
        result = tls_unstage(self);
    }
    if (result == 0 && self->state == TLS_WRAPPED) {
        if (backlog_empty(self)) {
            result = tls_write_now(self, view.buf, view.len);
        }
        else {
            result = tls_backlog_append(self, data);
        }
    }
    PyBuffer_Release(&view);
    return result < 0 ? tls_fatal_raised(self, "Fatal error on SSL protocol") : 0;
}

PART int
tls_writelines(TlsObj *self, PyObject *items)
{
    if (!takes_writes(self)) {
        return tls_write_lost(self);
    }
    PyObject *iterator = PyObject_GetIter(items);
    if (iterator == NULL) {
        return -1;
    }
    int result = tls_unstage(self);
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

/* ---- flow control ---- */

static int
tls_tell_app(TlsObj *self, PyObject *method, const char *failure)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = tls_drop(tls_call_app(self, protocol, method, NULL));
    Py_DECREF(protocol);
    if (result < 0 && !tls_is_exit()) {
        PyObject *exc = PyErr_GetRaisedException();
        result = tls_report(self, failure, exc, self->app_transport);
        Py_DECREF(exc);
    }
    return result;
}

PART int
tls_control_writing(TlsObj *self)
{
    Py_ssize_t size = tls_outgoing_size(self);
    if (size < 0) {
        return -1;
    }
    if (UNLIKELY(size >= self->outgoing_high && !self->app_writing_paused)) {
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
tls_control_reading(TlsObj *self)
{
    Py_ssize_t size = tls_incoming_size(self);
    PyObject *transport = self->transport, *method;
    if (size < 0) {
        return -1;
    }
    if (UNLIKELY(size >= self->incoming_high && !self->reading_paused)) {
        self->reading_paused = 1;
        method = self->st->str.pause_reading;
    }
    else if (UNLIKELY(size <= self->incoming_low && self->reading_paused)) {
        self->reading_paused = 0;
        method = self->st->str.resume_reading;
    }
    else {
        return 0;
    }
    if (transport == NULL) {
        return 0;
    }
    Py_INCREF(transport);
    int result = tls_drop(PyObject_CallMethodNoArgs(transport, method));
    Py_DECREF(transport);
    return result;
}

static int
tls_limit_of(PyObject *number, Py_ssize_t *value)
{
    PyObject *whole = PyFloat_Check(number) ? PyNumber_Long(number) : PyNumber_Index(number);
    if (whole == NULL) {
        return -1;
    }
    *value = PyNumber_AsSsize_t(whole, NULL); // beyond the range: the end of the range
    Py_DECREF(whole);
    return 0;
}

PART int
tls_set_limits(PyObject *high, PyObject *low, Py_ssize_t kib, Py_ssize_t *high_out, Py_ssize_t *low_out)
{
    Py_ssize_t hi = 0, lo = 0;
    if (high != Py_None && tls_limit_of(high, &hi) < 0) {
        return -1;
    }
    if (low != Py_None && tls_limit_of(low, &lo) < 0) {
        return -1;
    }
    if (high == Py_None) {
        hi = low == Py_None ? kib * 1024 : lo > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : 4 * lo;
    }
    if (low == Py_None) {
        lo = hi >= 0 ? hi / 4 : -1;
    }
    if (!(hi >= lo && lo >= 0)) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", hi, lo);
        return -1;
    }
    *high_out = hi;
    *low_out = lo;
    return 0;
}

/* Below is called on the next turn by the loop: TlsObj._resume(). */
PART int
tls_resume_reading(TlsObj *self)
{
    if (!self->app_reading_paused) {
        return 0;
    }
    self->app_reading_paused = 0;
    return tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

/* ---- reading ---- */

static int
call_eof_received(TlsObj *self)
{
    if (self->app_state != APP_CONNECTED || self->app_protocol == NULL) {
        return 0;
    }
    self->app_state = APP_EOF;
    PyObject *protocol = Py_NewRef(self->app_protocol);
    PyObject *keep_open = tls_call_app(self, protocol, self->st->str.eof_received, NULL);
    Py_DECREF(protocol);
    int result = keep_open == NULL ? -1 : PyObject_IsTrue(keep_open);
    Py_XDECREF(keep_open);
    if (result > 0) {
        result = tls_drop(
            PyObject_CallMethod(self->st->logger,
                                "warning",
                                "s",
                                "returning true from eof_received() has no effect when using ssl"));
    }
    if (result < 0 && !tls_is_exit()) {
        PyObject *exc = PyErr_GetRaisedException();
        result = tls_fatal_error(self, exc, "Error calling eof_received()");
        Py_DECREF(exc);
    }
    return result;
}

/* close_notify came. */
static int
peer_closed(TlsObj *self)
{
    return call_eof_received(self) < 0 ? -1 : tls_start_shutdown(self);
}

static int
tls_deliver(TlsObj *self, PyObject *data)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int staging = stage_begin(self), result;
    if (self->app_kind == APP_TLS) {
        result = tls_feed(NULL, protocol, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    }
    else {
        result = tls_drop(tls_call_app(self, protocol, self->st->str.data_received, data));
    }
    if (staging) {
        PyObject *exc = result < 0 ? PyErr_GetRaisedException() : NULL;
        if (stage_end(self) < 0) {
            if (exc != NULL) {
                PyErr_WriteUnraisable(protocol);
            }
            result = -1;
        }
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
    Py_DECREF(protocol);
    return result;
}

/* To a StreamReader, which takes the bytes where they are. */
static int
tls_deliver_streams(TlsObj *self, const char *data, Py_ssize_t n)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    int entered = tls_context_enter(self);
    if (entered < 0) {
        return -1;
    }
    Py_INCREF(protocol);
    int result = streamreader_feed(NULL, protocol, data, n);
    Py_DECREF(protocol);
    if (entered > 0 && UNLIKELY(PyContext_Exit(self->context) < 0)) {
        result = -1;
    }
    return result;
}

/* Decrypt and give it to data_received(), all of it in one piece unless it is more than a buffer.  Returns 1
   if there may be more. */
static int
tls_read_copied(TlsObj *self)
{
    struct tls_buffers *buffers = tls_buffers_of(self->st);
    char *own = NULL, *plain = NULL;
    int size = OWN_PLAIN, length = 0, n = AGAIN;
    if (LIKELY(buffers != NULL && !buffers->plain_used)) {
        buffers->plain_used = 1;
        plain = buffers->plain;
        size = sizeof(buffers->plain);
    }
    else {
        plain = own = malloc(OWN_PLAIN);
        if (own == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    while (length < size) {
        n = record_read(self, plain + length, size - length);
        if (n <= 0) {
            break;
        }
        length += n;
        if (read_all(self)) {
            n = AGAIN;
            break;
        }
    }
    PyObject *data = NULL;
    if (self->app_kind == APP_STREAMS && n != FAILED && length > 0) {
        int result = tls_deliver_streams(self, plain, length);
        if (result < 0) {
            n = FAILED;
        }
        length = 0;
    }
    if (n != FAILED && length > 0) {
        data = PyBytes_FromStringAndSize(plain, length);
    }
    if (own == NULL) {
        buffers->plain_used = 0;
    }
    free(own);
    if (n == FAILED || (length > 0 && data == NULL)) {
        return -1;
    }
    if (length > 0) {
        int result = tls_deliver(self, data);
        Py_DECREF(data);
        if (result < 0) {
            return -1;
        }
    }
    return n == 0 ? peer_closed(self) : n > 0;
}

/* Decrypt into the application's own buffer. */
static int
tls_read_buffered(TlsObj *self)
{
    PyObject *protocol = self->app_protocol;
    Py_ssize_t hint = tls_incoming_size(self);
    if (hint < 0) {
        return -1;
    }
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = -1;
    PyObject *number = PyLong_FromSsize_t(hint);
    PyObject *buffer = number == NULL ? NULL : tls_call_app(self, protocol, self->st->str.get_buffer, number);
    Py_XDECREF(number);
    Py_buffer view;
    if (buffer == NULL || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        goto done;
    }
    if (view.len == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        PyBuffer_Release(&view);
        goto done;
    }
    Py_ssize_t length = 0;
    int n = AGAIN;
    while (length < view.len) {
        n = record_read(self, (char *)view.buf + length, (int)Py_MIN(view.len - length, 1 << 20));
        if (n <= 0) {
            break;
        }
        length += n;
        if (read_all(self)) {
            n = AGAIN;
            break;
        }
    }
    PyBuffer_Release(&view);
    if (n == FAILED) {
        goto done;
    }
    if (n > 0 && tls_call_method_soon(self, (PyObject *)self, self->st->str._do_read, NULL) < 0) {
        goto done;
    }
    result = 0;
    if (length > 0) {
        number = PyLong_FromSsize_t(length);
        int staging = number != NULL && stage_begin(self);
        result = number == NULL ? -1
                                : tls_drop(tls_call_app(self, protocol, self->st->str.buffer_updated, number));
        if (staging) {
            PyObject *exc = result < 0 ? PyErr_GetRaisedException() : NULL;
            if (stage_end(self) < 0) {
                if (exc != NULL) {
                    PyErr_WriteUnraisable(protocol);
                }
                result = -1;
            }
            if (exc != NULL) {
                PyErr_SetRaisedException(exc);
            }
        }
        Py_XDECREF(number);
    }
    if (result == 0 && n == 0) {
        result = peer_closed(self);
    }
done:
    Py_XDECREF(buffer);
    Py_DECREF(protocol);
    return result;
}

/* What comes after the application has closed is no longer for it.  Returns 1 if there may be more. */
static int
tls_read_discarded(TlsObj *self)
{
    char nowhere[RECORD];
    int n = record_read(self, nowhere, sizeof(nowhere));
    return n == 0 ? peer_closed(self) : n == FAILED ? -1 : n > 0;
}

static inline int
tls_is_reading(TlsObj *self)
{
    return self->state == TLS_WRAPPED || self->state == TLS_FLUSHING;
}

static int
tls_do_read(TlsObj *self)
{
    if (!tls_is_reading(self) || self->busy) {
        return 0;
    }
    int more = 1;
    while (more > 0 && !self->app_reading_paused && tls_is_reading(self) && self->app_protocol != NULL) {
        more = self->discarding                 ? tls_read_discarded(self)
               : self->app_kind == APP_BUFFERED ? tls_read_buffered(self)
                                                : tls_read_copied(self);
    }
    if (more < 0 || (backlog_empty(self) ? process_outgoing(self) : tls_do_write(self)) < 0 ||
        tls_control_reading(self) < 0) {
        return tls_fatal_raised(self, "Fatal error on SSL protocol");
    }
    return 0;
}

/* ---- handshake ---- */

static int
tls_debug_log(TlsObj *self, const char *format, PyObject *arg)
{
    PyObject *args = arg == NULL ? Py_BuildValue("(sO)", format, (PyObject *)self)
                                 : Py_BuildValue("(sOO)", format, (PyObject *)self, arg);
    PyObject *debug = args == NULL ? NULL : PyObject_GetAttrString(self->st->logger, "debug");
    int result = debug == NULL ? -1 : tls_drop(PyObject_CallObject(debug, args));
    Py_XDECREF(debug);
    Py_XDECREF(args);
    return result;
}

static int
handshake_failed(TlsObj *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    self->state = TLS_UNWRAPPED;
    const char *message = PyErr_GivenExceptionMatches(exc, self->st->ssl_CertificateError)
                              ? "SSL handshake failed on verifying the certificate"
                              : "SSL handshake failed";
    int result = tls_fatal_error(self, exc, message);
    if (result == 0) {
        result = tls_wakeup_waiter(self, exc);
    }
    Py_DECREF(exc);
    return result;
}

static int
handshake_complete(TlsObj *self)
{
    if (tls_timer_cancel(self, &self->handshake_timer) < 0) {
        return -1;
    }
    if (tls_state_set(self, TLS_WRAPPED) < 0) {
        return handshake_failed(self);
    }
    self->wrapped_once = 1;
    int debug = tls_in_debug(self);
    if (debug < 0) {
        return -1;
    }
    if (debug && self->timed_handshake) {
        double now;
        PyObject *took = tls_loop_time(self, &now) < 0
                             ? NULL
                             : PyFloat_FromDouble((now - self->handshake_start) * 1e3);
        int result = took == NULL ? -1 : tls_debug_log(self, "%r: SSL handshake took %.1f ms", took);
        Py_XDECREF(took);
        if (result < 0) {
            return -1;
        }
    }
    if (self->app_state == APP_INIT && self->app_protocol != NULL && self->app_transport != NULL) {
        self->app_state = APP_CONNECTED;
        PyObject *protocol = Py_NewRef(self->app_protocol), *transport = Py_NewRef(self->app_transport);
        int result = tls_drop(tls_call_app(self, protocol, self->st->str.connection_made, transport));
        Py_DECREF(transport);
        Py_DECREF(protocol);
        if (result < 0) {
            return -1;
        }
    }
    if (self->waiter == NULL) {
        return tls_do_read(self);
    }
    /* Who waits for the connection hears of it before data comes. */
    if (tls_wakeup_waiter(self, NULL) < 0 ||
        (backlog_empty(self) ? process_outgoing(self) : tls_do_write(self)) < 0) {
        return -1;
    }
    return tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

static int
tls_do_handshake(TlsObj *self)
{
    PyObject *res = sslobj_call(self, self->st->str.do_handshake, NULL);
    if (res != NULL) {
        Py_DECREF(res);
        return handshake_complete(self);
    }
    if (PyErr_ExceptionMatches(self->st->ssl_again)) {
        PyErr_Clear();
        return process_outgoing(self);
    }
    if (!PyErr_ExceptionMatches(self->st->ssl_SSLError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int result = tls_timer_cancel(self, &self->handshake_timer);
    if (result < 0) {
        Py_DECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    return handshake_failed(self);
}

static int
tls_start_handshake(TlsObj *self)
{
    int debug = tls_in_debug(self);
    self->timed_handshake = 0;
    if (debug < 0) {
        return -1;
    }
    if (debug) {
        if (tls_debug_log(self, "%r starts SSL handshake", NULL) < 0 ||
            tls_loop_time(self, &self->handshake_start) < 0) {
            return -1;
        }
        self->timed_handshake = 1;
    }
    if (tls_state_set(self, TLS_HANDSHAKE) < 0) {
        return -1;
    }
    self->handshake_timer = tls_call_later(
        self, self->handshake_timeout, self->st->str._check_handshake_timeout);
    return self->handshake_timer == NULL ? -1 : tls_do_handshake(self);
}

/* ---- the end ---- */

static int
start_shutdown_timer(TlsObj *self)
{
    if (self->shutdown_timer != NULL) {
        return 0;
    }
    self->shutdown_timer = tls_call_later(self, self->shutdown_timeout, self->st->str._check_shutdown_timeout);
    return self->shutdown_timer == NULL ? -1 : 0;
}

/* The timer goes on until the connection is lost: the transport below first sends what it has, which a peer
   that does not read could delay for ever. */
static int
shutdown_complete(TlsObj *self)
{
    if (start_shutdown_timer(self) < 0) {
        return -1;
    }
    return self->transport == NULL ? 0 : tls_call_method_soon(self, self->transport, self->st->str.close, NULL);
}

static int
tls_do_shutdown(TlsObj *self)
{
    if (!self->eof_received) {
        char nowhere[RECORD];
        int n;
        /* What the peer sent before it heard of our end would fail unwrap(). */
        while ((n = record_read(self, nowhere, sizeof(nowhere))) > 0) {
        }
        if (n == FAILED) {
            if (!PyErr_ExceptionMatches(self->st->ssl_SSLError)) {
                return -1;
            }
            PyErr_Clear(); // unwrap() will say what it thinks of it
        }
        PyObject *res = sslobj_call(self, self->st->str.unwrap, NULL);
        if (res == NULL) {
            if (PyErr_ExceptionMatches(self->st->ssl_again)) {
                PyErr_Clear();
                return process_outgoing(self);
            }
            if (!PyErr_ExceptionMatches(self->st->ssl_SSLError)) {
                return -1;
            }
            PyObject *exc = PyErr_GetRaisedException();
            int result = tls_timer_cancel(self, &self->shutdown_timer);
            if (result == 0) {
                result = tls_fatal_error(self, exc, "Fatal error on transport");
            }
            Py_DECREF(exc);
            return result;
        }
        Py_DECREF(res);
    }
    return process_outgoing(self) < 0 || call_eof_received(self) < 0 ? -1 : shutdown_complete(self);
}

static int
tls_do_flush(TlsObj *self)
{
    if (tls_do_read(self) < 0) {
        return -1;
    }
    if (self->state != TLS_FLUSHING) {
        return 0; // the end came while the application was called
    }
    self->state = TLS_SHUTDOWN;
    return tls_do_shutdown(self);
}

PART int
tls_start_shutdown(TlsObj *self)
{
    if (!takes_writes(self)) {
        return 0;
    }
    if (UNLIKELY(self->busy)) { // closed by a callback of ssl
        return tls_call_method_soon(self, (PyObject *)self, self->st->str._start_shutdown, NULL);
    }
    if (self->app_transport != NULL) {
        tls_transport_set_closed(self->app_transport);
    }
    if (self->state == TLS_HANDSHAKE) {
        return tls_abort(self, Py_None);
    }
    if (tls_unstage(self) < 0) {
        return tls_fatal_raised(self, "Fatal error on SSL protocol");
    }
    if (self->state != TLS_WRAPPED) {
        return 0;
    }
    self->state = TLS_FLUSHING;
    return start_shutdown_timer(self) < 0 ? -1 : tls_do_flush(self);
}

PART int
tls_abort(TlsObj *self, PyObject *exc)
{
    self->state = TLS_UNWRAPPED;
    stage_forget(self);
    PyObject *transport = Py_XNewRef(self->transport);
    int result = transport == NULL
                     ? 0
                     : tls_drop(PyObject_CallMethodOneArg(transport, self->st->str._force_close, exc));
    Py_XDECREF(transport);
    return result;
}

/* ---- what the transport below calls ---- */

static int
tls_go_on(TlsObj *self)
{
    if (UNLIKELY(self->busy)) {
        return 0;
    }
    switch (self->state) {
    case TLS_HANDSHAKE:
        return tls_do_handshake(self);
    case TLS_WRAPPED:
        return tls_do_read(self);
    case TLS_FLUSHING:
        return tls_do_flush(self);
    case TLS_SHUTDOWN:
        return tls_do_shutdown(self);
    default:
        return 0;
    }
}

PART int
tls_protocol_check(PyObject *protocol)
{
    return Py_TYPE(protocol)->tp_dealloc == tls_dealloc;
}

PART int
tls_feed(LoopObj *Py_UNUSED(loop), PyObject *protocol, const char *data, Py_ssize_t n)
{
    TlsObj *self = (TlsObj *)protocol;
    if (UNLIKELY(self->busy)) {
        PyErr_SetString(PyExc_RuntimeError, "data came while OpenSSL is at work for this connection");
        return -1;
    }
    Py_INCREF(self);
    int result = incoming_feed(self, data, n);
    if (LIKELY(result == 0)) {
        result = tls_go_on(self);
    }
    if (UNLIKELY(openssl_keep(&self->pipe) < 0)) {
        self->pipe.in_len = 0; // they are the caller's bytes
        self->pipe.in = NULL;
        if (result == 0) {
            PyErr_NoMemory();
            result = -1;
        }
    }
    Py_DECREF(self);
    return result;
}

PyDoc_STRVAR(tls_connection_made_doc,
"connection_made($self, transport, /)\n--\n\nStart the handshake over `transport`.");

static PyObject *
Tls_connection_made(PyObject *op, PyObject *transport)
{
    TlsObj *self = (TlsObj *)op;
    Py_XSETREF(self->transport, Py_NewRef(transport));
    self->over_stream = (char)stream_is_exact(transport);
    if (self->over_stream && ((StreamObj *)transport)->base.context != NULL) {
        Py_XSETREF(self->context, Py_NewRef(((StreamObj *)transport)->base.context));
    }
    if (self->context == NULL && (self->context = PyContext_CopyCurrent()) == NULL) {
        return NULL;
    }
    if (tls_start_handshake(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_connection_lost_doc,
"connection_lost($self, exc, /)\n--\n\n"
"The transport below has closed, because of `exc` or (None) in good order.");

static PyObject *
Tls_connection_lost(PyObject *op, PyObject *exc)
{
    TlsObj *self = (TlsObj *)op;
    backlog_clear(self);
    stage_forget(self);
    if (!self->busy) {
        output_release(self);
        self->pipe.in_len = 0;
        (void)openssl_keep(&self->pipe);
    }
    self->lost_writes++;
    if (self->app_transport != NULL) {
        tls_transport_set_closed(self->app_transport);
    }
    tls_state state = self->state;
    self->state = TLS_UNWRAPPED;
    PyObject *app_protocol = self->app_protocol, *app_transport = self->app_transport;
    PyObject *transport = self->transport;
    self->app_protocol = self->app_transport = self->transport = NULL;
    int failed = 0;
    if (state != TLS_HANDSHAKE && (self->app_state == APP_CONNECTED || self->app_state == APP_EOF) &&
        app_protocol != NULL) {
        self->app_state = APP_LOST;
        failed = tls_call_method_soon(self, app_protocol, self->st->str.connection_lost, exc) < 0;
    }
    PyObject *raised = failed ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(transport);
    Py_XDECREF(app_transport);
    Py_XDECREF(app_protocol);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    if (failed || tls_wakeup_waiter(self, exc) < 0 || tls_timer_cancel(self, &self->shutdown_timer) < 0 ||
        tls_timer_cancel(self, &self->handshake_timer) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_get_buffer_doc,
"get_buffer($self, sizehint, /)\n--\n\nReturn a buffer for the transport below to receive into.");

static PyObject *
Tls_get_buffer(PyObject *op, PyObject *Py_UNUSED(sizehint))
{
    TlsObj *self = (TlsObj *)op;
    if (self->buffer == NULL) {
        self->buffer = PyByteArray_FromStringAndSize(NULL, OWN_PLAIN);
        if (self->buffer == NULL) {
            return NULL;
        }
    }
    return PyMemoryView_FromObject(self->buffer);
}

PyDoc_STRVAR(tls_buffer_updated_doc,
"buffer_updated($self, nbytes, /)\n--\n\nTake `nbytes` bytes that were received into the buffer.");

static PyObject *
Tls_buffer_updated(PyObject *op, PyObject *number)
{
    TlsObj *self = (TlsObj *)op;
    Py_ssize_t n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *buffer = self->buffer;
    if (n < 0 || n > (buffer == NULL ? 0 : PyByteArray_GET_SIZE(buffer))) {
        PyErr_SetString(PyExc_ValueError, "nbytes is more than the buffer holds");
        return NULL;
    }
    if (n == 0) {
        Py_RETURN_NONE;
    }
    /* Whoever has a view of it could change or resize it while it is read: so hold a view as well. */
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    self->buffer = NULL; // not kept: most connections are idle most of the time
    int result = tls_feed(NULL, op, view.buf, n);
    PyBuffer_Release(&view);
    Py_DECREF(buffer);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_feed_doc,
"_feed($self, data, /)\n--\n\nTake bytes that were received before the protocol was put in place.");

static PyObject *
Tls_feed_early(PyObject *op, PyObject *data)
{
    TlsObj *self = (TlsObj *)op;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int result = incoming_feed(self, view.buf, view.len);
    if (result == 0 && openssl_keep(&self->pipe) < 0) {
        self->pipe.in_len = 0;
        PyErr_NoMemory();
        result = -1;
    }
    PyBuffer_Release(&view);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Returns 1 if the transport below is to stay open for now. */
static int
tls_below_eof(TlsObj *self)
{
    self->eof_received = 1;
    int debug = tls_in_debug(self);
    if (debug < 0 || (debug > 0 && tls_debug_log(self, "%r received EOF", NULL) < 0)) {
        return -1;
    }
    switch (self->state) {
    case TLS_HANDSHAKE:
        if (tls_timer_cancel(self, &self->handshake_timer) < 0) {
            return -1;
        }
        PyErr_SetNone(PyExc_ConnectionResetError);
        return handshake_failed(self);
    case TLS_WRAPPED:
        self->state = TLS_FLUSHING;
        return self->app_reading_paused ? 1 : tls_do_flush(self);
    case TLS_FLUSHING:
        if (tls_do_write(self) < 0) {
            return -1;
        }
        if (self->state == TLS_FLUSHING) {
            self->state = TLS_SHUTDOWN;
            return tls_do_shutdown(self);
        }
        return 0;
    case TLS_SHUTDOWN:
        return tls_do_shutdown(self);
    default:
        return 0;
    }
}

PyDoc_STRVAR(tls_eof_received_doc,
"eof_received($self, /)\n--\n\n"
"The peer will send nothing more; return True if the application is still to read what came.");

static PyObject *
Tls_eof_received(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *self = (TlsObj *)op;
    int result = tls_below_eof(self);
    if (result > 0) {
        Py_RETURN_TRUE;
    }
    if (result == 0) {
        Py_RETURN_NONE;
    }
    if (self->transport != NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *exc = PyErr_GetRaisedException(), *transport = Py_NewRef(self->transport);
        if (tls_drop(PyObject_CallMethodNoArgs(transport, self->st->str.close)) < 0) {
            PyErr_WriteUnraisable(transport);
        }
        Py_DECREF(transport);
        PyErr_SetRaisedException(exc);
    }
    return NULL;
}

PyDoc_STRVAR(tls_pause_writing_doc,
"pause_writing($self, /)\n--\n\nThe buffer of the transport below is full.");

static PyObject *
Tls_pause_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((TlsObj *)op)->writing_paused = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_resume_writing_doc,
"resume_writing($self, /)\n--\n\nThe buffer of the transport below has room again.");

static PyObject *
Tls_resume_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *self = (TlsObj *)op;
    self->writing_paused = 0;
    if (self->busy || self->encrypting) {
        Py_RETURN_NONE; // who is at work hands on what there is
    }
    if (process_outgoing(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- what the loop calls ---- */

PyDoc_STRVAR(tls_handshake_timeout_doc, "_check_handshake_timeout($self, /)\n--\n\nThe time for the handshake is over.");

static PyObject *
Tls_check_handshake_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *self = (TlsObj *)op;
    if (self->state == TLS_HANDSHAKE) {
        PyObject *message = PyUnicode_FromFormat(
            "SSL handshake is taking longer than %S seconds: aborting the connection", self->handshake_timeout);
        PyObject *exc = message == NULL ? NULL : PyObject_CallOneArg(PyExc_ConnectionAbortedError, message);
        Py_XDECREF(message);
        int result = exc == NULL ? -1 : tls_fatal_error(self, exc, "Fatal error on transport");
        Py_XDECREF(exc);
        if (result < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_shutdown_timeout_doc, "_check_shutdown_timeout($self, /)\n--\n\nThe time for the shutdown is over.");

static PyObject *
Tls_check_shutdown_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *self = (TlsObj *)op;
    if ((self->state == TLS_FLUSHING || self->state == TLS_SHUTDOWN) && self->transport != NULL) {
        PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s", "SSL shutdown timed out");
        PyObject *transport = Py_NewRef(self->transport);
        int result = exc == NULL
                         ? -1
                         : tls_drop(PyObject_CallMethodOneArg(transport, self->st->str._force_close, exc));
        Py_DECREF(transport);
        Py_XDECREF(exc);
        if (result < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_do_read_doc, "_do_read($self, /)\n--\n\nGive the application what has come.");

static PyObject *
Tls_do_read(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (tls_do_read((TlsObj *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_start_shutdown_doc, "_start_shutdown($self, /)\n--\n\nSay goodbye to the peer.");

PyDoc_STRVAR(tls_resume_doc, "_resume($self, /)\n--\n\nGo on after the application has resumed reading.");

static PyObject *
Tls_start_shutdown(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (tls_start_shutdown((TlsObj *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Tls_resume(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *self = (TlsObj *)op;
    if (self->state != TLS_HANDSHAKE && tls_go_on(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- what the application's transport asks ---- */

/* asyncio fills these in when the handshake is done; making the dictionary of a certificate takes longer
   than anything else here and few ask for it. */
static PyObject *
extra_of_session(TlsObj *self, PyObject *name)
{
    ctask_state *st = self->st;
    if (PyUnicode_Compare(name, st->str.ssl_object) == 0) {
        return Py_NewRef(self->sslobj);
    }
    PyObject *method = PyUnicode_Compare(name, st->str.peercert) == 0      ? st->str.getpeercert
                       : PyUnicode_Compare(name, st->str.cipher) == 0      ? st->str.cipher
                       : PyUnicode_Compare(name, st->str.compression) == 0 ? st->str.compression
                                                                           : NULL;
    return method == NULL ? NULL : PyObject_CallMethodNoArgs(self->sslobj, method);
}

PART PyObject *
tls_get_extra(TlsObj *self, PyObject *name, PyObject *default_value)
{
    PyObject *value = self->extra == NULL ? NULL : PyDict_GetItemWithError(self->extra, name);
    if (value != NULL) {
        return Py_NewRef(value);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (PyUnicode_Check(name)) {
        if (PyUnicode_Compare(name, self->st->str.sslcontext) == 0) {
            return Py_NewRef(self->sslcontext);
        }
        value = self->wrapped_once ? extra_of_session(self, name) : NULL;
        if (value != NULL) {
            if ((self->extra == NULL && (self->extra = PyDict_New()) == NULL) ||
                PyDict_SetItem(self->extra, name, value) < 0) {
                Py_CLEAR(value);
            }
            return value;
        }
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    PyObject *transport = self->transport;
    if (transport == NULL) {
        return Py_NewRef(default_value);
    }
    Py_INCREF(transport);
    PyObject *stack[] = {transport, name, default_value};
    value = PyObject_VectorcallMethod(self->st->str.get_extra_info, stack, 3, NULL);
    Py_DECREF(transport);
    return value;
}

PART int
tls_transport_below_closing(TlsObj *self)
{
    PyObject *transport = self->transport;
    if (transport == NULL) {
        return 0;
    }
    Py_INCREF(transport);
    PyObject *closing = PyObject_CallMethodNoArgs(transport, self->st->str.is_closing);
    Py_DECREF(transport);
    int result = closing == NULL ? -1 : PyObject_IsTrue(closing);
    Py_XDECREF(closing);
    return result;
}

PART int
tls_set_app_protocol(TlsObj *self, PyObject *protocol)
{
    app_kind kind = APP_DATA;
    if (tls_protocol_check(protocol)) {
        kind = APP_TLS;
    }
    else {
        int buffered = PyObject_IsInstance(protocol, self->st->BufferedProtocol);
        if (buffered == 0) { // by its methods: it has get_buffer() and no data_received()
            PyObject *method = NULL, *other = NULL;
            if (PyObject_GetOptionalAttr(protocol, self->st->str.get_buffer, &method) < 0 ||
                PyObject_GetOptionalAttr(protocol, self->st->str.data_received, &other) < 0) {
                buffered = -1;
            }
            else {
                buffered = method != NULL && other == NULL;
            }
            Py_XDECREF(method);
            Py_XDECREF(other);
        }
        if (buffered < 0) {
            return -1;
        }
        kind = buffered ? APP_BUFFERED : streamreader_protocol_check(protocol) ? APP_STREAMS : APP_DATA;
    }
    self->app_kind = kind;
    Py_XSETREF(self->app_protocol, Py_NewRef(protocol));
    return 0;
}

/* ---- life ---- */

static int
tls_load_ssl(ctask_state *st)
{
    if (LIKELY(st->ssl_again != NULL)) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("ssl");
    if (module == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ImportError)) {
            PyErr_SetString(PyExc_RuntimeError, "stdlib ssl module not available");
        }
        return -1;
    }
    PyObject *read = PyObject_GetAttrString(module, "SSLWantReadError");
    PyObject *sys = read == NULL ? NULL : PyObject_GetAttrString(module, "SSLSyscallError");
    PyObject *again = sys == NULL ? NULL : PyTuple_Pack(2, read, sys);
    Py_XDECREF(sys);
    Py_XDECREF(read);
    if (again != NULL) {
        Py_XSETREF(st->ssl_SSLError, PyObject_GetAttrString(module, "SSLError"));
        Py_XSETREF(st->ssl_CertificateError, PyObject_GetAttrString(module, "CertificateError"));
        Py_XSETREF(st->ssl_MemoryBIO, PyObject_GetAttrString(module, "MemoryBIO"));
        Py_XSETREF(st->ssl_SSLObject, PyObject_GetAttrString(module, "SSLObject"));
    }
    Py_DECREF(module);
    if (again == NULL || st->ssl_SSLError == NULL || st->ssl_CertificateError == NULL ||
        st->ssl_MemoryBIO == NULL || st->ssl_SSLObject == NULL) {
        Py_XDECREF(again);
        return -1;
    }
    st->ssl_again = again;
    return 0;
}

static PyObject *
tls_timeout_of(PyObject *given, const char *name, const char *constant)
{
    if (given == NULL || given == Py_None) {
        PyObject *module = PyImport_ImportModule("asyncio.constants");
        PyObject *value = module == NULL ? NULL : PyObject_GetAttrString(module, constant);
        Py_XDECREF(module);
        return value;
    }
    PyObject *zero = PyLong_FromLong(0);
    int bad = zero == NULL ? -1 : PyObject_RichCompareBool(given, zero, Py_LE);
    Py_XDECREF(zero);
    if (bad > 0) {
        PyErr_Format(PyExc_ValueError, "%s should be a positive number, got %S", name, given);
    }
    return bad == 0 ? Py_NewRef(given) : NULL;
}

/* ssl.create_default_context() for a client that gave none; checking the name only if there is one. */
static PyObject *
tls_default_context(int server_side, PyObject *server_hostname)
{
    if (server_side) {
        PyErr_SetString(PyExc_ValueError, "Server side SSL needs a valid SSLContext");
        return NULL;
    }
    PyObject *module = PyImport_ImportModule("ssl");
    PyObject *context = module == NULL ? NULL : PyObject_CallMethod(module, "create_default_context", NULL);
    Py_XDECREF(module);
    int named = context == NULL ? -1 : PyObject_IsTrue(server_hostname);
    if (named < 0 || (named == 0 && PyObject_SetAttrString(context, "check_hostname", Py_False) < 0)) {
        Py_CLEAR(context);
    }
    return context;
}

static int
tls_make_session(TlsObj *self)
{
    ctask_state *st = self->st;
    self->incoming = PyObject_CallNoArgs(st->ssl_MemoryBIO);
    self->outgoing = self->incoming == NULL ? NULL : PyObject_CallNoArgs(st->ssl_MemoryBIO);
    PyObject *wrap = self->outgoing == NULL ? NULL : PyObject_GetAttr(self->sslcontext, st->str.wrap_bio);
    PyObject *args = wrap == NULL ? NULL : PyTuple_Pack(2, self->incoming, self->outgoing);
    PyObject *kwargs = args == NULL ? NULL
                                    : Py_BuildValue("{s:O,s:O}",
                                                    "server_side",
                                                    self->server_side ? Py_True : Py_False,
                                                    "server_hostname",
                                                    self->server_hostname);
    self->sslobj = kwargs == NULL ? NULL : PyObject_Call(wrap, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(wrap);
    if (self->sslobj == NULL) {
        return -1;
    }
    self->ssl = openssl_attach(
        st, self->sslobj, self->incoming, self->outgoing, &self->pipe, &self->bio, &self->sslsocket);
    if (self->ssl != NULL) {
        Py_CLEAR(self->incoming);
        Py_CLEAR(self->outgoing);
    }
    return 0;
}

static PyObject *
Tls_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop",
                               "app_protocol",
                               "sslcontext",
                               "waiter",
                               "server_side",
                               "server_hostname",
                               "call_connection_made",
                               "ssl_handshake_timeout",
                               "ssl_shutdown_timeout",
                               NULL};
    PyObject *loop, *app_protocol, *sslcontext, *waiter, *hostname = Py_None;
    PyObject *handshake_timeout = NULL, *shutdown_timeout = NULL;
    int server_side = 0, call_connection_made = 1;
    if (!PyArg_ParseTupleAndKeywords(args,
                                     kwargs,
                                     "OOOO|pOpOO:SSLProtocol",
                                     keywords,
                                     &loop,
                                     &app_protocol,
                                     &sslcontext,
                                     &waiter,
                                     &server_side,
                                     &hostname,
                                     &call_connection_made,
                                     &handshake_timeout,
                                     &shutdown_timeout)) {
        return NULL;
    }
    PyObject *module = PyType_GetModuleByDef(type, &ctask_module);
    if (module == NULL) {
        return NULL;
    }
    ctask_state *st = PyModule_GetState(module);
    if (tls_load_ssl(st) < 0) {
        return NULL;
    }
    TlsObj *self = (TlsObj *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->st = st;
    self->loop = Py_NewRef(loop);
    self->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    self->server_side = (char)server_side;
    self->app_state = call_connection_made ? APP_INIT : APP_CONNECTED;
    self->handshake_timeout = tls_timeout_of(
        handshake_timeout, "ssl_handshake_timeout", "SSL_HANDSHAKE_TIMEOUT");
    if (self->handshake_timeout == NULL) {
        goto failed;
    }
    self->shutdown_timeout = tls_timeout_of(shutdown_timeout, "ssl_shutdown_timeout", "SSL_SHUTDOWN_TIMEOUT");
    if (self->shutdown_timeout == NULL) {
        goto failed;
    }
    int named = PyObject_IsTrue(hostname), given = PyObject_IsTrue(sslcontext);
    if (named < 0 || given < 0) {
        goto failed;
    }
    self->sslcontext = given ? Py_NewRef(sslcontext) : tls_default_context(server_side, hostname);
    self->server_hostname = Py_NewRef(named && !server_side ? hostname : Py_None);
    if (self->sslcontext == NULL || tls_set_app_protocol(self, app_protocol) < 0 ||
        tls_make_session(self) < 0 ||
        tls_set_limits(Py_None, Py_None, TLS_READ_HIGH_KIB, &self->incoming_high, &self->incoming_low) < 0 ||
        tls_set_limits(Py_None, Py_None, TLS_WRITE_HIGH_KIB, &self->outgoing_high, &self->outgoing_low) < 0) {
        goto failed;
    }
    self->app_transport = tls_transport_create(self);
    if (self->app_transport == NULL) {
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

#define TLS_OWNED(X)     \
    X(loop)              \
    X(app_protocol)      \
    X(app_transport)     \
    X(transport)         \
    X(waiter)            \
    X(sslcontext)        \
    X(server_hostname)   \
    X(extra)             \
    X(handshake_timeout) \
    X(shutdown_timeout)  \
    X(handshake_timer)   \
    X(shutdown_timer)    \
    X(incoming)          \
    X(outgoing)          \
    X(buffer)            \
    X(context)           \
    X(sslobj)

static int
Tls_traverse(PyObject *op, visitproc visit, void *arg)
{
    TlsObj *self = (TlsObj *)op;
    Py_VISIT(Py_TYPE(op));
#define X(name) Py_VISIT(self->name);
    TLS_OWNED(X)
#undef X
    Py_VISIT(self->sslsocket);
    return 0;
}

/* The loop stays until the end: methods may still be called on an object that the collector has cleared.  So
   does what reads and writes records. */
static int
Tls_clear(PyObject *op)
{
    TlsObj *self = (TlsObj *)op;
    self->state = TLS_UNWRAPPED;
    Py_CLEAR(self->app_protocol);
    Py_CLEAR(self->app_transport);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->handshake_timer);
    Py_CLEAR(self->shutdown_timer);
    return 0;
}

PART void
tls_dealloc(PyObject *op)
{
    TlsObj *self = (TlsObj *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    clear_weakrefs(op, type);
    stage_forget(self);
    output_release(self);
    openssl_detach(&self->pipe, self->bio);
    self->bio = NULL;
    self->ssl = NULL;
    backlog_clear(self);
#define X(name) Py_CLEAR(self->name);
    TLS_OWNED(X)
#undef X
    Py_CLEAR(self->sslsocket);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
tls_get_object(PyObject *op, void *offset)
{
    PyObject *value = *(PyObject **)((char *)op + (size_t)offset);
    return Py_NewRef(value == NULL ? Py_None : value);
}

static PyObject *
Tls_get_state(PyObject *op, void *Py_UNUSED(closure))
{
    TlsObj *self = (TlsObj *)op;
    return tls_state_name("SSLProtocolState", tls_state_names, (int)self->state);
}

static PyObject *
Tls_get_app_state(PyObject *op, void *Py_UNUSED(closure))
{
    TlsObj *self = (TlsObj *)op;
    return tls_state_name("AppProtocolState", app_state_names, (int)self->app_state);
}

static PyObject *
Tls_get_direct(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TlsObj *)op)->ssl != NULL);
}

#define TLS_OBJECT(name, field) {name, tls_get_object, NULL, NULL, (void *)offsetof(TlsObj, field)}

static PyGetSetDef tls_getset[] = {
    TLS_OBJECT("_loop", loop),
    TLS_OBJECT("_app_protocol", app_protocol),
    TLS_OBJECT("_app_transport", app_transport),
    TLS_OBJECT("_transport", transport),
    TLS_OBJECT("_sslcontext", sslcontext),
    TLS_OBJECT("_server_hostname", server_hostname),
    TLS_OBJECT("_sslobj", sslobj),
    TLS_OBJECT("_waiter", waiter),
    {"_state", Tls_get_state, NULL, NULL, NULL},
    {"_app_state", Tls_get_app_state, NULL, NULL, NULL},
    {"_direct", Tls_get_direct, NULL, "Whether OpenSSL is called directly.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef tls_methods[] = {
    {"connection_made", Tls_connection_made, METH_O, tls_connection_made_doc},
    {"connection_lost", Tls_connection_lost, METH_O, tls_connection_lost_doc},
    {"get_buffer", Tls_get_buffer, METH_O, tls_get_buffer_doc},
    {"buffer_updated", Tls_buffer_updated, METH_O, tls_buffer_updated_doc},
    {"eof_received", Tls_eof_received, METH_NOARGS, tls_eof_received_doc},
    {"pause_writing", Tls_pause_writing, METH_NOARGS, tls_pause_writing_doc},
    {"resume_writing", Tls_resume_writing, METH_NOARGS, tls_resume_writing_doc},
    {"_feed", Tls_feed_early, METH_O, tls_feed_doc},
    {"_do_read", Tls_do_read, METH_NOARGS, tls_do_read_doc},
    {"_start_shutdown", Tls_start_shutdown, METH_NOARGS, tls_start_shutdown_doc},
    {"_resume", Tls_resume, METH_NOARGS, tls_resume_doc},
    {"_check_handshake_timeout", Tls_check_handshake_timeout, METH_NOARGS, tls_handshake_timeout_doc},
    {"_check_shutdown_timeout", Tls_check_shutdown_timeout, METH_NOARGS, tls_shutdown_timeout_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef tls_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TlsObj, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(tls_doc,
"SSLProtocol(loop, app_protocol, sslcontext, waiter, server_side=False, server_hostname=None, "
"call_connection_made=True, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)\n--\n\n"
"TLS between a transport and `app_protocol`.  (asyncio.sslproto.SSLProtocol)\n\n"
"The timeouts are in seconds.  Raises ValueError for one that is not positive and for a server without a\n"
"context.");

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, (void *)tls_doc},
    {Py_tp_new, Tls_new},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_traverse, Tls_traverse},
    {Py_tp_clear, Tls_clear},
    {Py_tp_methods, tls_methods},
    {Py_tp_getset, tls_getset},
    {Py_tp_members, tls_members},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "ctask._ctask.SSLProtocol",
    .basicsize = sizeof(TlsObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = tls_slots,
};

PART int
tls_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, "SSLProtocol", &st->TlsType, &tls_spec, st->BufferedProtocol) < 0
               ? -1
               : tls_transport_setup(module, st);
}
