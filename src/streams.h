/* What the parts of the streams share: streamcoro.c is what read() and drain() return, streamreader.c,
   streamprotocol.c and streamwriter.c are the three classes.

   Each class is a C core over asyncio's own class, as EventLoop is (ctask/_streams.py): what is not C is
   inherited.  A core fills asyncio's attributes from its fields, so inherited methods work on them.  The
   fast path is taken only while no method that asyncio's code would call on the object is overridden. */

#ifndef CTASK_STREAMS_H
#define CTASK_STREAMS_H

#include "ctask.h"

#include <structmember.h>

#include "streambuf.h"

/* ---- streamcoro.c ---- */

typedef struct StreamCoroObj StreamCoroObj;

/* One step: 1 and the coroutine's result in `*result`, 0 to wait for coro->awaiting and be called again
   when it has come, -1 with an exception set. */
typedef int (*streamcoro_step)(StreamCoroObj *coro, PyObject **result);

struct StreamCoroObj {
    PyObject_HEAD
    PyObject *owner;      // owned; the reader or writer, NULL once the coroutine has ended
    PyObject *awaiting;   // owned; the iterator of what it waits for, or NULL
    PyObject *arg;        // owned; the separator, or the blocks read so far, or NULL
    ctask_state *st;      // borrowed from the type's module
    streamcoro_step step; // what to do next; NULL: the result of `awaiting` is ours
    const char *name;
    Py_ssize_t n;
    Py_ssize_t offset;    // bytes without a separator in them
    char started;
    char running;
    char is_waiter;       // `awaiting` is for the reader's _waiter
};

/* A method that returns a coroutine.  `st` is given, so that it need not be found. */
typedef PyObject *(*streammethod)(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames, PyObject *stock);

PART int streamcoro_setup(PyObject *module, ctask_state *st);
/* A coroutine that has not started; `arg` may be NULL. */
PART PyObject *streamcoro_new(ctask_state *st, PyObject *owner, streamcoro_step step, const char *name,
                              Py_ssize_t n, PyObject *arg);
/* For a step: wait for `awaitable` (stolen; NULL is passed on), then call `next`. */
PART int streamcoro_await(StreamCoroObj *coro, PyObject *awaitable, streamcoro_step next);
/* Give `type` the method, which answers as asyncio's own (of `stock`) where it is asked about itself. */
PART int streammethod_add(ctask_state *st, PyTypeObject *type, PyObject *stock, const char *name,
                          streammethod function);

/* ---- streamreader.c ---- */

typedef struct {
    PyObject_HEAD
    ctask_state *st;           // borrowed from the type's module
    PyObject *loop;            // owned; NULL before __init__
    PyObject *waiter;          // owned; a future, or None
    PyObject *exception;       // owned; or None
    PyObject *transport;       // owned; or None
    PyObject *limit_value;     // owned; what __init__ was given, NULL while `limit` says it all
    streambuf buffer;
    Py_ssize_t limit;
    Py_ssize_t wanted;         // bytes that a readexactly() waits for
    unsigned int type_version; // tp_version_tag for which `overridden` holds
    char overridden;           // asyncio's own methods are to be called
    char eof;
    char paused;
} StreamReaderObj;

PART int streamreader_setup(PyObject *module, ctask_state *st);
PART int streamreader_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int streamreader_look(StreamReaderObj *reader);
PART int streamreader_add(StreamReaderObj *reader, const char *data, Py_ssize_t n, PyObject *bytes);
PART int streamreader_add_eof(StreamReaderObj *reader);
PART int streamreader_resume(StreamReaderObj *reader);

/* A reader of ours whose methods are not overridden, or NULL. */
static inline StreamReaderObj *
streamreader_cast(PyObject *obj)
{
    if (Py_TYPE(obj)->tp_setattro != streamreader_setattro) {
        return NULL;
    }
    StreamReaderObj *reader = (StreamReaderObj *)obj;
    if (UNLIKELY(reader->type_version == 0 || reader->type_version != Py_TYPE(obj)->tp_version_tag)) {
        return streamreader_look(reader) ? NULL : reader;
    }
    return reader->overridden ? NULL : reader;
}

/* ---- streamprotocol.c ---- */

typedef struct {
    PyObject_HEAD
    ctask_state *st;            // borrowed from the type's module
    PyObject *loop;             // owned; NULL before __init__
    PyObject *reader_ref;       // owned; weakref to the reader, or None
    PyObject *strong_reader;    // owned; or None; NULL where asyncio has no such attribute
    PyObject *stream_writer;    // owned; the same
    PyObject *client_connected; // owned; or None
    PyObject *task;             // owned; or None
    PyObject *transport;        // owned; or None
    PyObject *closed;           // owned; future, NULL until somebody asks for it or it gets an exception
    PyObject *drain_waiters;    // owned; deque, NULL until somebody asks for it
    unsigned int type_version;  // tp_version_tag for which `overridden` holds
    char overridden;            // asyncio's own methods are to be called
    char paused;
    char connection_lost;
    char reject_connection;
    char over_ssl;
    char closed_done;           // `closed` is done with None, whether it was made or not
} StreamProtocolObj;

PART int streamprotocol_setup(PyObject *module, ctask_state *st);
PART int streamprotocol_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int streamprotocol_look(StreamProtocolObj *protocol);

static inline StreamProtocolObj *
streamprotocol_cast(PyObject *obj)
{
    if (Py_TYPE(obj)->tp_setattro != streamprotocol_setattro) {
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
PART int streamreader_feed(LoopObj *loop, PyObject *protocol, const char *data, Py_ssize_t n);

/* ---- streamwriter.c ---- */

PART int streamwriter_setup(PyObject *module, ctask_state *st);

/* ---- common ---- */

/* An attribute that is neither missing nor None. */
static inline int
is_set(PyObject *obj)
{
    return obj != NULL && obj != Py_None;
}

/* Is any of `names` overridden in `type`, against `core` or (what is not C) `stock`?  1 if so, or if that
   cannot be found out. */
PART int stream_overrides(PyTypeObject *type, PyTypeObject *core, PyObject *stock, PyObject *const *names,
                          size_t n_names);

/* Is the attribute `name` one of `names`, which are interned? */
static inline int
stream_is_one_of(PyObject *name, PyObject *const *names, size_t n_names)
{
    int interned = PyUnicode_CheckExact(name) && PyUnicode_CHECK_INTERNED(name);
    for (size_t i = 0; i < n_names; i++) {
        if (name == names[i] ||
            (UNLIKELY(!interned) && PyUnicode_Check(name) && PyUnicode_Compare(name, names[i]) == 0)) {
            return 1;
        }
    }
    return 0;
}

/* The argument of a method(data), given by position or by name; NULL with TypeError.  Borrowed. */
PART PyObject *stream_data_argument(ctask_state *st, const char *method, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames);

#endif
