/* StreamReader: the bytes that came, and those who wait for them.

   The protocol (or the transport, through streamreader_feed()) adds bytes; read(), readexactly(), readuntil()
   and readline() reader_take them out, as steps of a coroutine.  Arguments and separators out of the ordinary, and
   readers whose methods are overridden, are left to asyncio's own coroutines, which work on our attributes. */

#include "streams/streams.h"

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

/* The reader's waiter is done; `exc` NULL stands for a result of None. */
static int
reader_wake(StreamReaderObj *reader, PyObject *exc)
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

static __attribute__((noinline)) int
reader_unpause(StreamReaderObj *reader)
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

/* Bytes were taken out: let the transport go on if there is room again. */
PART int
streamreader_resume(StreamReaderObj *reader)
{
    if (LIKELY(!reader->paused) || streambuf_length(&reader->buffer) > reader->limit) {
        return 0;
    }
    return reader_unpause(reader);
}

/* feed_data(); `bytes` is the object that has the data, or NULL. */
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
    if (status < 0 || reader_wake(reader, NULL) < 0) {
        return -1;
    }
    if (UNLIKELY(streambuf_length(&reader->buffer) / 2 >= reader->limit) && !reader->paused &&
        is_set(reader->transport) && streambuf_length(&reader->buffer) - reader->limit > reader->limit) {
        return reader_pause(reader);
    }
    return 0;
}

/* feed_eof() */
PART int
streamreader_add_eof(StreamReaderObj *reader)
{
    reader->eof = 1;
    return reader_wake(reader, NULL);
}

/* ---- waiting ---- */

static void
reader_unwait(CoroObj *coro)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    PyObject *waiter = reader->waiter;
    reader->waiter = Py_NewRef(Py_None);
    reader->wanted = 0;
    Py_XDECREF(waiter);
}

/* For a step: wait until there is more, and then call `next`. */
static int
reader_wait(CoroObj *coro, StreamReaderObj *reader, const char *name, coro_step next)
{
    if (UNLIKELY(is_set(reader->waiter))) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting for incoming data",
                     name);
        return -1;
    }
    /* Nothing would come while the transport is paused: readexactly() of more than the limit. */
    if (UNLIKELY(reader->paused) && reader_unpause(reader) < 0) {
        return -1;
    }
    if (UNLIKELY(reader->loop == NULL)) {
        PyErr_SetString(PyExc_AttributeError, "_loop");
        return -1;
    }
    PyObject *fut = loop_new_future(reader->st, reader->loop);
    if (fut == NULL) {
        return -1;
    }
    PyObject *before = reader->waiter;
    reader->waiter = Py_NewRef(fut);
    coro->unwait = reader_unwait;
    int status = coro_await(coro, fut, next);
    Py_XDECREF(before);
    return status;
}

