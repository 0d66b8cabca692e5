/* StreamReaderProtocol: hands what the transport receives to the StreamReader.

   C is what happens per chunk of data, and what holds the attributes; what else happens once per
   connection (connection_made(), ...) is asyncio's.  A transport of ours asks
   streamreader_protocol_check() and then calls streamreader_feed() with the bytes where they are. */

#include "io/sink.h"
#include "streams/streamprotocol.h"
#include "streams/streamreader_core.h"
#include "tasks/futures.h"

/* ---- overrides ---- */

#define PROTOCOL_VIRTUAL(X) \
    X(_drain_helper)        \
    X(_get_close_waiter)    \
    X(_stream_reader)       \
    X(connection_lost)      \
    X(data_received)

PART int
streamprotocol_look(StreamProtocolObj *protocol)
{
    ctask_state *st = protocol->st;
    PyTypeObject *type = Py_TYPE(protocol);
    if (protocol->loop == NULL || protocol->overridden > 1) {
        return 1; /* without __init__, or an attribute of the instance decides */
    }
    if (st->streams.plain_protocol == 0 || st->streams.plain_protocol != type->tp_version_tag) {
#define X(name) st->str.name,
        PyObject *names[] = {PROTOCOL_VIRTUAL(X)};
#undef X
        protocol->overridden = (char)standin_overrides(
            type, st->StreamProtocolType, st->stock_StreamReaderProtocol, names, Py_ARRAY_LENGTH(names));
        if (!protocol->overridden) {
            st->streams.plain_protocol = type->tp_version_tag;
        }
    }
    else {
        protocol->overridden = 0;
    }
    protocol->type_version = type->tp_version_tag;
    return protocol->overridden;
}

PART int
streamprotocol_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, streamprotocol_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    int status = PyObject_GenericSetAttr(self, name, value);
    ctask_state *st = protocol->st;
#define X(virtual) st->str.virtual,
    PyObject *names[] = {PROTOCOL_VIRTUAL(X)};
#undef X
    if (UNLIKELY(standin_is_one_of(name, names, Py_ARRAY_LENGTH(names)))) {
        protocol->overridden = 2;
    }
    return status;
}

/* ---- data ---- */

/* The reader (owned), NULL without an exception if it is gone. */
static inline int
protocol_reader(StreamProtocolObj *protocol, PyObject **reader)
{
    PyObject *ref = protocol->reader_ref;
    *reader = NULL;
    if (UNLIKELY(!is_set(ref))) {
        return 0;
    }
    if (LIKELY(PyWeakref_CheckRefExact(ref))) {
        return PyWeakref_GetRef(ref, reader) < 0 ? -1 : 0;
    }
    Py_INCREF(ref);
    *reader = PyObject_CallNoArgs(ref);
    Py_DECREF(ref);
    if (*reader == Py_None) {
        Py_CLEAR(*reader);
        return 0;
    }
    return *reader == NULL ? -1 : 0;
}

