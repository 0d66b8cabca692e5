/* What is known of Python's socket objects (socketobj.c). */

#ifndef CTASK_SOCKETOBJ_H
#define CTASK_SOCKETOBJ_H

#include "io/address.h"

PART int socketobj_setup(PyObject *module, ctask_state *st);
PART int socketobj_check(ctask_state *st, PyObject *sock);

/* Is it exactly a socket.socket, whose methods nobody has replaced? */
static inline int
socketobj_is_plain(ctask_state *st, PyObject *sock)
{
    if (Py_TYPE(sock) != (PyTypeObject *)st->socket_type) {
        return 0;
    }
    return (LIKELY(st->io.sockets.version == Py_TYPE(sock)->tp_version_tag && st->io.sockets.version != 0)) ||
           socketobj_check(st, sock);
}

/* A field of one that is; the descriptor is -1 once it is closed. */
static inline int
socket_int(PyObject *sock, Py_ssize_t offset)
{
    return *(int *)((char *)sock + offset);
}

PART int socketobj_take(ctask_state *st, PyObject *sock);
PART PyObject *socketobj_address(PyObject *sock, const char *method);
/* Is `socket.socket` another one now?  (What is accepted is made of that.) */
PART int socketobj_is_replaced(ctask_state *st);
/* accept4(), of which the new descriptor does not block; nor does this with the interpreter lock, whatever the
   listening one does: it shares O_NONBLOCK with every duplicate, in whichever process. */
PART int socketobj_accept(int fd, socket_address *from);
/* close(), without the interpreter lock if it waits: with SO_LINGER, which accepted sockets have from the
   listening one, it does whatever O_NONBLOCK says. */
PART void socketobj_close(int fd);

#endif
