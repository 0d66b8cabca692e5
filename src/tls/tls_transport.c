/* The transport that an application sees over TLS, in the place of asyncio.sslproto._SSLProtocolTransport.

   It owns nothing of the connection: each method is a call of the parts below.  The two hold each other
   until the connection is lost. */

#include "io/transport.h"
#include "tls/tls.h"

#include <structmember.h>

#define NONE_OR_NULL(result) ((result) < 0 ? NULL : Py_NewRef(Py_None))

static TlsObj *
tls_protocol_of(PyObject *op)
{
    return ((TlsTransportObj *)op)->protocol;
}

/* A new reference, for what may call others: close() lets go of it. */
static TlsObj *
tls_protocol_hold(PyObject *op)
{
    return (TlsObj *)Py_XNewRef((PyObject *)tls_protocol_of(op));
}

static PyObject *
tls_get_extra(TlsObj *self, PyObject *name, PyObject *default_value)
{
    PyObject *value = self->extra == NULL ? NULL : PyDict_GetItemWithError(self->extra, name);
    if (value != NULL || PyErr_Occurred()) {
        return Py_XNewRef(value);
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

static int
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

PyDoc_STRVAR(tls_transport_get_extra_info_doc,
"get_extra_info($self, name, default=None)\n--\n\n"
"Return what is known of the connection: 'peercert', 'cipher', 'compression', 'sslcontext', 'ssl_object',\n"
"or what the transport below knows.  (asyncio.BaseTransport.get_extra_info)");

static PyObject *
TlsTransport_get_extra_info(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", "default", NULL};
    PyObject *name, *default_value = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", keywords, &name, &default_value)) {
        return NULL;
    }
    TlsObj *protocol = tls_protocol_hold(op);
    if (protocol == NULL) {
        return Py_NewRef(default_value);
    }
    PyObject *value = tls_get_extra(protocol, name, default_value);
    Py_DECREF(protocol);
    return value;
}

PyDoc_STRVAR(tls_transport_set_protocol_doc, "set_protocol($self, /, protocol)\n--\n\n(asyncio.BaseTransport.set_protocol)");

static PyObject *
TlsTransport_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *protocol = single_argument(op, "set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL) {
        return NULL;
    }
    TlsObj *tls = tls_protocol_hold(op);
    int result = tls == NULL ? 0 : tls_set_app_protocol(tls, protocol);
    Py_XDECREF(tls);
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(tls_transport_get_protocol_doc, "get_protocol($self, /)\n--\n\n(asyncio.BaseTransport.get_protocol)");

static PyObject *
TlsTransport_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *protocol = tls_protocol_of(op);
    return Py_NewRef(protocol == NULL || protocol->app_protocol == NULL ? Py_None : protocol->app_protocol);
}

PyDoc_STRVAR(tls_transport_is_closing_doc, "is_closing($self, /)\n--\n\n(asyncio.BaseTransport.is_closing)");

static PyObject *
TlsTransport_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    if (self->closed || self->protocol == NULL) {
        Py_RETURN_TRUE;
    }
    TlsObj *protocol = tls_protocol_hold(op);
    int closing = tls_transport_below_closing(protocol);
    Py_DECREF(protocol);
    return closing < 0 ? NULL : PyBool_FromLong(closing);
}

PyDoc_STRVAR(tls_transport_close_doc,
"close($self, /)\n--\n\n"
"Send what is buffered and say goodbye; connection_lost(None) follows.  (asyncio.BaseTransport.close)");

static PyObject *
TlsTransport_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    if (self->closed) {
        Py_CLEAR(self->protocol);
        Py_RETURN_NONE;
    }
    self->closed = 1;
    if (self->protocol == NULL) {
        Py_RETURN_NONE;
    }
    TlsObj *protocol = (TlsObj *)Py_NewRef(self->protocol);
    protocol->discarding = 1;
    int result = tls_start_shutdown(protocol);
    Py_DECREF(protocol);
    return NONE_OR_NULL(result);
}

