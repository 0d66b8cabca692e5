/* What a StreamReader is: its attributes, what a class overrides, and the bytes as they come in.

   The protocol (or the transport, through streamreader_feed()) adds bytes, which wakes who waits for them and pauses
   the transport when there are too many.  The methods are in streamreader.c. */

#include "tasks/tasks.h"
#include "streams/streamreader_core.h"

#define READER_DEFAULT_LIMIT 65536

/* ---- overrides ---- */

/* What asyncio's code calls on the reader itself, or we skip. */
#define READER_VIRTUAL(X)      \
    X(_maybe_resume_transport) \
    X(_wait_for_data)          \
    X(_wakeup_waiter)          \
    X(exception)               \
    X(feed_data)               \
    X(feed_eof)                \
    X(read)                    \
    X(readline)                \
    X(readuntil)

PART int
streamreader_look(StreamReaderObj *reader)
{
    ctask_state *st = reader->st;
    PyTypeObject *type = Py_TYPE(reader);
    if (reader->loop == NULL || reader->overridden > 1) {
        return 1; /* without __init__, or an attribute of the instance decides */
    }
    if (st->streams.plain_reader == 0 || st->streams.plain_reader != type->tp_version_tag) {
#define X(name) st->str.name,
        PyObject *names[] = {READER_VIRTUAL(X)};
#undef X
        reader->overridden = (char)standin_overrides(
            type, st->StreamReaderType, st->stock_StreamReader, names, Py_ARRAY_LENGTH(names));
        if (!reader->overridden) {
            st->streams.plain_reader = type->tp_version_tag;
        }
    }
    else {
        reader->overridden = 0;
    }
    reader->type_version = type->tp_version_tag;
    return reader->overridden;
}

PART int
streamreader_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, streamreader_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    StreamReaderObj *reader = (StreamReaderObj *)self;
    int status = PyObject_GenericSetAttr(self, name, value);
    ctask_state *st = reader->st;
#define X(virtual) st->str.virtual,
    PyObject *names[] = {READER_VIRTUAL(X)};
#undef X
    if (UNLIKELY(standin_is_one_of(name, names, Py_ARRAY_LENGTH(names)))) {
        reader->overridden = 2;
    }
    return status;
}

/* ---- what comes in ---- */

PART int
streamreader_wake(StreamReaderObj *reader, PyObject *exc)
{
    PyObject *waiter = reader->waiter;
    if (!is_set(waiter)) {
        return 0;
    }
    ctask_state *st = reader->st;
    reader->waiter = Py_NewRef(Py_None);
    reader->wanted = 0;
    int status = 0;
    if (LIKELY(future_is_exact(waiter))) {
        if (((FutureObj *)waiter)->state != FUTURE_CANCELLED) {
            status = exc == NULL ? future_set_result((FutureObj *)waiter, st, Py_None)
                                 : future_set_exception((FutureObj *)waiter, st, exc);
        }
    }
    else {
        PyObject *res = PyObject_CallMethodNoArgs(waiter, st->str.cancelled);
        int cancelled = res == NULL ? -1 : PyObject_IsTrue(res);
        Py_XDECREF(res);
        status = cancelled < 0 ? -1 : 0;
        if (cancelled == 0) {
            res = exc == NULL ? PyObject_CallMethodOneArg(waiter, st->str.set_result, Py_None)
                              : PyObject_CallMethodOneArg(waiter, st->str.set_exception, exc);
            status = res == NULL ? -1 : 0;
            Py_XDECREF(res);
        }
    }
    Py_DECREF(waiter);
    return status;
}

