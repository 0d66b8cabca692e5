/* StreamWriter: write() to the transport, drain() to wait until it has room again, wait_closed().

   What happens once per connection is asyncio's. */

#include "coro/coro.h"
#include "io/stream.h"
#include "streams/streams.h"

typedef struct {
    CORE_HEAD
    PyObject *transport;    // owned; NULL before __init__
    PyObject *protocol;     // owned
    PyObject *reader;       // owned; or None
    PyObject *loop;         // owned
    PyObject *complete_fut; // owned; NULL until somebody asks for it
} StreamWriterObj;

static void streamwriter_dealloc(PyObject *self);

/* The transport (owned), or AttributeError. */
static inline PyObject *
writer_transport(StreamWriterObj *writer)
{
    if (UNLIKELY(writer->transport == NULL)) {
        PyErr_SetString(PyExc_AttributeError, "_transport");
        return NULL;
    }
    return Py_NewRef(writer->transport);
}

/* ---- drain() ---- */

/* 0 if drain() may go on: the reader has no exception. */
static int
writer_raise(StreamWriterObj *writer)
{
    StreamReaderObj *reader = NULL;
    if (!is_set(writer->reader)) {
        return 0;
    }
    reader = streamreader_cast(writer->reader);
    PyObject *exc;
    if (LIKELY(reader != NULL)) {
        exc = reader->exception;
        if (LIKELY(!is_set(exc))) {
            return 0;
        }
        Py_INCREF(exc);
    }
    else {
        PyObject *obj = Py_NewRef(writer->reader);
        exc = PyObject_CallMethodNoArgs(obj, writer->st->str.exception);
        Py_DECREF(obj);
        if (exc == NULL) {
            return -1;
        }
    }
    int status = exc == Py_None ? 0 : streams_raise(exc);
    Py_DECREF(exc);
    return status;
}

/* Neither drain() nor wait_closed() has a result, whatever they waited for had. */
static int
writer_done(CoroObj *Py_UNUSED(coro), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return 1;
}

static int
writer_drain_helper(CoroObj *coro, PyObject **result)
{
    StreamWriterObj *writer = (StreamWriterObj *)coro->owner;
    if (UNLIKELY(writer->protocol == NULL)) {
        PyErr_SetString(PyExc_AttributeError, "_protocol");
        return -1;
    }
    StreamProtocolObj *protocol = streamprotocol_cast(writer->protocol);
    if (LIKELY(protocol != NULL && !protocol->paused && !protocol->connection_lost)) {
        *result = Py_NewRef(Py_None);
        return 1;
    }
    PyObject *obj = Py_NewRef(writer->protocol);
    PyObject *awaitable = PyObject_CallMethodNoArgs(obj, coro->st->str._drain_helper);
    Py_DECREF(obj);
    return coro_await(coro, awaitable, writer_done);
}

static int
writer_drain_start(CoroObj *coro, PyObject **result)
{
    StreamWriterObj *writer = (StreamWriterObj *)coro->owner;
    if (writer_raise(writer) < 0) {
        return -1;
    }
    PyObject *transport = writer_transport(writer);
    if (transport == NULL) {
        return -1;
    }
    int closing;
    if (LIKELY(stream_is_unpatched(transport))) {
        closing = ((TransportObj *)transport)->closing != 0;
    }
    else {
        PyObject *res = PyObject_CallMethodNoArgs(transport, coro->st->str.is_closing);
        closing = res == NULL ? -1 : PyObject_IsTrue(res);
        Py_XDECREF(res);
    }
    Py_DECREF(transport);
    if (LIKELY(closing == 0)) {
        return writer_drain_helper(coro, result);
    }
    if (closing < 0) {
        return -1;
    }
    /* Give the loop a turn in which connection_lost() may be called; otherwise who writes and drains in a
       loop would never hear of it. */
    coro->step = writer_drain_helper;
    return CORO_YIELD;
}

static PyObject *
StreamWriter_drain(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, writer_drain_start, "StreamWriter.drain", 0, NULL);
}

/* ---- wait_closed() ---- */