static int
tls_transport_force_close(PyObject *op, PyObject *exc)
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    self->closed = 1;
    if (self->protocol == NULL) {
        return 0;
    }
    TlsObj *protocol = (TlsObj *)Py_NewRef(self->protocol);
    int result = tls_abort(protocol, exc);
    Py_DECREF(protocol);
    return result;
}

PyDoc_STRVAR(tls_transport_abort_doc,
"abort($self, /)\n--\n\nClose at once; what is buffered is lost.  (asyncio.WriteTransport.abort)");

static PyObject *
TlsTransport_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return NONE_OR_NULL(tls_transport_force_close(op, Py_None));
}

PyDoc_STRVAR(tls_transport_force_close_doc, "_force_close($self, exc, /)\n--\n\nClose at once because of `exc`.");

static PyObject *
TlsTransport_force_close(PyObject *op, PyObject *exc)
{
    return NONE_OR_NULL(tls_transport_force_close(op, exc));
}

PyDoc_STRVAR(tls_transport_is_reading_doc, "is_reading($self, /)\n--\n\n(asyncio.ReadTransport.is_reading)");

static PyObject *
TlsTransport_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *protocol = tls_protocol_of(op);
    return PyBool_FromLong(protocol != NULL && !protocol->app_reading_paused);
}

PyDoc_STRVAR(tls_transport_pause_reading_doc, "pause_reading($self, /)\n--\n\n(asyncio.ReadTransport.pause_reading)");

static PyObject *
TlsTransport_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (tls_protocol_of(op) != NULL) {
        tls_protocol_of(op)->app_reading_paused = 1;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tls_transport_resume_reading_doc, "resume_reading($self, /)\n--\n\n(asyncio.ReadTransport.resume_reading)");

static PyObject *
TlsTransport_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *protocol = tls_protocol_hold(op);
    int result = protocol == NULL ? 0 : tls_resume_reading(protocol);
    Py_XDECREF(protocol);
    return NONE_OR_NULL(result);
}

static int
tls_parse_limits(PyObject *args, PyObject *kwargs, const char *format, PyObject **high, PyObject **low)
{
    static char *keywords[] = {"high", "low", NULL};
    *high = *low = Py_None;
    return PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, high, low) ? 0 : -1;
}

PyDoc_STRVAR(tls_transport_set_write_buffer_limits_doc,
"set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
"Set when pause_writing() and resume_writing() are called, in bytes; 512 KiB and a quarter of it by default.\n"
"Raises ValueError unless high >= low >= 0.  (asyncio.WriteTransport.set_write_buffer_limits)");

static PyObject *
TlsTransport_set_write_buffer_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *high, *low;
    if (tls_parse_limits(args, kwargs, "|OO:set_write_buffer_limits", &high, &low) < 0) {
        return NULL;
    }
    TlsObj *protocol = tls_protocol_hold(op);
    if (protocol == NULL) {
        Py_RETURN_NONE;
    }
    int result = transport_limits(high, low, TLS_WRITE_HIGH, &protocol->outgoing_high, &protocol->outgoing_low);
    if (result == 0) {
        result = tls_control_writing(protocol);
    }
    Py_DECREF(protocol);
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(tls_transport_set_read_buffer_limits_doc,
"set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
"Set when the transport below is paused and resumed, in bytes not yet decrypted; 256 KiB and a quarter of it\n"
"by default.  Raises ValueError unless high >= low >= 0.");

static PyObject *
TlsTransport_set_read_buffer_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *high, *low;
    if (tls_parse_limits(args, kwargs, "|OO:set_read_buffer_limits", &high, &low) < 0) {
        return NULL;
    }
    TlsObj *protocol = tls_protocol_hold(op);
    if (protocol == NULL) {
        Py_RETURN_NONE;
    }
    int result = transport_limits(high, low, TLS_READ_HIGH, &protocol->incoming_high, &protocol->incoming_low);
    if (result == 0) {
        result = tls_control_reading(protocol);
    }
    Py_DECREF(protocol);
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(tls_transport_get_write_buffer_limits_doc,
"get_write_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.");

