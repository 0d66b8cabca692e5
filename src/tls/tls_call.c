/* What a connection calls: the application, in the context in which its connection was made; the loop, its timers and
   its exception handler; who waits for the handshake.

   It knows nothing of records and of the connection's states, but that the application is told of its end once. */

#include "loop/report.h"
#include "tls/tls_parts.h"

/* ---- the loop ---- */

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

PART int
tls_loop_time(TlsObj *self, double *now)
{
    PyObject *time = PyObject_CallMethodNoArgs(self->loop, self->st->str.time);
    *now = time == NULL ? -1.0 : PyFloat_AsDouble(time);
    Py_XDECREF(time);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

PART PyObject *
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
    int result = tls_drop(loop_tell_handler(self->st, self->loop, context, exc));
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
            PyObject *args = debug == NULL ? NULL : Py_BuildValue("(sOs)", "%r: %s", (PyObject *)self, message);
            PyObject *kwargs = args == NULL ? NULL : Py_BuildValue("{s:O}", "exc_info", exc);
            result = kwargs == NULL ? -1 : tls_drop(PyObject_Call(debug, args, kwargs));
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

/* KeyboardInterrupt and SystemExit leave the loop, and the connection goes on when it runs again: what was to
   follow must not wait for the peer. */
PART void
tls_interrupted(TlsObj *self)
{
    if (!raised_is_exit()) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL) < 0) {
        PyErr_Clear(); // the loop is closed
    }
    PyErr_SetRaisedException(exc);
}

/* ---- the application ---- */

/* Whoever's call brings it about, the application's callbacks run in the context in which its connection was
   made.  If it is entered here it is `*entered`, for tls_context_exit(): the connection may have another by then. */
PART int
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

PART int
tls_context_exit(PyObject *entered)
{
    if (LIKELY(entered == NULL)) {
        return 0;
    }
    int result = PyContext_Exit(entered);
    Py_DECREF(entered);
    return result;
}

PART PyObject *
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
tls_tell_app(TlsObj *self, PyObject *method, const char *failure)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = tls_drop(tls_call_app(self, protocol, method, NULL));
    Py_DECREF(protocol);
    if (result < 0 && !raised_is_exit()) {
        PyObject *exc = PyErr_GetRaisedException();
        result = tls_report(self, failure, exc, self->app_transport);
        Py_DECREF(exc);
    }
    return result;
}

PART int
tls_call_eof_received(TlsObj *self)
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
    if (result < 0 && !raised_is_exit()) {
        PyObject *exc = PyErr_GetRaisedException();
        result = tls_fatal_error(self, exc, "Error calling eof_received()");
        Py_DECREF(exc);
    }
    return result;
}
