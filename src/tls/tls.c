/* The states of a TLS connection: handshake, reading, flow control on both sides, the orderly end.

   What asyncio.sslproto.SSLProtocol does per event is here, in its order and with its messages; the Python
   type is in tls_protocol.c.  Contexts, handshakes and errors are those of Python's ssl.  The application is
   called from here only, in the connection's context. */

#include "streams/streams.h"
#include "tls/tls.h"

#define OWN_PLAIN (64 * 1024)

/* ---- small helpers ---- */

PART int
tls_drop(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* In the connection's context. */
PART int
tls_call_method_soon(TlsObj *self, PyObject *object, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr(object, name);
    PyObject *context = Py_NewRef(self->context == NULL ? Py_None : self->context);
    int result = method == NULL ? -1 : call_soon(self->st, self->loop, method, arg, context);
    Py_DECREF(context);
    Py_XDECREF(method);
    return result;
}

/* Whoever's call brings it about, the application's callbacks run in the context in which its connection was
   made.  If it is entered here it is `*entered`, for tls_context_exit(): the connection may have another by then. */
static int
tls_context_enter(TlsObj *self, PyObject **entered)
{
    PyContext *context = (PyContext *)self->context;
    *entered = NULL;
    if (LIKELY(context == NULL || context->ctx_entered)) {
        return 0; // the transport below, or a callback of its own, called us
    }
    if (PyContext_Enter(self->context) < 0) {
        return -1;
    }
    *entered = Py_NewRef(self->context);
    return 0;
}

static int
tls_context_exit(PyObject *entered)
{
    if (LIKELY(entered == NULL)) {
        return 0;
    }
    int result = PyContext_Exit(entered);
    Py_DECREF(entered);
    return result;
}

static PyObject *
tls_call_app(TlsObj *self, PyObject *protocol, PyObject *name, PyObject *arg)
{
    PyObject *stack[] = {protocol, arg}, *entered;
    if (tls_context_enter(self, &entered) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_VectorcallMethod(name, stack, arg == NULL ? 1 : 2, NULL);
    if (UNLIKELY(tls_context_exit(entered) < 0)) {
        Py_CLEAR(result);
    }
    return result;
}

PART int
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

PART int
tls_timer_cancel(TlsObj *self, PyObject **timer)
{
    PyObject *handle = *timer;
    *timer = NULL;
    int result = handle == NULL ? 0 : tls_drop(PyObject_CallMethodNoArgs(handle, self->st->str.cancel));
    Py_XDECREF(handle);
    return result;
}

PART struct tls_buffers *
tls_buffers_of(ctask_state *st)
{
    if (UNLIKELY(st->tls.buffers == NULL)) {
        struct tls_buffers *buffers = malloc(sizeof(*buffers));
        if (buffers == NULL) {
            return NULL;
        }
        buffers->plain_used = buffers->out_used = 0;
        st->tls.buffers = buffers;
    }
    return st->tls.buffers;
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
PART int
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
PART int
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

/* KeyboardInterrupt and SystemExit leave the loop, and the connection goes on when it runs again: what was to
   follow must not wait for the peer. */
PART void
tls_interrupted(TlsObj *self)
{
    if (!tls_is_exit()) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL) < 0) {
        PyErr_Clear(); // the loop is closed
    }
    PyErr_SetRaisedException(exc);
}

static const char *const tls_state_names[] = {"UNWRAPPED", "DO_HANDSHAKE", "WRAPPED", "FLUSHING", "SHUTDOWN"};
static const char *const app_state_names[] = {"STATE_INIT", "STATE_CON_MADE", "STATE_EOF", "STATE_CON_LOST"};

/* asyncio's name for a state, as a member of its enumeration. */
PART PyObject *
tls_state_object(TlsObj *self, int of_app)
{
    const char *type = of_app ? "AppProtocolState" : "SSLProtocolState";
    const char *name = of_app ? app_state_names[self->app_state] : tls_state_names[self->state];
    PyObject *module = PyImport_ImportModule("asyncio.sslproto");
    PyObject *states = module == NULL ? NULL : PyObject_GetAttrString(module, type);
    PyObject *state = states == NULL ? NULL : PyObject_GetAttrString(states, name);
    Py_XDECREF(states);
    Py_XDECREF(module);
    return state;
}

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

PART int
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
        hi = low == Py_None            ? kib * 1024
             : lo > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX
             : lo < PY_SSIZE_T_MIN / 4 ? PY_SSIZE_T_MIN
                                       : 4 * lo;
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
    return call_eof_received(self) < 0 ? -1 : self->state == TLS_FLUSHING ? 0 : tls_start_shutdown(self);
}

