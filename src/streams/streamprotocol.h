/* The protocol between a reader and a transport (streamprotocol.c). */

#ifndef CTASK_STREAMPROTOCOL_H
#define CTASK_STREAMPROTOCOL_H

#include "coro/core.h"

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

#endif