/* Raise the exception that the connection ended with; 0 if there is none. */
static int
reader_raise(StreamReaderObj *reader)
{
    PyObject *exc = reader->exception;
    if (LIKELY(!is_set(exc))) {
        return 0;
    }
    Py_INCREF(exc);
    if (PyExceptionInstance_Check(exc)) {
        PyErr_SetObject(PyExceptionInstance_Class(exc), exc);
    }
    else if (PyExceptionClass_Check(exc)) {
        PyErr_SetNone(exc);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    Py_DECREF(exc);
    return -1;
}

/* ---- the steps of read() and its relatives ---- */

/* The result of a step: the first n bytes. */
static int
reader_take(StreamReaderObj *reader, Py_ssize_t n, PyObject **result)
{
    PyObject *bytes = streambuf_take(&reader->buffer, n);
    if (UNLIKELY(bytes == NULL)) {
        return -1;
    }
    if (UNLIKELY(streamreader_resume(reader) < 0)) {
        Py_DECREF(bytes);
        return -1;
    }
    *result = bytes;
    return 1;
}

static int
reader_read_rest(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    Py_ssize_t length = streambuf_length(&reader->buffer);
    return reader_take(reader, coro->n < length ? coro->n : length, result);
}

static int
reader_read_start(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    if (reader_raise(reader) < 0) {
        return -1;
    }
    if (UNLIKELY(coro->n == 0)) {
        *result = PyBytes_FromStringAndSize(NULL, 0);
        return *result == NULL ? -1 : 1;
    }
    if (streambuf_length(&reader->buffer) == 0 && !reader->eof) {
        return reader_wait(coro, reader, "read", reader_read_rest);
    }
    return reader_read_rest(coro, result);
}

static int reader_read_all_start(CoroObj *coro, PyObject **result);

/* One block of a read until EOF; blocks of the limit's size, so that the transport is never left paused.  0: there
   may be more of them. */
static int
reader_read_one_block(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    Py_ssize_t length = streambuf_length(&reader->buffer);
    PyObject *block = NULL;
    if (reader_take(reader, length < reader->limit ? length : reader->limit, &block) < 0) {
        return -1;
    }
    if (PyBytes_GET_SIZE(block) == 0) {
        Py_DECREF(block);
        PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
        if (empty != NULL) {
            *result = PyObject_CallMethodOneArg(empty, coro->st->str.join, coro->arg);
            Py_DECREF(empty);
        }
        return *result == NULL ? -1 : 1;
    }
    int status = PyList_Append(coro->arg, block);
    Py_DECREF(block);
    return status;
}

static int
reader_read_all_block(CoroObj *coro, PyObject **result)
{
    int status = reader_read_one_block(coro, result);
    return status == 0 ? reader_read_all_start(coro, result) : status;
}

static int
reader_read_all_start(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    int status = 0;
    if (coro->arg == NULL && (coro->arg = PyList_New(0)) == NULL) {
        return -1;
    }
    while (status == 0) {
        if (reader_raise(reader) < 0) {
            return -1;
        }
        if (streambuf_length(&reader->buffer) == 0 && !reader->eof) {
            return reader_wait(coro, reader, "read", reader_read_all_block);
        }
        status = reader_read_one_block(coro, result);
    }
    return status;
}

static int
reader_raise_incomplete(CoroObj *coro, StreamReaderObj *reader, PyObject *expected)
{
    PyObject *partial = streambuf_take(&reader->buffer, streambuf_length(&reader->buffer));
    if (partial != NULL && expected != NULL) {
        PyObject *stack[] = {partial, expected};
        PyObject *exc = PyObject_Vectorcall(coro->st->IncompleteReadError, stack, 2, NULL);
        if (exc != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
            Py_DECREF(exc);
        }
    }
    Py_XDECREF(partial);
    return -1;
}

static int
reader_exactly_rest(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    if (LIKELY(streambuf_length(&reader->buffer) >= coro->n)) {
        return reader_take(reader, coro->n, result);
    }
    if (reader->eof) {
        PyObject *expected = PyLong_FromSsize_t(coro->n);
        (void)reader_raise_incomplete(coro, reader, expected);
        Py_XDECREF(expected);
        return -1;
    }
    int status = reader_wait(coro, reader, "readexactly", reader_exactly_rest);
    if (status == 0) {
        reader->wanted = coro->n;
    }
    return status;
}

static int
reader_exactly_start(CoroObj *coro, PyObject **result)
{
    if (UNLIKELY(coro->n < 0)) {
        PyErr_SetString(PyExc_ValueError, "readexactly size can not be less than zero");
        return -1;
    }
    if (reader_raise((StreamReaderObj *)coro->owner) < 0) {
        return -1;
    }
    if (UNLIKELY(coro->n == 0)) {
        *result = PyBytes_FromStringAndSize(NULL, 0);
        return *result == NULL ? -1 : 1;
    }
    return reader_exactly_rest(coro, result);
}

static PyObject *
reader_overrun(CoroObj *coro, const char *message, Py_ssize_t consumed)
{
    return PyObject_CallFunction(coro->st->LimitOverrunError, "sn", message, consumed);
}

static const char reader_not_found_message[] = "Separator is not found, and chunk exceed the limit";
static const char reader_too_long_message[] = "Separator is found, but chunk is longer than limit";

enum { FOUND, NOT_FOUND, OVERRUN };

/* Look for the separator.  FOUND: `*end` is behind it; OVERRUN: `*end` bytes are to be skipped. */
static int
reader_find(CoroObj *coro, StreamReaderObj *reader, const char *sep, Py_ssize_t n, Py_ssize_t *end,
            const char **message)
{
    Py_ssize_t length = streambuf_length(&reader->buffer), offset = coro->offset;
    if (length - offset < n) {
        return NOT_FOUND;
    }
    const char *data = streambuf_data(&reader->buffer);
    const char *at = n == 1 ? memchr(data + offset, sep[0], (size_t)(length - offset))
                            : memmem(data + offset, (size_t)(length - offset), sep, (size_t)n);
    if (at == NULL) {
        *end = coro->offset = length + 1 - n;
        *message = reader_not_found_message;
        return *end > reader->limit ? OVERRUN : NOT_FOUND;
    }
    *end = at - data;
    if (*end > reader->limit) {
        *message = reader_too_long_message;
        return OVERRUN;
    }
    *end += n;
    return FOUND;
}

static int
reader_until_rest(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    Py_ssize_t end;
    const char *message;
    switch (
        reader_find(coro, reader, PyBytes_AS_STRING(coro->arg), PyBytes_GET_SIZE(coro->arg), &end, &message)) {
    case FOUND:
        return reader_take(reader, end, result);
    case NOT_FOUND:
        if (!reader->eof) {
            return reader_wait(coro, reader, "readuntil", reader_until_rest);
        }
        return reader_raise_incomplete(coro, reader, Py_None);
    default:
        break;
    }
    PyObject *exc = reader_overrun(coro, message, end);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return -1;
}

static int
reader_until_start(CoroObj *coro, PyObject **result)
{
    return reader_raise((StreamReaderObj *)coro->owner) < 0 ? -1 : reader_until_rest(coro, result);
}

/* A line longer than the limit is dropped, or what there is of it. */
static int
reader_drop_line(CoroObj *coro, StreamReaderObj *reader, const char *message, Py_ssize_t consumed)
{
    PyObject *overrun = reader_overrun(coro, message, consumed);
    if (overrun == NULL) {
        return -1;
    }
    Py_ssize_t length = streambuf_length(&reader->buffer);
    int is_line = length > consumed && streambuf_data(&reader->buffer)[consumed] == '\n';
    if (streambuf_skip(&reader->buffer, is_line ? consumed + 1 : length) < 0 ||
        streamreader_resume(reader) < 0) {
        Py_DECREF(overrun);
        return -1;
    }
    PyObject *exc = PyObject_CallFunction(PyExc_ValueError, "s", message);
    if (exc == NULL) {
        Py_DECREF(overrun);
        return -1;
    }
    PyException_SetContext(exc, overrun);
    PyErr_SetRaisedException(exc);
    return -1;
}

static int
reader_line_rest(CoroObj *coro, PyObject **result)
{
    StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
    Py_ssize_t end;
    const char *message;
    int status;
    switch (reader_find(coro, reader, "\n", 1, &end, &message)) {
    case FOUND:
        status = reader_take(reader, end, result);
        break;
    case NOT_FOUND:
        if (!reader->eof) {
            return reader_wait(coro, reader, "readuntil", reader_line_rest);
        }
        *result = streambuf_take(&reader->buffer, streambuf_length(&reader->buffer));
        status = *result == NULL ? -1 : 1;
        break;
    default:
        return reader_drop_line(coro, reader, message, end);
    }
    /* n: this is __anext__() */
    if (coro->n && status > 0 && PyBytes_GET_SIZE(*result) == 0) {
        Py_CLEAR(*result);
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return -1;
    }
    return status;
}

static int
reader_line_start(CoroObj *coro, PyObject **result)
{
    return reader_raise((StreamReaderObj *)coro->owner) < 0 ? -1 : reader_line_rest(coro, result);
}

/* ---- the methods that return coroutines ---- */

/* asyncio's own coroutine, for all that is out of the ordinary. */
static __attribute__((noinline)) PyObject *
reader_call_stock(PyObject *stock, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

/* A plain int that fits; 0 and no exception if it is not. */
static inline int
reader_size(PyObject *obj, Py_ssize_t *n)
{
    if (!PyLong_CheckExact(obj)) {
        return 0;
    }
    *n = PyLong_AsSsize_t(obj);
    if (UNLIKELY(*n == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static PyObject *
StreamReader_read(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject *stock)
{
    Py_ssize_t n = -1;
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs > 2 ||
                 (nargs == 2 && !reader_size(args[1], &n)))) {
        return reader_call_stock(stock, args, nargs, kwnames);
    }
    return coro_new(st, self, n < 0 ? reader_read_all_start : reader_read_start, "StreamReader.read", n, NULL);
}

static PyObject *
StreamReader_readexactly(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames, PyObject *stock)
{
    Py_ssize_t n;
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs != 2 ||
                 !reader_size(args[1], &n))) {
        return reader_call_stock(stock, args, nargs, kwnames);
    }
    return coro_new(st, self, reader_exactly_start, "StreamReader.readexactly", n, NULL);
}

static PyObject *
StreamReader_readuntil(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames, PyObject *stock)
{
    PyObject *sep = st->newline;
    if (nargs == 2) {
        sep = args[1];
    }
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs > 2 || !PyBytes_CheckExact(sep) ||
                 PyBytes_GET_SIZE(sep) == 0)) {
        return reader_call_stock(stock, args, nargs, kwnames);
    }
    return coro_new(st, self, reader_until_start, "StreamReader.readuntil", 0, sep);
}

