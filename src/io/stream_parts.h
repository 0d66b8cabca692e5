/* The transport of stream sockets, and what its parts offer each other, the lowest first. */

#ifndef CTASK_STREAM_PARTS_H
#define CTASK_STREAM_PARTS_H

#include "io/sink.h"
#include "io/transport.h"

typedef struct {
    TransportObj base;
    PyObject *waiter;       // owned; a future to complete once connection_made() was called, or NULL
    PyObject *empty_waiter; // owned; a future that waits until everything is sent (sendfile), or NULL
    const sink_kind *sink;  // of the protocol: takes what was read instead of data_received(), or NULL
    short_address peer;
    short_address own;
    size_t write_turn;  // in which callback of the loop the last write() was
    size_t last_read;   // bytes of the last read that was not empty
    int family;
    int type;           // of the socket, as those that Python shows
    int proto;
    char buffered;      // the protocol is a BufferedProtocol
    char eof_sent;      // write_eof() was called
    char eof_seen;      // and the protocol keeps the connection open
    char is_tcp;
    unsigned char writes;       // in that callback
    unsigned char last_writes;  // in the one before that wrote
    unsigned char usual_writes; // in each of the two before: as many are expected again
} StreamObj;

/* ---- stream_info.c ---- */

PART int stream_remember(StreamObj *s, short_address *to, PyObject *key, const struct sockaddr *address,
                         socklen_t length);
PART void stream_remember_own_address(StreamObj *s);
PART PyObject *stream_socket(StreamObj *s);
PART PyObject *Stream_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs);
PART PyObject *Stream_get_extra(PyObject *self, void *closure);
PART PyObject *Stream_get_sock(PyObject *self, void *closure);

/* ---- stream_write.c ---- */

/* transport.write(data); -1 with an exception. */
PART int stream_write(StreamObj *s, PyObject *data);
/* The same for bytes in memory: what cannot be sent at once is copied. */
PART int stream_write_raw(PyObject *transport, const char *data, Py_ssize_t n);
PART int stream_send_waiting(TransportObj *t);
PART int stream_call_lost(TransportObj *t);
PART PyObject *Stream_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *Stream_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *Stream_write_eof(PyObject *self, PyObject *ignored);
PART PyObject *Stream_can_write_eof(PyObject *self, PyObject *ignored);

/* ---- stream_read.c ---- */

PART int stream_is_reading(StreamObj *s);
PART int stream_read_ready(LoopObj *loop, PyObject *self);

#endif