static __attribute__((noinline)) int
reader_pause(StreamReaderObj *reader)
{
    PyObject *transport = Py_NewRef(reader->transport);
    PyObject *res = PyObject_CallMethodNoArgs(transport, reader->st->str.pause_reading);
    Py_DECREF(transport);
    if (res != NULL) {
        Py_DECREF(res);
        reader->paused = 1;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    /* It cannot be paused, so all data has to be kept; do not ask again. */
    PyErr_Clear();
    Py_XSETREF(reader->transport, Py_NewRef(Py_None));
    return 0;
}

PART __attribute__((noinline)) int
streamreader_unpause(StreamReaderObj *reader)
{
    reader->paused = 0;
    if (reader->transport == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_transport");
        return -1;
    }
    PyObject *transport = Py_NewRef(reader->transport);
    PyObject *res = PyObject_CallMethodNoArgs(transport, reader->st->str.resume_reading);
    Py_DECREF(transport);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
streamreader_resume(StreamReaderObj *reader)
{
    if (LIKELY(!reader->paused) || streambuf_length(&reader->buffer) > reader->limit) {
        return 0;
    }
    return streamreader_unpause(reader);
}

PART int
streamreader_add(StreamReaderObj *reader, const char *data, Py_ssize_t n, PyObject *bytes)
{
    if (UNLIKELY(reader->eof)) {
        PyErr_SetString(PyExc_AssertionError, "feed_data after feed_eof");
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    int status = bytes == NULL ? streambuf_append(&reader->buffer, data, n, reader->wanted)
                               : streambuf_append_bytes(&reader->buffer, bytes, reader->wanted);
    if (status < 0 || streamreader_wake(reader, NULL) < 0) {
        return -1;
    }
    if (UNLIKELY(streambuf_length(&reader->buffer) / 2 >= reader->limit) && !reader->paused &&
        is_set(reader->transport) && streambuf_length(&reader->buffer) - reader->limit > reader->limit) {
        return reader_pause(reader);
    }
    return 0;
}

PART int
streamreader_add_eof(StreamReaderObj *reader)
{
    reader->eof = 1;
    return streamreader_wake(reader, NULL);
}

/* ---- attributes ---- */

static PyObject *
StreamReader_get_buffer(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_XNewRef(streambuf_share(&((StreamReaderObj *)self)->buffer));
}

static int
StreamReader_set_buffer(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || !PyByteArray_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_buffer has to be a bytearray");
        return -1;
    }
    streambuf *buffer = &((StreamReaderObj *)self)->buffer;
    PyObject *before = buffer->shared;
    buffer->shared = Py_NewRef(value);
    streambuf_drop_store(buffer);
    Py_XDECREF(before);
    return 0;
}

static PyObject *
StreamReader_get_limit(PyObject *self, void *Py_UNUSED(closure))
{
    StreamReaderObj *reader = (StreamReaderObj *)self;
    return reader->limit_value != NULL ? Py_NewRef(reader->limit_value) : PyLong_FromSsize_t(reader->limit);
}

/* What is no size is left to asyncio's methods. */
static int
StreamReader_set_limit(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    StreamReaderObj *reader = (StreamReaderObj *)self;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete _limit");
        return -1;
    }
    Py_ssize_t limit;
    if (streamreader_size(value, &limit) && limit >= 0) {
        reader->limit = limit;
        Py_CLEAR(reader->limit_value);
        return 0;
    }
    reader->overridden = 2;
    reader->type_version = 0;
    Py_XSETREF(reader->limit_value, Py_NewRef(value));
    return 0;
}

static PyGetSetDef StreamReader_getset[] = {
    {"_buffer", StreamReader_get_buffer, StreamReader_set_buffer, NULL, NULL},
    {"_limit", StreamReader_get_limit, StreamReader_set_limit, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef StreamReader_members[] = {
    {"_loop", T_OBJECT_EX, offsetof(StreamReaderObj, loop), 0, NULL},
    {"_waiter", T_OBJECT_EX, offsetof(StreamReaderObj, waiter), 0, NULL},
    {"_exception", T_OBJECT_EX, offsetof(StreamReaderObj, exception), 0, NULL},
    {"_transport", T_OBJECT_EX, offsetof(StreamReaderObj, transport), 0, NULL},
    {"_eof", T_BOOL, offsetof(StreamReaderObj, eof), 0, NULL},
    {"_paused", T_BOOL, offsetof(StreamReaderObj, paused), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

static PyObject *
StreamReader___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return core_new(type, streamreader_dealloc, sizeof(StreamReaderObj));
}

/* Was nothing set before __init__()? */
static inline int
reader_is_bare(const StreamReaderObj *reader)
{
    return reader->loop == NULL && reader->waiter == NULL && reader->exception == NULL &&
           reader->transport == NULL && reader->limit_value == NULL && reader->buffer.store == NULL &&
           reader->buffer.shared == NULL && !reader->eof && !reader->paused;
}

/* The ordinary case here; asyncio's own __init__ fills the same attributes in all others. */
static int
StreamReader___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"limit", "loop", NULL};
    StreamReaderObj *reader = (StreamReaderObj *)self;
    PyObject *limit = NULL, *loop = Py_None;
    Py_ssize_t size = READER_DEFAULT_LIMIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:StreamReader", keywords, &limit, &loop)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, reader->st->stock_StreamReader);
    }
    if (reader_is_bare(reader) && loop_plain(loop) != NULL &&
        (limit == NULL || streamreader_size(limit, &size)) && size > 0) {
        reader->loop = Py_NewRef(loop);
        reader->waiter = Py_NewRef(Py_None);
        reader->exception = Py_NewRef(Py_None);
        reader->transport = Py_NewRef(Py_None);
        reader->limit = size;
        return 0;
    }
    reader->limit = READER_DEFAULT_LIMIT;
    PyObject *stack[] = {self, limit, loop};
    PyObject *res;
    if (limit == NULL) {
        stack[1] = loop;
        res = PyObject_Vectorcall(reader->st->stock_reader_init, stack, 1, reader->st->loop_kwnames);
    }
    else {
        res = PyObject_Vectorcall(reader->st->stock_reader_init, stack, 3, NULL);
    }
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
streamreader_visit(PyObject *self, visitproc visit, void *arg)
{
    StreamReaderObj *reader = (StreamReaderObj *)self;
    Py_VISIT(reader->loop);
    Py_VISIT(reader->waiter);
    Py_VISIT(reader->exception);
    Py_VISIT(reader->transport);
    Py_VISIT(reader->limit_value);
    Py_VISIT(reader->buffer.shared);
    return 0;
}

static int
streamreader_drop(PyObject *self)
{
    StreamReaderObj *reader = (StreamReaderObj *)self;
    Py_CLEAR(reader->loop);
    Py_CLEAR(reader->waiter);
    Py_CLEAR(reader->exception);
    Py_CLEAR(reader->transport);
    Py_CLEAR(reader->limit_value);
    streambuf_clear(&reader->buffer);
    reader->type_version = 0; /* look anew: it has no loop */
    return 0;
}

CORE_LIFE(PART, streamreader)

static PyType_Slot StreamReader_slots[] = {
    {Py_tp_new, StreamReader___new__},
    {Py_tp_init, StreamReader___init__},
    {Py_tp_dealloc, streamreader_dealloc},
    {Py_tp_traverse, streamreader_traverse},
    {Py_tp_clear, streamreader_clear},
    {Py_tp_setattro, streamreader_setattro},
    {Py_tp_members, StreamReader_members},
    {Py_tp_getset, StreamReader_getset},
    {0, NULL},
};

static PyType_Spec StreamReader_spec = {
    .name = "ctask._ctask.StreamReader",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = StreamReader_slots,
};

PART int
streamreader_add_type(PyObject *module, ctask_state *st, const core_method *methods, size_t n_methods)
{
    st->stock_reader_init = PyObject_GetAttrString(st->stock_StreamReader, "__init__");
    st->loop_kwnames = PyTuple_Pack(1, st->str.loop);
    if (st->stock_reader_init == NULL || st->loop_kwnames == NULL) {
        return -1;
    }
    return core_add(module,
                    st,
                    "StreamReader",
                    &st->StreamReaderType,
                    &StreamReader_spec,
                    NULL,
                    st->stock_StreamReader,
                    methods,
                    n_methods);
}