/* To TLS over this one, with any number of them above it: nothing else on the way looks at the depth of the stack. */
static int
tls_deliver_tls(PyObject *protocol, PyObject *data)
{
    if (Py_EnterRecursiveCall(" in TLS over TLS")) {
        return -1;
    }
    int result = tls_feed(protocol, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    Py_LeaveRecursiveCall();
    return result;
}

static int
tls_deliver(TlsObj *self, PyObject *data)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = self->app_kind == APP_TLS
                     ? tls_deliver_tls(protocol, data)
                     : tls_drop(tls_call_app(self, protocol, self->st->str.data_received, data));
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
    PyObject *entered;
    if (tls_context_enter(self, &entered) < 0) {
        return -1;
    }
    Py_INCREF(protocol);
    int result = streamreader_feed(protocol, data, n);
    Py_DECREF(protocol);
    return UNLIKELY(tls_context_exit(entered) < 0) ? -1 : result;
}

/* The application is called once a turn; what is left goes on in the next, whatever it raises. */
static int
read_on_later(TlsObj *self)
{
    return tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

/* Decrypt and give it to data_received(), all of it in one piece unless it is more than a buffer. */
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
        n = tls_record_read(self, plain + length, size - length);
        if (n <= 0) {
            break;
        }
        length += n;
        if (tls_read_all(self)) {
            n = AGAIN;
            break;
        }
    }
    if (n > 0 && read_on_later(self) < 0) {
        n = FAILED;
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
    return n == 0 ? peer_closed(self) : 0;
}