static PyObject *
StreamReader_readline(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs != 1)) {
        return reader_call_stock(stock, args, nargs, kwnames);
    }
    return coro_new(st, self, reader_line_start, "StreamReader.readline", 0, NULL);
}

static PyObject *
StreamReader_anext(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs != 1)) {
        return reader_call_stock(stock, args, nargs, kwnames);
    }
    return coro_new(st, self, reader_line_start, "StreamReader.__anext__", 1, NULL);
}

/* ---- the other methods ---- */

static PyObject *
StreamReader_feed_data(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames, PyObject *stock)
{
    StreamReaderObj *reader = (StreamReaderObj *)self;
    if (LIKELY(nargs == 2 && kwnames == NULL && streamreader_cast(self) != NULL)) {
        PyObject *data = args[1];
        if (PyBytes_CheckExact(data)) {
            return streamreader_add(reader, NULL, PyBytes_GET_SIZE(data), data) < 0 ? NULL : Py_NewRef(Py_None);
        }
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
            int status = streamreader_add(reader, view.buf, view.len, NULL);
            PyBuffer_Release(&view);
            return status < 0 ? NULL : Py_NewRef(Py_None);
        }
        PyErr_Clear();
    }
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

static PyObject *
StreamReader_feed_eof(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL || streamreader_cast(self) == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return streamreader_add_eof((StreamReaderObj *)self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
StreamReader_at_eof(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    StreamReaderObj *reader = (StreamReaderObj *)self;
    return PyBool_FromLong(reader->eof && streambuf_length(&reader->buffer) == 0);
}

static PyObject *
StreamReader_exception(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *exc = ((StreamReaderObj *)self)->exception;
    return Py_NewRef(exc == NULL ? Py_None : exc);
}

static PyObject *
StreamReader_wakeup_waiter(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return reader_wake((StreamReaderObj *)self, NULL) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
StreamReader_maybe_resume_transport(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return streamreader_resume((StreamReaderObj *)self) < 0 ? NULL : Py_NewRef(Py_None);
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
    if (reader_size(value, &limit) && limit >= 0) {
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
    if (reader_is_bare(reader) && loop_plain(loop) != NULL && (limit == NULL || reader_size(limit, &size)) &&
        size > 0) {
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
streamreader_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"__anext__", StreamReader_anext},
        {"_maybe_resume_transport", StreamReader_maybe_resume_transport},
        {"_wakeup_waiter", StreamReader_wakeup_waiter},
        {"at_eof", StreamReader_at_eof},
        {"exception", StreamReader_exception},
        {"feed_data", StreamReader_feed_data},
        {"feed_eof", StreamReader_feed_eof},
        {"read", StreamReader_read},
        {"readexactly", StreamReader_readexactly},
        {"readline", StreamReader_readline},
        {"readuntil", StreamReader_readuntil},
    };
    st->newline = PyBytes_FromString("\n");
    st->stock_reader_init = PyObject_GetAttrString(st->stock_StreamReader, "__init__");
    st->loop_kwnames = PyTuple_Pack(1, st->str.loop);
    if (st->newline == NULL || st->stock_reader_init == NULL || st->loop_kwnames == NULL) {
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
                    Py_ARRAY_LENGTH(methods));
}
