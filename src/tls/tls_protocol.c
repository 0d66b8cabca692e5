/* ctask.SSLProtocol, in the place of asyncio.sslproto.SSLProtocol: how one is made and let go, and what the
   transport below and the loop call.

   It is a BufferedProtocol over any transport, Python's included; our own transport takes the shorter way by
   tls_feed(). */

#include "io/sink.h"
#include "io/stream.h"
#include "tls/tls.h"

#include <structmember.h>

#define READ_BUFFER (64 * 1024) // for transports that are not ours

/* ---- what the transport below calls ---- */

PyDoc_STRVAR(tls_connection_made_doc,
"connection_made($self, transport, /)\n--\n\nStart the handshake over `transport`.");

static PyObject *
Tls_connection_made(PyObject *op, PyObject *transport)
{
    TlsObj *self = (TlsObj *)op;
    PyObject *before = self->transport; // whose end may have something written to the new one
    self->transport = Py_NewRef(transport);
    self->over_stream = (char)stream_is_exact(transport);
    Py_XDECREF(before);
    PyObject *context = NULL;
    if (self->over_stream) {
        context = ((StreamObj *)transport)->base.context;
    }
    else if (Py_TYPE(transport) == self->st->TlsTransportType && ((TlsTransportObj *)transport)->protocol) {
        context = ((TlsTransportObj *)transport)->protocol->context;
    }
    if (context != NULL) {
        Py_XSETREF(self->context, Py_NewRef(context));
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
    tls_backlog_clear(self);
    if (!self->busy) {
        tls_output_release(self);
        self->pipe.in_len = 0;
        (void)openssl_keep(&self->pipe);
        if (self->outgoing != NULL &&
            tls_drop(PyObject_CallMethodNoArgs(self->outgoing, self->st->str.read)) < 0) {
            return NULL;
        }
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
        self->buffer = PyByteArray_FromStringAndSize(NULL, READ_BUFFER);
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
    int result = tls_feed(op, view.buf, n);
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
    if (self->busy) { // it may be reading, without the interpreter lock
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_RuntimeError, "data came while OpenSSL is at work for this connection");
        return NULL;
    }
    int result = tls_incoming_feed(self, view.buf, view.len);
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
        return tls_handshake_failed(self);
    case TLS_WRAPPED:
        self->state = TLS_FLUSHING;
        return self->app_reading_paused ? 1 : tls_do_flush(self);
    case TLS_FLUSHING:
        if (tls_do_write(self) < 0) {
            return -1;
        }
        return self->state == TLS_FLUSHING ? tls_do_flush(self) : 0;
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
    if (UNLIKELY(result < 0)) {
        tls_interrupted(self);
    }
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
    if (tls_process_outgoing(self) < 0) {
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

/* ---- life ---- */

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
    TlsObj *self = (TlsObj *)instance_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(self); // nobody finds it before it is whole
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
    int named = PyObject_IsTrue(hostname);
    int given = named < 0 ? -1 : PyObject_IsTrue(sslcontext);
    if (given < 0) {
        goto failed;
    }
    self->sslcontext = given ? Py_NewRef(sslcontext) : tls_default_context(server_side, hostname);
    self->server_hostname = Py_NewRef(named && !server_side ? hostname : Py_None);
    self->extra = PyDict_New();
    if (self->sslcontext == NULL || self->extra == NULL ||
        PyDict_SetItem(self->extra, st->str.sslcontext, self->sslcontext) < 0 ||
        tls_set_app_protocol(self, app_protocol) < 0 || tls_make_session(self) < 0 ||
        transport_limits(NULL, NULL, TLS_READ_HIGH, &self->incoming_high, &self->incoming_low) < 0 ||
        transport_limits(NULL, NULL, TLS_WRITE_HIGH, &self->outgoing_high, &self->outgoing_low) < 0) {
        goto failed;
    }
    self->app_transport = tls_transport_create(self);
    if (self->app_transport == NULL) {
        goto failed;
    }
    PyObject_GC_Track(self);
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

static void
tls_dealloc(PyObject *op)
{
    TlsObj *self = (TlsObj *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    clear_weakrefs(op, type);
    Py_TRASHCAN_BEGIN(op, tls_dealloc); /* each of its objects may be another one, or go on to one */
    tls_output_release(self);
    openssl_detach(&self->pipe, self->bio);
    self->bio = NULL;
    self->ssl = NULL;
    self->direct = 0;
    tls_backlog_clear(self);
#define X(name) Py_CLEAR(self->name);
    TLS_OWNED(X)
#undef X
    Py_CLEAR(self->sslsocket);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END;
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
    return tls_state_object(self, 0);
}

static PyObject *
Tls_get_app_state(PyObject *op, void *Py_UNUSED(closure))
{
    TlsObj *self = (TlsObj *)op;
    return tls_state_object(self, 1);
}

static PyObject *
Tls_get_direct(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TlsObj *)op)->direct);
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

/* Exactly ctask.SSLProtocol. */
static int
tls_protocol_check(PyObject *protocol)
{
    return Py_TYPE(protocol)->tp_dealloc == tls_dealloc;
}

PART int
tls_setup(PyObject *module, ctask_state *st)
{
    static const sink_kind sink = {
        tls_protocol_check, tls_feed, "Fatal error: protocol.buffer_updated() call failed."};
    sink_add(st, &sink);
    return add_type(module, "SSLProtocol", &st->TlsType, &tls_spec, st->BufferedProtocol) < 0
               ? -1
               : tls_transport_setup(module, st);
}