/* As data_received(): the bytes at `data`, or in `bytes` if that is not NULL. */
static int
protocol_receive(StreamProtocolObj *protocol, const char *data, Py_ssize_t n, PyObject *bytes)
{
    PyObject *obj;
    if (protocol_reader(protocol, &obj) < 0 || obj == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int status;
    StreamReaderObj *reader = streamreader_cast(obj);
    if (LIKELY(reader != NULL && (bytes == NULL || PyBytes_CheckExact(bytes)))) {
        status = streamreader_add(reader, data, n, bytes);
    }
    else {
        bytes = bytes == NULL ? PyBytes_FromStringAndSize(data, n) : Py_NewRef(bytes);
        PyObject *res = bytes == NULL ? NULL
                                      : PyObject_CallMethodOneArg(obj, protocol->st->str.feed_data, bytes);
        Py_XDECREF(bytes);
        Py_XDECREF(res);
        status = res == NULL ? -1 : 0;
    }
    Py_DECREF(obj);
    return status;
}

PART int
streamreader_protocol_check(PyObject *protocol)
{
    return streamprotocol_cast(protocol) != NULL;
}

PART int
streamreader_feed(PyObject *obj, const char *data, Py_ssize_t n)
{
    StreamProtocolObj *protocol = streamprotocol_cast(obj);
    if (LIKELY(protocol != NULL)) {
        return protocol_receive(protocol, data, n, NULL);
    }
    /* It was looked at when the transport got it; a method has been replaced since. */
    ctask_state *st = ((StreamProtocolObj *)obj)->st;
    PyObject *bytes = PyBytes_FromStringAndSize(data, n);
    PyObject *res = bytes == NULL ? NULL : PyObject_CallMethodOneArg(obj, st->str.data_received, bytes);
    Py_XDECREF(bytes);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static PyObject *
StreamProtocol_data_received(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames, PyObject *stock)
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    if (LIKELY(nargs == 2 && kwnames == NULL && streamprotocol_cast(self) != NULL)) {
        PyObject *data = args[1];
        Py_ssize_t n = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) : 0;
        return protocol_receive(protocol, NULL, n, data) < 0 ? NULL : Py_NewRef(Py_None);
    }
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

/* ---- the end of the connection ---- */

static inline void
protocol_forget(PyObject **field)
{
    PyObject *before = *field;
    *field = Py_NewRef(Py_None);
    Py_XDECREF(before);
}

/* connection_lost(None) of a connection that nobody waits for to have room. */
static int
protocol_lose(StreamProtocolObj *protocol)
{
    PyObject *obj;
    if (protocol_reader(protocol, &obj) < 0) {
        return -1;
    }
    if (obj != NULL) {
        StreamReaderObj *reader = streamreader_cast(obj);
        PyObject *res = NULL;
        int status = 0;
        if (LIKELY(reader != NULL)) {
            status = streamreader_add_eof(reader);
        }
        else {
            res = PyObject_CallMethodNoArgs(obj, protocol->st->str.feed_eof);
            status = res == NULL ? -1 : 0;
        }
        Py_XDECREF(res);
        Py_DECREF(obj);
        if (status < 0) {
            return -1;
        }
    }
    protocol->closed_done = 1;
    protocol->connection_lost = 1;
    protocol_forget(&protocol->reader_ref);
#if PY_VERSION_HEX < 0x030F0000
    protocol_forget(&protocol->stream_writer);
#endif
    protocol_forget(&protocol->task);
    protocol_forget(&protocol->transport);
    if (UNLIKELY(protocol->closed != NULL)) {
        /* feed_eof() may be anybody's, and have asked for it. */
        PyObject *closed = Py_NewRef(protocol->closed);
        int status = future_wake(protocol->st, closed, Py_None);
        Py_DECREF(closed);
        return status < 0 ? -1 : 0;
    }
    return 0;
}

#if PY_VERSION_HEX < 0x030E0000
/* As later releases have it. */
static PyObject *
StreamProtocol_connection_made(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames, PyObject *stock)
{
    PyObject *callback = ((StreamProtocolObj *)self)->client_connected;
    if (nargs == 2 && kwnames == NULL && callback != NULL && callback != Py_None) {
        stock = standin_python(&st->connection_made, "ctask._streams", "connection_made");
    }
    return stock == NULL ? NULL : PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}
#endif

/* An exception in `_closed` that nobody asks for is not reported.  asyncio's finalizer sees to that, before the future
   goes, which is as old.  Ours is younger, so the collector may call the future's finalizer first. */
static void
protocol_keep_silent(StreamProtocolObj *protocol)
{
    PyObject *closed = Py_NewRef(protocol->closed);
    if (PyObject_SetAttrString(closed, "_log_traceback", Py_False) < 0) {
        PyErr_Clear(); // it is of some other kind
    }
    Py_DECREF(closed);
}

static PyObject *
StreamProtocol_connection_lost(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames, PyObject *stock)
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    if (LIKELY(nargs == 2 && kwnames == NULL && args[1] == Py_None && !protocol->paused &&
               protocol->closed == NULL && streamprotocol_cast(self) != NULL)) {
        return protocol_lose(protocol) < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *res = PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    if (res != NULL && core_is(self, streamprotocol_dealloc) && protocol->closed != NULL) {
        protocol_keep_silent(protocol);
    }
    return res;
}

/* ---- attributes ---- */

/* asyncio makes the future and the deque at once; nearly nobody asks for either. */
static PyObject *
StreamProtocol_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    if (protocol->closed == NULL) {
        if (protocol->loop == NULL) {
            PyErr_SetString(PyExc_AttributeError, "_closed");
            return NULL;
        }
        PyObject *loop = Py_NewRef(protocol->loop);
        PyObject *fut = PyObject_CallMethodNoArgs(loop, protocol->st->str.create_future);
        Py_DECREF(loop);
        if (fut != NULL && protocol->closed_done) {
            PyObject *res = PyObject_CallMethodOneArg(fut, protocol->st->str.set_result, Py_None);
            if (res == NULL) {
                Py_CLEAR(fut);
            }
            Py_XDECREF(res);
        }
        return keep_first(&protocol->closed, fut);
    }
    return Py_NewRef(protocol->closed);
}

