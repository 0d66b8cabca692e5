/* The transport of datagram endpoints: what its parts offer each other, the lowest first.  It is made through the loop's
   own method. */

#ifndef CTASK_DATAGRAM_PARTS_H
#define CTASK_DATAGRAM_PARTS_H

#include "io/transport.h"

/* The address that was last read or shown, and what Python has for it. */
typedef struct {
    PyObject *obj; // owned; an exact tuple or str, or NULL
    socket_address address;
} known_address;

typedef struct {
    TransportObj base;
    PyObject *address; // owned; where everything goes, or NULL
    PyObject *waiter; // owned; a future to complete once connection_made() was called, or NULL
    known_address from; // the last sender
    known_address to; // the last receiver
    int family;
    char connected; // the kernel knows the peer
    char paired; // it does, but the peer has no name (socketpair): only without an address it is meant
} DatagramObj;

static inline void
known_address_set(known_address *known, PyObject *obj, const socket_address *address)
{
    PyObject *old = known->obj;
    known->obj = Py_NewRef(obj);
    known->address.length = address->length;
    memcpy(&known->address.u, &address->u, address->length);
    Py_XDECREF(old);
}

/* ---- datagram_send.c ---- */

PART int datagram_error(DatagramObj *d, const char *fatal);
PART int datagram_send_waiting(TransportObj *t);
PART PyObject *Datagram_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* ---- datagram_receive.c ---- */

PART int datagram_read_ready(LoopObj *loop, PyObject *self);

/* ---- datagram.c ---- */

PART int datagram_setup(PyObject *module, ctask_state *st);

#endif
