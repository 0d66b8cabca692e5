/* The states of a TLS connection: handshake, reading, the orderly end.

   What asyncio.sslproto.SSLProtocol does per event is here, in its order and with its messages; the Python
   type is in tls_protocol.c.  Contexts, handshakes and errors are those of Python's ssl. */

#include "tls/tls.h"

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

/* close_notify came. */
static int
peer_closed(TlsObj *self)
{
    return tls_call_eof_received(self) < 0 ? -1 : self->state == TLS_FLUSHING ? 0 : tls_start_shutdown(self);
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
        if (UNLIKELY(result > 0)) {
            result = peer_closed(self);
        }
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
    if (raised_is_exit()) {
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
        return tls_process_outgoing(self) < 0 || tls_call_eof_received(self) < 0 ? -1 : shutdown_complete(self);
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