static int
StreamProtocol_set_closed(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(((StreamProtocolObj *)self)->closed, Py_XNewRef(value));
    return 0;
}

static PyObject *
StreamProtocol_get_drain_waiters(PyObject *self, void *Py_UNUSED(closure))
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    if (protocol->drain_waiters == NULL) {
        if (protocol->loop == NULL) {
            PyErr_SetString(PyExc_AttributeError, "_drain_waiters");
            return NULL;
        }
        return keep_first(&protocol->drain_waiters, PyObject_CallNoArgs(protocol->st->deque));
    }
    return Py_NewRef(protocol->drain_waiters);
}

static int
StreamProtocol_set_drain_waiters(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(((StreamProtocolObj *)self)->drain_waiters, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef StreamProtocol_getset[] = {
    {"_closed", StreamProtocol_get_closed, StreamProtocol_set_closed, NULL, NULL},
    {"_drain_waiters", StreamProtocol_get_drain_waiters, StreamProtocol_set_drain_waiters, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef StreamProtocol_members[] = {
    {"_loop", T_OBJECT_EX, offsetof(StreamProtocolObj, loop), 0, NULL},
    {"_stream_reader_wr", T_OBJECT_EX, offsetof(StreamProtocolObj, reader_ref), 0, NULL},
    {"_strong_reader", T_OBJECT_EX, offsetof(StreamProtocolObj, strong_reader), 0, NULL},
    {"_stream_writer", T_OBJECT_EX, offsetof(StreamProtocolObj, stream_writer), 0, NULL},
    {"_client_connected_cb", T_OBJECT_EX, offsetof(StreamProtocolObj, client_connected), 0, NULL},
    {"_task", T_OBJECT_EX, offsetof(StreamProtocolObj, task), 0, NULL},
    {"_transport", T_OBJECT_EX, offsetof(StreamProtocolObj, transport), 0, NULL},
    {"_paused", T_BOOL, offsetof(StreamProtocolObj, paused), 0, NULL},
    {"_connection_lost", T_BOOL, offsetof(StreamProtocolObj, connection_lost), 0, NULL},
    {"_reject_connection", T_BOOL, offsetof(StreamProtocolObj, reject_connection), 0, NULL},
    {"_over_ssl", T_BOOL, offsetof(StreamProtocolObj, over_ssl), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

static PyObject *
StreamProtocol___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return core_new(type, streamprotocol_dealloc, sizeof(StreamProtocolObj));
}

/* Was nothing set before __init__()? */
static inline int
protocol_is_bare(const StreamProtocolObj *protocol)
{
    return protocol->loop == NULL && protocol->reader_ref == NULL && protocol->strong_reader == NULL &&
           protocol->stream_writer == NULL && protocol->client_connected == NULL && protocol->task == NULL &&
           protocol->transport == NULL && protocol->closed == NULL && protocol->drain_waiters == NULL &&
           !protocol->paused && !protocol->connection_lost && !protocol->reject_connection &&
           !protocol->over_ssl;
}

/* The ordinary case here; asyncio's own __init__ fills the same attributes in all others. */
static int
StreamProtocol___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"stream_reader", "client_connected_cb", "loop", NULL};
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    PyObject *reader, *callback = Py_None, *loop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O|OO:StreamReaderProtocol", keywords, &reader, &callback, &loop)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, protocol->st->stock_StreamReaderProtocol);
    }
    if (!protocol_is_bare(protocol) || loop_plain(loop) == NULL || streamreader_cast(reader) == NULL) {
        PyObject *stack[] = {self, reader, callback, loop};
        PyObject *res = PyObject_Vectorcall(protocol->st->stock_protocol_init, stack, 4, NULL);
        Py_XDECREF(res);
        return res == NULL ? -1 : 0;
    }
    protocol->reader_ref = PyWeakref_NewRef(reader, NULL);
    if (protocol->reader_ref == NULL) {
        return -1;
    }
    protocol->loop = Py_NewRef(loop);
    protocol->client_connected = Py_NewRef(callback);
    protocol->task = Py_NewRef(Py_None);
    protocol->transport = Py_NewRef(Py_None);
#if PY_VERSION_HEX < 0x030D0000
    protocol->stream_writer = Py_NewRef(Py_None);
#endif
    if (callback != Py_None) {
        protocol->strong_reader = Py_NewRef(reader);
    }
    return 0;
}

/* An exception in `_closed` that nobody asked for is not reported. */
static void
streamprotocol_finalize(PyObject *self)
{
    if (core_is(self, streamprotocol_dealloc) && ((StreamProtocolObj *)self)->closed == NULL) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    ctask_state *st = core_state(Py_TYPE(self));
    PyObject *res = st == NULL ? NULL : PyObject_CallOneArg(st->stock_protocol_del, self);
    if (res == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(res);
    PyErr_SetRaisedException(raised);
}

static int
streamprotocol_visit(PyObject *self, visitproc visit, void *arg)
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    Py_VISIT(protocol->loop);
    Py_VISIT(protocol->reader_ref);
    Py_VISIT(protocol->strong_reader);
    Py_VISIT(protocol->stream_writer);
    Py_VISIT(protocol->client_connected);
    Py_VISIT(protocol->task);
    Py_VISIT(protocol->transport);
    Py_VISIT(protocol->closed);
    Py_VISIT(protocol->drain_waiters);
    return 0;
}

static int
streamprotocol_drop(PyObject *self)
{
    StreamProtocolObj *protocol = (StreamProtocolObj *)self;
    Py_CLEAR(protocol->loop);
    Py_CLEAR(protocol->reader_ref);
    Py_CLEAR(protocol->strong_reader);
    Py_CLEAR(protocol->stream_writer);
    Py_CLEAR(protocol->client_connected);
    Py_CLEAR(protocol->task);
    Py_CLEAR(protocol->transport);
    Py_CLEAR(protocol->closed);
    Py_CLEAR(protocol->drain_waiters);
    protocol->type_version = 0; /* look anew: it has no loop */
    return 0;
}

CORE_LIFE(PART, streamprotocol)

static PyType_Slot StreamProtocol_slots[] = {
    {Py_tp_new, StreamProtocol___new__},
    {Py_tp_init, StreamProtocol___init__},
    {Py_tp_finalize, streamprotocol_finalize},
    {Py_tp_dealloc, streamprotocol_dealloc},
    {Py_tp_traverse, streamprotocol_traverse},
    {Py_tp_clear, streamprotocol_clear},
    {Py_tp_setattro, streamprotocol_setattro},
    {Py_tp_members, StreamProtocol_members},
    {Py_tp_getset, StreamProtocol_getset},
    {0, NULL},
};

static PyType_Spec StreamProtocol_spec = {
    .name = "ctask._ctask.StreamReaderProtocol",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = StreamProtocol_slots,
};

PART int
streamprotocol_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
#if PY_VERSION_HEX < 0x030E0000
        {"connection_made", StreamProtocol_connection_made},
#endif
        {"connection_lost", StreamProtocol_connection_lost},
        {"data_received", StreamProtocol_data_received},
    };
    static const sink_kind sink = {
        streamreader_protocol_check, streamreader_feed, "Fatal error: protocol.data_received() call failed."};
    sink_add(st, &sink);
    PyObject *stock = st->stock_StreamReaderProtocol;
    if ((st->stock_protocol_init = PyObject_GetAttrString(stock, "__init__")) == NULL ||
        (st->stock_protocol_del = PyObject_GetAttrString(stock, "__del__")) == NULL) {
        return -1;
    }
    return core_add(module,
                    st,
                    "StreamReaderProtocol",
                    &st->StreamProtocolType,
                    &StreamProtocol_spec,
                    NULL,
                    st->stock_StreamReaderProtocol,
                    methods,
                    Py_ARRAY_LENGTH(methods));
}