static PyObject *
TlsTransport_get_write_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *protocol = tls_protocol_of(op);
    return protocol == NULL ? Py_BuildValue("(ii)", 0, 0)
                            : Py_BuildValue("(nn)", protocol->outgoing_low, protocol->outgoing_high);
}

PyDoc_STRVAR(tls_transport_get_read_buffer_limits_doc,
"get_read_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.");

static PyObject *
TlsTransport_get_read_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TlsObj *protocol = tls_protocol_of(op);
    return protocol == NULL ? Py_BuildValue("(ii)", 0, 0)
                            : Py_BuildValue("(nn)", protocol->incoming_low, protocol->incoming_high);
}

static PyObject *
tls_size_of(PyObject *op, Py_ssize_t (*size_of)(TlsObj *))
{
    TlsObj *protocol = tls_protocol_hold(op);
    Py_ssize_t size = protocol == NULL ? 0 : size_of(protocol);
    Py_XDECREF(protocol);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(tls_transport_get_write_buffer_size_doc,
"get_write_buffer_size($self, /)\n--\n\nReturn how many bytes wait here to be sent.");

static PyObject *
TlsTransport_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return tls_size_of(op, tls_outgoing_size);
}

PyDoc_STRVAR(tls_transport_get_read_buffer_size_doc,
"get_read_buffer_size($self, /)\n--\n\nReturn how many bytes wait here to be decrypted.");

static PyObject *
TlsTransport_get_read_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return tls_size_of(op, tls_incoming_size);
}

PyDoc_STRVAR(tls_transport_write_doc, "write($self, /, data)\n--\n\nEncrypt and send `data`.  (asyncio.WriteTransport.write)");

static PyObject *
TlsTransport_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *data = single_argument(op, "write", "data", args, nargs, kwnames);
    if (data == NULL) {
        return NULL;
    }
    Py_ssize_t length;
    if (LIKELY(PyBytes_Check(data))) {
        length = PyBytes_GET_SIZE(data);
    }
    else if (PyByteArray_Check(data)) {
        length = PyByteArray_GET_SIZE(data);
    }
    else if (PyMemoryView_Check(data)) {
        length = PyMemoryView_GET_BUFFER(data)->len;
    }
    else {
        PyErr_Format(
            PyExc_TypeError, "data: expecting a bytes-like instance, got %s", _PyType_Name(Py_TYPE(data)));
        return NULL;
    }
    TlsObj *protocol = tls_protocol_of(op);
    if (length == 0 || protocol == NULL) {
        Py_RETURN_NONE;
    }
    Py_INCREF(protocol);
    int result = tls_write(protocol, data);
    Py_DECREF(protocol);
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(tls_transport_writelines_doc,
"writelines($self, /, list_of_data)\n--\n\n"
"Encrypt and send each of them; small ones share records.  (asyncio.WriteTransport.writelines)");

static PyObject *
TlsTransport_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *items = single_argument(op, "writelines", "list_of_data", args, nargs, kwnames);
    if (items == NULL) {
        return NULL;
    }
    TlsObj *protocol = tls_protocol_hold(op);
    if (protocol == NULL) {
        Py_RETURN_NONE;
    }
    int result = tls_writelines(protocol, items);
    Py_DECREF(protocol);
    return NONE_OR_NULL(result);
}

PyDoc_STRVAR(tls_transport_write_eof_doc, "write_eof($self, /)\n--\n\nRaise NotImplementedError: TLS is not closed by halves.");

static PyObject *
TlsTransport_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

PyDoc_STRVAR(tls_transport_can_write_eof_doc, "can_write_eof($self, /)\n--\n\nReturn False.");

static PyObject *
TlsTransport_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(tls_transport_append_doc, "_test__append_write_backlog($self, data, /)\n--\n\nFor asyncio's tests.");