/* Decrypt into the application's own buffer. */
static int
tls_read_buffered(TlsObj *self)
{
    Py_ssize_t hint = tls_incoming_size(self);
    if (hint < 0) {
        return -1;
    }
    PyObject *protocol = self->app_protocol;
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
        n = tls_record_read(self, (char *)view.buf + length, (int)Py_MIN(view.len - length, 1 << 20));
        if (n <= 0) {
            break;
        }
        length += n;
        if (tls_read_all(self)) {
            n = AGAIN;
            break;
        }
    }
    PyBuffer_Release(&view);
    if (n == FAILED) {
        goto done;
    }
    if (n > 0 && read_on_later(self) < 0) {
        goto done;
    }
    result = 0;
    if (length > 0) {
        number = PyLong_FromSsize_t(length);
        result = number == NULL ? -1
                                : tls_drop(tls_call_app(self, protocol, self->st->str.buffer_updated, number));
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

/* What comes after the application has closed is no longer for it. */
static int
tls_read_discarded(TlsObj *self)
{
    char nowhere[TLS_RECORD];
    int n;
    while ((n = tls_record_read(self, nowhere, sizeof(nowhere))) > 0) {
    }
    return n == 0 ? peer_closed(self) : n == FAILED ? -1 : 0;
}

/* Is there something that the application is still to be given? */
static int
tls_has_unread(TlsObj *self)
{
    if (self->discarding || self->app_state != APP_CONNECTED || self->app_protocol == NULL) {
        return 0;
    }
    if (self->ssl != NULL) {
        return !tls_read_all(self);
    }
    Py_ssize_t size = tls_incoming_size(self);
    if (size != 0) {
        return size < 0 ? -1 : 1;
    }
    PyObject *pending = tls_call_sslobj(self, self->st->str.pending, NULL);
    int result = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(pending);
    return result;
}

/* What waits to be encrypted, or to be handed on. */
static int
tls_send(TlsObj *self)
{
    return tls_backlog_empty(self) ? tls_process_outgoing(self) : tls_do_write(self);
}

static inline int
tls_is_reading(TlsObj *self)
{
    return self->state == TLS_WRAPPED || self->state == TLS_FLUSHING;
}

/* Returns 1 if it has failed, and the connection is ended because of that. */
static int
read_and_send(TlsObj *self)
{
    if (!tls_is_reading(self) || self->busy) {
        return 0;
    }
    int result = 0, reading = !self->app_reading_paused || self->discarding;
    if (reading && self->app_protocol != NULL) {
        result = self->discarding                 ? tls_read_discarded(self)
                 : self->app_kind == APP_BUFFERED ? tls_read_buffered(self)
                                                  : tls_read_copied(self);
    }
    if (result < 0 || (reading && tls_send(self) < 0) || tls_control_reading(self) < 0) {
        return tls_fatal_raised(self, "Fatal error on SSL protocol") < 0 ? -1 : 1;
    }
    return 0;
}

PART int
tls_do_read(TlsObj *self)
{
    return read_and_send(self) < 0 ? -1 : 0;
}

/* ---- handshake ---- */

PART int
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

PART int
tls_handshake_failed(TlsObj *self)
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

/* What the SSLObject answers, for get_extra_info(). */
static int
session_ask(TlsObj *self, PyObject *method, PyObject *key)
{
    PyObject *answer = tls_call_sslobj(self, method, NULL);
    int result = answer == NULL ? -1 : self->extra == NULL ? 0 : PyDict_SetItem(self->extra, key, answer);
    Py_XDECREF(answer);
    return result;
}

static int
handshake_log_time(TlsObj *self)
{
    int debug = tls_in_debug(self);
    if (debug <= 0 || !self->timed_handshake) {
        return debug;
    }
    double now;
    PyObject *took = tls_loop_time(self, &now) < 0 ? NULL
                                                   : PyFloat_FromDouble((now - self->handshake_start) * 1e3);
    int result = took == NULL ? -1 : tls_debug_log(self, "%r: SSL handshake took %.1f ms", took);
    Py_XDECREF(took);
    return result;
}

/* Does OpenSSL's queue have an error, though the handshake went well?  A keylog file that cannot be written leaves
   one, which the next read finds. */
static int
handshake_left_error(TlsObj *self)
{
    return self->st->tls.openssl != NULL && self->st->tls.openssl->ERR_peek_error() != 0;
}

/* If the loop is left by it, who waits for the connection has it when the loop runs again. */
static int
connection_made_failed(TlsObj *self)
{
    if (tls_is_exit()) {
        PyObject *exc = PyErr_GetRaisedException();
        if (tls_wakeup_waiter(self, NULL) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        PyErr_SetRaisedException(exc);
    }
    return -1;
}

static int
handshake_complete(TlsObj *self)
{
    ctask_state *st = self->st;
    int left_error = handshake_left_error(self);
    if (tls_timer_cancel(self, &self->handshake_timer) < 0) {
        return -1;
    }
    if (tls_state_set(self, TLS_WRAPPED) < 0 || session_ask(self, st->str.getpeercert, st->str.peercert) < 0) {
        return tls_handshake_failed(self);
    }
    if (handshake_log_time(self) < 0 || session_ask(self, st->str.cipher, st->str.cipher) < 0 ||
        session_ask(self, st->str.compression, st->str.compression) < 0 ||
        (self->extra != NULL && PyDict_SetItem(self->extra, st->str.ssl_object, self->sslobj) < 0)) {
        return -1;
    }
    int upgraded = self->app_state != APP_INIT;
    if (!upgraded && self->app_protocol != NULL && self->app_transport != NULL) {
        self->app_state = APP_CONNECTED;
        PyObject *protocol = Py_NewRef(self->app_protocol), *transport = Py_NewRef(self->app_transport);
        int result = tls_drop(tls_call_app(self, protocol, st->str.connection_made, transport));
        Py_DECREF(transport);
        Py_DECREF(protocol);
        if (result < 0) {
            return connection_made_failed(self);
        }
    }
    /* Another context since the peer has named its server, or methods of the application's. */
    self->direct = self->direct && openssl_unseen(st, self->sslobj);
    int waited_for = self->waiter != NULL;
    if (tls_wakeup_waiter(self, NULL) < 0) {
        return -1;
    }
    if (UNLIKELY(self->app_reading_paused) && tls_send(self) < 0) { // our last message
        return -1;
    }
    if (LIKELY(!upgraded || !waited_for || left_error)) {
        return tls_do_read(self);
    }
    /* Who has called start_tls() has its transport, and answers by it, before data comes. */
    return tls_send(self) < 0 ? -1 : tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

static int
tls_do_handshake(TlsObj *self)
{
    PyObject *res = tls_call_sslobj(self, self->st->str.do_handshake, NULL);
    if (res != NULL) {
        Py_DECREF(res);
        return handshake_complete(self);
    }
    if (PyErr_ExceptionMatches(self->st->ssl_again)) {
        PyErr_Clear();
        return tls_process_outgoing(self);
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
    return tls_handshake_failed(self);
}

PART int
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
    if (tls_state_set(self, TLS_HANDSHAKE) < 0 || tls_timer_cancel(self, &self->handshake_timer) < 0) {
        return -1; // there is a timer if the protocol was used before
    }
    PyObject *timer = tls_call_later(self, self->handshake_timeout, self->st->str._check_handshake_timeout);
    if (timer == NULL) {
        return -1;
    }
    Py_XSETREF(self->handshake_timer, timer);
    return tls_do_handshake(self);
}

/* ---- the end ---- */

static int
start_shutdown_timer(TlsObj *self)
{
    if (self->shutdown_timer != NULL) {
        return 0;
    }
    PyObject *timer = tls_call_later(self, self->shutdown_timeout, self->st->str._check_shutdown_timeout);
    if (timer == NULL) {
        return -1;
    }
    Py_XSETREF(self->shutdown_timer, timer);
    return 0;
}

/* The timer goes on until the connection is lost: the transport below first sends what it has, which a peer
   that does not read could delay for ever. */
static int
shutdown_complete(TlsObj *self)
{
    if (start_shutdown_timer(self) < 0) {
        return -1;
    }
    PyObject *transport = Py_XNewRef(self->transport);
    int result = transport == NULL ? 0 : tls_call_method_soon(self, transport, self->st->str.close, NULL);
    Py_XDECREF(transport);
    return result;
}

/* Was what could not be read the peer's end?  An alert is a goodbye, too. */
static int
peer_has_ended(TlsObj *self)
{
    char nowhere[1];
    int n = tls_record_read(self, nowhere, sizeof(nowhere));
    if (n != FAILED) {
        return n == 0;
    }
    int result = PyErr_ExceptionMatches(self->st->ssl_SSLZeroReturnError);
    PyErr_Clear();
    return result;
}

/* Say goodbye, or hear the peer's: 1 when both were said, 0 if there is to be waited, -1 with an exception. */
static int
say_goodbye(TlsObj *self)
{
    char nowhere[TLS_RECORD];
    int n;
    PyObject *failure = NULL;
    /* What the peer sent before it heard of our end would fail unwrap(). */
    while ((n = tls_record_read(self, nowhere, sizeof(nowhere))) > 0) {
    }
    if (n == FAILED) {
        if (!PyErr_ExceptionMatches(self->st->ssl_SSLError)) {
            return -1;
        }
        failure = PyErr_GetRaisedException();
        if (peer_has_ended(self)) {
            Py_DECREF(failure);
            return 1;
        }
    }
    if (tls_control_reading(self) < 0) { // what was not read had it paused
        Py_XDECREF(failure);
        return -1;
    }
    PyObject *res = tls_call_sslobj(self, self->st->str.unwrap, NULL);
    if (res == NULL && failure != NULL) {
        PyErr_SetRaisedException(failure); // what unwrap() would have met first
        return -1;
    }
    Py_XDECREF(failure);
    if (res == NULL && PyErr_ExceptionMatches(self->st->ssl_again)) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(res);
    return res == NULL ? -1 : 1;
}

PART int
tls_do_shutdown(TlsObj *self)
{
    int said = self->eof_received ? 1 : say_goodbye(self);
    if (said > 0) {
        return tls_process_outgoing(self) < 0 || call_eof_received(self) < 0 ? -1 : shutdown_complete(self);
    }
    if (said == 0) {
        return tls_process_outgoing(self);
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

/* Returns 1 if the application is first to have what came before the end. */
PART int
tls_do_flush(TlsObj *self)
{
    int failed = read_and_send(self);
    if (failed < 0) {
        return -1;
    }
    if (self->state != TLS_FLUSHING) {
        return 0; // the end came while the application was called
    }
    int unread = failed ? 0 : tls_has_unread(self);
    if (unread != 0) {
        return unread;
    }
    self->state = TLS_SHUTDOWN;
    return tls_do_shutdown(self);
}

PART int
tls_start_shutdown(TlsObj *self)
{
    /* The peer has ended it, the application had not read what came before, and never will. */
    int ended = self->eof_received && self->discarding && self->state == TLS_FLUSHING;
    if (!tls_takes_writes(self) && !ended) {
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
    self->state = TLS_FLUSHING;
    return start_shutdown_timer(self) < 0 || tls_do_flush(self) < 0 ? -1 : 0;
}

PART int
tls_abort(TlsObj *self, PyObject *exc)
{
    self->state = TLS_UNWRAPPED;
    PyObject *transport = Py_XNewRef(self->transport);
    int result = transport == NULL
                     ? 0
                     : tls_drop(PyObject_CallMethodOneArg(transport, self->st->str._force_close, exc));
    Py_XDECREF(transport);
    return result;
}

/* ---- what the transport below calls ---- */

static int
go_on(TlsObj *self)
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
        return tls_do_flush(self) < 0 ? -1 : 0;
    case TLS_SHUTDOWN:
        return tls_do_shutdown(self);
    default:
        return 0;
    }
}

PART int
tls_go_on(TlsObj *self)
{
    int result = go_on(self);
    if (UNLIKELY(result < 0)) {
        tls_interrupted(self);
    }
    return result;
}

PART int
tls_protocol_check(PyObject *protocol)
{
    return Py_TYPE(protocol)->tp_dealloc == tls_dealloc;
}

PART int
tls_feed(PyObject *protocol, const char *data, Py_ssize_t n)
{
    TlsObj *self = (TlsObj *)protocol;
    if (UNLIKELY(self->busy)) {
        PyErr_SetString(PyExc_RuntimeError, "data came while OpenSSL is at work for this connection");
        return -1;
    }
    Py_INCREF(self);
    int result = tls_incoming_feed(self, data, n);
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