static int
writer_wait_closed_start(CoroObj *coro, PyObject **result)
{
    StreamWriterObj *writer = (StreamWriterObj *)coro->owner;
    if (UNLIKELY(writer->protocol == NULL)) {
        PyErr_SetString(PyExc_AttributeError, "_protocol");
        return -1;
    }
    StreamProtocolObj *protocol = streamprotocol_cast(writer->protocol);
    if (protocol != NULL && protocol->closed_done && protocol->closed == NULL) {
        *result = Py_NewRef(Py_None); /* no need to make the future */
        return 1;
    }
    PyObject *obj = Py_NewRef(writer->protocol);
    PyObject *waiter = PyObject_CallMethodOneArg(obj, coro->st->str._get_close_waiter, (PyObject *)writer);
    Py_DECREF(obj);
    return coro_await(coro, waiter, writer_done);
}

static PyObject *
StreamWriter_wait_closed(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, writer_wait_closed_start, "StreamWriter.wait_closed", 0, NULL);
}

/* ---- the transport's methods ---- */

static PyObject *
writer_forward(PyObject *self, PyObject *name, PyObject *arg)
{
    PyObject *transport = writer_transport((StreamWriterObj *)self);
    if (transport == NULL) {
        return NULL;
    }
    PyObject *res = NULL;
    if (!Py_EnterRecursiveCall("")) { /* the transport may be a writer, too, even this one */
        res = arg == NULL ? PyObject_CallMethodNoArgs(transport, name)
                          : PyObject_CallMethodOneArg(transport, name, arg);
        Py_LeaveRecursiveCall();
    }
    Py_DECREF(transport);
    return res;
}

PyDoc_STRVAR(writer_write_doc,
"write($self, data)\n--\n\n"
"Have the transport write `data`; use drain() after it.  (asyncio.StreamWriter.write)");

