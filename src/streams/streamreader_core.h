/* A reader's attributes and what comes in (streamreader_core.c). */

#ifndef CTASK_STREAMREADER_CORE_H
#define CTASK_STREAMREADER_CORE_H

#include "coro/core.h"
#include "streams/streambuf.h"

typedef struct {
    CORE_HEAD
    PyObject *loop; // owned; NULL before __init__
    PyObject *waiter; // owned; a future, or None
    PyObject *exception; // owned; or None
    PyObject *transport; // owned; or None
    PyObject *limit_value; // owned; what __init__ was given, NULL while `limit` says it all
    streambuf buffer;
    Py_ssize_t limit;
    Py_ssize_t wanted; // bytes that a readexactly() waits for
    unsigned int type_version; // tp_version_tag for which `overridden` holds
    char overridden; // asyncio's own methods are to be called
    char eof;
    char paused;
} StreamReaderObj;

PART void streamreader_dealloc(PyObject *self);
PART int streamreader_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int streamreader_look(StreamReaderObj *reader);
/* feed_data(); `bytes` is the object that has the data, or NULL. */
PART int streamreader_add(StreamReaderObj *reader, const char *data, Py_ssize_t n, PyObject *bytes);
/* feed_eof() */
PART int streamreader_add_eof(StreamReaderObj *reader);
/* The reader's waiter is done; `exc` NULL stands for a result of None. */
PART int streamreader_wake(StreamReaderObj *reader, PyObject *exc);
PART int streamreader_unpause(StreamReaderObj *reader);
/* Bytes were taken out: let the transport go on if there is room again. */
PART int streamreader_resume(StreamReaderObj *reader);
/* The type, with these methods. */
PART int streamreader_add_type(PyObject *module, ctask_state *st, const core_method *methods, size_t n_methods);

/* A reader of ours whose methods are not overridden, or NULL. */
static inline StreamReaderObj *
streamreader_cast(PyObject *obj)
{
    if (Py_TYPE(obj)->tp_setattro != streamreader_setattro || !core_is(obj, streamreader_dealloc)) {
        return NULL;
    }
    StreamReaderObj *reader = (StreamReaderObj *)obj;
    if (UNLIKELY(reader->type_version == 0 || reader->type_version != Py_TYPE(obj)->tp_version_tag)) {
        return streamreader_look(reader) ? NULL : reader;
    }
    return reader->overridden ? NULL : reader;
}

/* A plain int that fits; 0 and no exception if it is not. */
static inline int
streamreader_size(PyObject *obj, Py_ssize_t *n)
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

#endif
