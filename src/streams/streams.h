/* streams/: StreamReader, StreamWriter and the protocol between them and a transport, each a core (coro/).  The reader
   needs no transport; the writer takes a shorter way to those of io/.

   What the parts share: streamreader.c over streamreader_core.c, streamprotocol.c and streamwriter.c are the three
   classes.

   Each class is a C core over asyncio's own class, as EventLoop is (ctask/_streams.py): what is not C is
   inherited.  A core fills asyncio's attributes from its fields, so inherited methods work on them.  The
   fast path is taken only while no method that asyncio's code would call on the object is overridden. */

#ifndef CTASK_STREAMS_H
#define CTASK_STREAMS_H

#include "coro/core.h"
#include "coro/coro.h"

#include "streams/streambuf.h"

/* `raise exc`, which may be anything: -1 with an exception. */
static inline int
streams_raise(PyObject *exc)
{
    if (PyExceptionInstance_Check(exc)) {
        PyErr_SetObject(PyExceptionInstance_Class(exc), exc);
    }
    else if (PyExceptionClass_Check(exc)) {
        PyErr_SetNone(exc);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    return -1;
}

/* ---- streamreader_core.c ---- */

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

/* ---- streamreader.c ---- */

PART int streamreader_setup(PyObject *module, ctask_state *st);

/* ---- streamprotocol.c ---- */

typedef struct {
    CORE_HEAD
    PyObject *loop; // owned; NULL before __init__
    PyObject *reader_ref; // owned; weakref to the reader, or None
    PyObject *strong_reader; // owned; or None; NULL where asyncio has no such attribute
    PyObject *stream_writer; // owned; the same
    PyObject *client_connected; // owned; or None
    PyObject *task; // owned; or None
    PyObject *transport; // owned; or None
    PyObject *closed; // owned; future, NULL until somebody asks for it or it gets an exception
    PyObject *drain_waiters; // owned; deque, NULL until somebody asks for it
    unsigned int type_version; // tp_version_tag for which `overridden` holds
    char overridden; // asyncio's own methods are to be called
    char paused;
    char connection_lost;
    char reject_connection;
    char over_ssl;
    char closed_done; // `closed` is done with None, whether it was made or not
} StreamProtocolObj;

PART int streamprotocol_setup(PyObject *module, ctask_state *st);
PART void streamprotocol_dealloc(PyObject *self);
PART int streamprotocol_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int streamprotocol_look(StreamProtocolObj *protocol);

static inline StreamProtocolObj *
streamprotocol_cast(PyObject *obj)
{
    if (Py_TYPE(obj)->tp_setattro != streamprotocol_setattro || !core_is(obj, streamprotocol_dealloc)) {
        return NULL;
    }
    StreamProtocolObj *protocol = (StreamProtocolObj *)obj;
    if (UNLIKELY(protocol->type_version == 0 || protocol->type_version != Py_TYPE(obj)->tp_version_tag)) {
        return streamprotocol_look(protocol) ? NULL : protocol;
    }
    return protocol->overridden ? NULL : protocol;
}

/* For transports: may bytes for this protocol go through streamreader_feed()? */
PART int streamreader_protocol_check(PyObject *protocol);
/* In place of protocol.data_received(bytes); `data` is valid during the call. */
PART int streamreader_feed(PyObject *protocol, const char *data, Py_ssize_t n);

/* ---- streamwriter.c ---- */

PART int streamwriter_setup(PyObject *module, ctask_state *st);

#endif
