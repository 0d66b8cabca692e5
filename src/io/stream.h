/* The transport of stream sockets, for those who make one or are its protocol. */

#ifndef CTASK_STREAM_H
#define CTASK_STREAM_H

#include "io/stream_parts.h"

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
PART int stream_setup(PyObject *module, ctask_state *st);

#endif