static PyObject *
TlsTransport_append(PyObject *op, PyObject *data)
{
    TlsObj *protocol = tls_protocol_hold(op);
    int result = protocol == NULL ? 0 : tls_backlog_append(protocol, data);
    Py_XDECREF(protocol);
    return NONE_OR_NULL(result);
}

static PyMethodDef tls_transport_methods[] = {
    {"get_extra_info",
     (PyCFunction)(void (*)(void))TlsTransport_get_extra_info,
     METH_VARARGS | METH_KEYWORDS,
     tls_transport_get_extra_info_doc},
    {"set_protocol",
     (PyCFunction)(void (*)(void))TlsTransport_set_protocol,
     METH_FASTCALL | METH_KEYWORDS,
     tls_transport_set_protocol_doc},
    {"get_protocol", TlsTransport_get_protocol, METH_NOARGS, tls_transport_get_protocol_doc},
    {"is_closing", TlsTransport_is_closing, METH_NOARGS, tls_transport_is_closing_doc},
    {"close", TlsTransport_close, METH_NOARGS, tls_transport_close_doc},
    {"abort", TlsTransport_abort, METH_NOARGS, tls_transport_abort_doc},
    {"_force_close", TlsTransport_force_close, METH_O, tls_transport_force_close_doc},
    {"is_reading", TlsTransport_is_reading, METH_NOARGS, tls_transport_is_reading_doc},
    {"pause_reading", TlsTransport_pause_reading, METH_NOARGS, tls_transport_pause_reading_doc},
    {"resume_reading", TlsTransport_resume_reading, METH_NOARGS, tls_transport_resume_reading_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))TlsTransport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     tls_transport_set_write_buffer_limits_doc},
    {"get_write_buffer_limits",
     TlsTransport_get_write_buffer_limits,
     METH_NOARGS,
     tls_transport_get_write_buffer_limits_doc},
    {"get_write_buffer_size",
     TlsTransport_get_write_buffer_size,
     METH_NOARGS,
     tls_transport_get_write_buffer_size_doc},
    {"set_read_buffer_limits",
     (PyCFunction)(void (*)(void))TlsTransport_set_read_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     tls_transport_set_read_buffer_limits_doc},
    {"get_read_buffer_limits",
     TlsTransport_get_read_buffer_limits,
     METH_NOARGS,
     tls_transport_get_read_buffer_limits_doc},
    {"get_read_buffer_size",
     TlsTransport_get_read_buffer_size,
     METH_NOARGS,
     tls_transport_get_read_buffer_size_doc},
    {"write",
     (PyCFunction)(void (*)(void))TlsTransport_write,
     METH_FASTCALL | METH_KEYWORDS,
     tls_transport_write_doc},
    {"writelines",
     (PyCFunction)(void (*)(void))TlsTransport_writelines,
     METH_FASTCALL | METH_KEYWORDS,
     tls_transport_writelines_doc},
    {"write_eof", TlsTransport_write_eof, METH_NOARGS, tls_transport_write_eof_doc},
    {"can_write_eof", TlsTransport_can_write_eof, METH_NOARGS, tls_transport_can_write_eof_doc},
    {"_test__append_write_backlog", TlsTransport_append, METH_O, tls_transport_append_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ---- */

static PyObject *
TlsTransport_get_ssl_protocol(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(tls_protocol_of(op) == NULL ? Py_None : (PyObject *)tls_protocol_of(op));
}

static PyObject *
TlsTransport_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *loop = ((TlsTransportObj *)op)->loop;
    return Py_NewRef(loop == NULL ? Py_None : loop);
}

static PyObject *
TlsTransport_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TlsTransportObj *)op)->closed);
}

static PyObject *
TlsTransport_get_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(tls_protocol_of(op) != NULL && tls_protocol_of(op)->app_writing_paused);
}