static PyObject *
StreamWriter_write(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    if (UNLIKELY(nargs != 2 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *data = args[1];
    PyObject *transport = writer_transport((StreamWriterObj *)self);
    if (UNLIKELY(transport == NULL)) {
        return NULL;
    }
    int status;
    if (LIKELY(stream_is_unpatched(transport))) {
        status = stream_write((StreamObj *)transport, data);
    }
    else {
        PyObject *res = writer_forward(self, st->str.write, data);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    Py_DECREF(transport);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(writer_close_doc,
"close($self, /)\n--\n\n"
"Close the transport; use wait_closed() after it.  (asyncio.StreamWriter.close)");

static PyObject *
StreamWriter_close(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return writer_forward(self, ((StreamWriterObj *)self)->st->str.close, NULL);
}

static PyObject *
StreamWriter_is_closing(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return writer_forward(self, ((StreamWriterObj *)self)->st->str.is_closing, NULL);
}

/* ---- attributes ---- */

/* A future that is done, which asyncio makes at once. */
static PyObject *
StreamWriter_get_complete_fut(PyObject *self, void *Py_UNUSED(closure))
{
    StreamWriterObj *writer = (StreamWriterObj *)self;
    if (writer->complete_fut == NULL) {
        if (writer->loop == NULL) {
            PyErr_SetString(PyExc_AttributeError, "_complete_fut");
            return NULL;
        }
        PyObject *loop = Py_NewRef(writer->loop);
        PyObject *fut = PyObject_CallMethodNoArgs(loop, writer->st->str.create_future);
        Py_DECREF(loop);
        PyObject *res = fut == NULL ? NULL
                                    : PyObject_CallMethodOneArg(fut, writer->st->str.set_result, Py_None);
        if (res == NULL) {
            Py_XDECREF(fut);
            return NULL;
        }
        Py_DECREF(res);
        Py_XSETREF(writer->complete_fut, Py_NewRef(fut));
        return fut;
    }
    return Py_NewRef(writer->complete_fut);
}

static int
StreamWriter_set_complete_fut(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(((StreamWriterObj *)self)->complete_fut, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef StreamWriter_getset[] = {
    {"_complete_fut", StreamWriter_get_complete_fut, StreamWriter_set_complete_fut, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef StreamWriter_members[] = {
    {"_transport", T_OBJECT_EX, offsetof(StreamWriterObj, transport), 0, NULL},
    {"_protocol", T_OBJECT_EX, offsetof(StreamWriterObj, protocol), 0, NULL},
    {"_reader", T_OBJECT_EX, offsetof(StreamWriterObj, reader), 0, NULL},
    {"_loop", T_OBJECT_EX, offsetof(StreamWriterObj, loop), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

static PyObject *
StreamWriter___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return core_new(type, streamwriter_dealloc, sizeof(StreamWriterObj));
}

static int
StreamWriter___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"transport", "protocol", "reader", "loop", NULL};
    StreamWriterObj *writer = (StreamWriterObj *)self;
    PyObject *transport, *protocol, *reader, *loop;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOO:StreamWriter", keywords, &transport, &protocol, &reader, &loop)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, writer->st->stock_StreamWriter);
    }
    Py_XSETREF(writer->transport, Py_NewRef(transport));
    Py_XSETREF(writer->protocol, Py_NewRef(protocol));
    if (reader != Py_None && !core_is(reader, streamreader_dealloc)) {
        int is_reader = PyObject_IsInstance(reader, writer->st->stock_StreamReader);
        if (is_reader <= 0) {
            if (is_reader == 0) {
                PyErr_SetNone(PyExc_AssertionError);
            }
            return -1;
        }
    }
    Py_XSETREF(writer->reader, Py_NewRef(reader));
    Py_XSETREF(writer->loop, Py_NewRef(loop));
    return 0;
}

/* Most are closed; the rest is asyncio's, which warns. */
static void
streamwriter_finalize(PyObject *self)
{
    ctask_state *st = core_state(Py_TYPE(self));
    if (UNLIKELY(st == NULL)) {
        PyErr_Clear();
        return;
    }
    if (LIKELY(core_is(self, streamwriter_dealloc))) {
        PyObject *transport = ((StreamWriterObj *)self)->transport;
        if (transport != NULL && stream_is_exact(transport) && ((TransportObj *)transport)->closing) {
            return;
        }
    }
    if (st->stock_writer_del == NULL) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *res = PyObject_CallOneArg(st->stock_writer_del, self);
    if (res == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(res);
    PyErr_SetRaisedException(raised);
}

static int
streamwriter_visit(PyObject *self, visitproc visit, void *arg)
{
    StreamWriterObj *writer = (StreamWriterObj *)self;
    Py_VISIT(writer->transport);
    Py_VISIT(writer->protocol);
    Py_VISIT(writer->reader);
    Py_VISIT(writer->loop);
    Py_VISIT(writer->complete_fut);
    return 0;
}

static int
streamwriter_drop(PyObject *self)
{
    StreamWriterObj *writer = (StreamWriterObj *)self;
    Py_CLEAR(writer->transport);
    Py_CLEAR(writer->protocol);
    Py_CLEAR(writer->reader);
    Py_CLEAR(writer->loop);
    Py_CLEAR(writer->complete_fut);
    return 0;
}

CORE_LIFE(static, streamwriter)

static PyType_Slot StreamWriter_slots[] = {
    {Py_tp_new, StreamWriter___new__},
    {Py_tp_init, StreamWriter___init__},
    {Py_tp_finalize, streamwriter_finalize},
    {Py_tp_dealloc, streamwriter_dealloc},
    {Py_tp_traverse, streamwriter_traverse},
    {Py_tp_clear, streamwriter_clear},
    {Py_tp_members, StreamWriter_members},
    {Py_tp_getset, StreamWriter_getset},
    {0, NULL},
};

static PyType_Spec StreamWriter_spec = {
    .name = "ctask._ctask.StreamWriter",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = StreamWriter_slots,
};

PART int
streamwriter_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"close", StreamWriter_close},
        {"drain", StreamWriter_drain},
        {"is_closing", StreamWriter_is_closing},
        {"wait_closed", StreamWriter_wait_closed},
        {"write", StreamWriter_write},
    };
    if (PyObject_HasAttrString(st->stock_StreamWriter, "__del__")) { /* not in the first releases of 3.11 */
        st->stock_writer_del = PyObject_GetAttrString(st->stock_StreamWriter, "__del__");
        if (st->stock_writer_del == NULL) {
            return -1;
        }
    }
    return core_add(module,
                    st,
                    "StreamWriter",
                    &st->StreamWriterType,
                    &StreamWriter_spec,
                    NULL,
                    st->stock_StreamWriter,
                    methods,
                    Py_ARRAY_LENGTH(methods));
}
