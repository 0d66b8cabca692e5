/* The transport of stream sockets, for those who make one or are its protocol. */

#ifndef CTASK_STREAM_H
#define CTASK_STREAM_H

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

/* A new transport that takes over `fd`; connection_made() follows in the next iteration.  `sock` is NULL for
   an accepted connection, whose Python socket is made when somebody asks for it.  `context` is the one that the
   protocol is called in, NULL for a copy of the current one.  If it fails the descriptor
   is the caller's still. */
PART StreamObj *stream_create(LoopObj *loop, int fd, int family, int type, int proto, PyObject *sock,
                              PyObject *protocol, PyObject *waiter, PyObject *extra, PyObject *server,
                              PyObject *context, const struct sockaddr *peer, socklen_t peer_length);
PART int stream_is_exact(PyObject *obj);
/* The same, and its write() and is_closing() are ours: nobody has put others in their place. */
PART int stream_is_unpatched(PyObject *obj);
/* transport.write(data); -1 with an exception. */
PART int stream_write(StreamObj *s, PyObject *data);
/* The same for bytes in memory: what cannot be sent at once is copied. */
PART int stream_write_raw(PyObject *transport, const char *data, Py_ssize_t n);
PART int stream_setup(PyObject *module, ctask_state *st);

#endif
