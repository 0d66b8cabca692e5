/* StreamReader's methods: read(), readexactly(), readuntil() and readline() take bytes out, as steps of a coroutine.

   Arguments and separators out of the ordinary, and readers whose methods are overridden, are left to asyncio's own
   coroutines, which work on our attributes (streamreader_core.c). */

#include "coro/coro.h"
#include "streams/streams.h"

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
    if (UNLIKELY(reader->paused) && streamreader_unpause(reader) < 0) {
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
    int status = streams_raise(exc);
    Py_DECREF(exc);
    return status;
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
            (void)streams_raise(exc);
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

/* A program may have given the class a __new__() that makes something else. */
static PyObject *
reader_overrun(CoroObj *coro, const char *message, Py_ssize_t consumed)
{
    PyObject *exc = PyObject_CallFunction(coro->st->LimitOverrunError, "sn", message, consumed);
    if (exc != NULL && !PyExceptionInstance_Check(exc)) {
        (void)streams_raise(exc);
        Py_CLEAR(exc);
    }
    return exc;
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

static PyObject *
StreamReader_read(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject *stock)
{
    Py_ssize_t n = -1;
    if (UNLIKELY(streamreader_cast(self) == NULL || kwnames != NULL || nargs > 2 ||
                 (nargs == 2 && !streamreader_size(args[1], &n)))) {
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
                 !streamreader_size(args[1], &n))) {
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
    return streamreader_wake((StreamReaderObj *)self, NULL) < 0 ? NULL : Py_NewRef(Py_None);
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
    return st->newline == NULL ? -1 : streamreader_add_type(module, st, methods, Py_ARRAY_LENGTH(methods));
}
