/* streams/: StreamReader, StreamWriter and the protocol between them and a transport, each a core (coro/).  The reader
   needs no transport; the writer takes a shorter way to those of io/.

   What the parts share: streamreader.c over streamreader_core.c, streamprotocol.c and streamwriter.c are the three
   classes.

   Each class is a C core over asyncio's own class, as EventLoop is (ctask/_streams.py): what is not C is
   inherited.  A core fills asyncio's attributes from its fields, so inherited methods work on them.  The
   fast path is taken only while no method that asyncio's code would call on the object is overridden. */

#ifndef CTASK_STREAMS_H
#define CTASK_STREAMS_H

#include "streams/streamprotocol.h"
#include "streams/streamreader_core.h"

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

/* ---- streamreader.c, streamwriter.c ---- */

PART int streamreader_setup(PyObject *module, ctask_state *st);
PART int streamwriter_setup(PyObject *module, ctask_state *st);

#endif