static PyGetSetDef tls_transport_getset[] = {
    {"_ssl_protocol", TlsTransport_get_ssl_protocol, NULL, NULL, NULL},
    {"_loop", TlsTransport_get_loop, NULL, NULL, NULL},
    {"_closed", TlsTransport_get_closed, NULL, NULL, NULL},
    {"_protocol_paused", TlsTransport_get_paused, NULL, NULL, NULL}, // loop.sendfile() asks
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef tls_transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TlsTransportObj, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(TlsTransportObj, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

PART PyObject *
tls_transport_create(TlsObj *protocol)
{
    PyTypeObject *type = protocol->st->TlsTransportType;
    TlsTransportObj *self = (TlsTransportObj *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->loop = Py_NewRef(protocol->loop);
        self->protocol = (TlsObj *)Py_NewRef(protocol);
    }
    return (PyObject *)self;
}

static void
TlsTransport_finalize(PyObject *op)
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    if (self->closed) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    self->closed = 1;
    if (PyErr_WarnEx(PyExc_ResourceWarning, "unclosed transport <asyncio._SSLProtocolTransport object>", 1) <
        0) {
        PyErr_WriteUnraisable(op);
    }
    PyErr_SetRaisedException(raised);
}

static int
TlsTransport_traverse(PyObject *op, visitproc visit, void *arg)
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    Py_VISIT(Py_TYPE(op));
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->slots); i++) {
        Py_VISIT(self->slots[i]);
    }
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->dict);
    return 0;
}

static int
TlsTransport_clear(PyObject *op)
{
    TlsTransportObj *self = (TlsTransportObj *)op;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->slots); i++) {
        Py_CLEAR(self->slots[i]);
    }
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->dict);
    return 0;
}

static void
TlsTransport_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    clear_weakrefs(op, type);
    Py_TRASHCAN_BEGIN(op, TlsTransport_dealloc); /* anything may be its loop: another transport */
    (void)TlsTransport_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

PyDoc_STRVAR(tls_transport_transport_doc, "The application's side of a TLS connection; SSLProtocol makes it.");

static PyType_Slot tls_transport_slots[] = {
    {Py_tp_doc, (void *)tls_transport_transport_doc},
    {Py_tp_dealloc, TlsTransport_dealloc},
    {Py_tp_finalize, TlsTransport_finalize},
    {Py_tp_traverse, TlsTransport_traverse},
    {Py_tp_clear, TlsTransport_clear},
    {Py_tp_methods, tls_transport_methods},
    {Py_tp_getset, tls_transport_getset},
    {Py_tp_members, tls_transport_members},
    {0, NULL},
};

static PyType_Spec tls_transport_spec = {
    .name = "ctask._ctask._SSLProtocolTransport",
    .basicsize = sizeof(TlsTransportObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tls_transport_slots,
};

PART int
tls_transport_setup(PyObject *module, ctask_state *st)
{
    PyTypeObject *base = (PyTypeObject *)st->stock_Transport;
    if (!PyType_Check(base) || base->tp_basicsize != offsetof(TlsTransportObj, loop)) {
        PyErr_SetString(PyExc_ImportError,
                        "ctask was built for another asyncio: its transports have other slots");
        return -1;
    }
    if (add_type(
            module, "_SSLProtocolTransport", &st->TlsTransportType, &tls_transport_spec, (PyObject *)base) <
        0) {
        return -1;
    }
    PyObject *type = (PyObject *)st->TlsTransportType;
    PyObject *constants = PyImport_ImportModule("asyncio.constants");
    PyObject *modes = constants == NULL ? NULL : PyObject_GetAttrString(constants, "_SendfileMode");
    PyObject *fallback = modes == NULL ? NULL : PyObject_GetAttrString(modes, "FALLBACK");
    int result = fallback == NULL || PyObject_SetAttrString(type, "_sendfile_compatible", fallback) < 0 ||
                         PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0
                     ? -1
                     : 0;
    Py_XDECREF(fallback);
    Py_XDECREF(modes);
    Py_XDECREF(constants);
    return result;
}
