/* Receiving datagrams, and the beginning of an endpoint, which is its first turn.

   As in asyncio each iteration gives the protocol one datagram, so that a flood on one endpoint keeps nobody waiting. */

#include "io/datagram_parts.h"

/* ---- beginning ---- */

static int
begin_datagrams(DatagramObj *d)
{
    TransportObj *t = &d->base;
    t->begun = 1;
    PyObject *waiter = d->waiter;
    d->waiter = NULL;
    transport_call_made(t);
    PyObject *raised = PyErr_GetRaisedException();
    if (t->loop != NULL && !t->conn_lost && t->open) {
        int err = transport_own(t);
        if (err < 0) {
            poll_raise(err);
            (void)transport_fatal_error(t, "Fatal error on transport");
        }
    }
    return transport_connected((PyObject *)d, waiter, raised);
}

/* ---- receiving ---- */

static int
is_receiving(const DatagramObj *d)
{
    return !d->base.closing && !d->base.paused && !d->base.conn_lost && d->base.protocol != NULL;
}

/* What Python has for the sender's address; peers that send several in a row get the same tuple. */
static PyObject *
sender_of(DatagramObj *d, const socket_address *from)
{
    known_address *known = &d->from;
    if (known->obj != NULL && known->address.length == from->length &&
        memcmp(&known->address.u, &from->u, from->length) == 0) {
        return Py_NewRef(known->obj);
    }
    PyObject *obj = address_build(from);
    if (obj != NULL && PyTuple_CheckExact(obj)) {
        known_address_set(known, obj, from);
    }
    return obj;
}

/* Returns 1 with references to a datagram and its sender, 0 if there is none now, -1 with an exception. */
static int
receive_datagram(DatagramObj *d, PyObject **data, PyObject **sender)
{
    LoopObj *loop = (LoopObj *)Py_NewRef((PyObject *)d->base.loop);
    socket_address from = {.length = sizeof(from.u)};
    char *buffer = loop_take_read_buffer(loop);
    ssize_t n;
    if (UNLIKELY(buffer == NULL)) {
        Py_DECREF(loop);
        return -1;
    }
    do {
        n = recvfrom(
            transport_descriptor(&d->base), buffer, READ_BUFFER_SIZE, MSG_DONTWAIT, &from.u.any, &from.length);
    } while (n < 0 && errno == EINTR);
    int err = errno;
    count_received(loop, n);
    *data = n < 0 ? NULL : PyBytes_FromStringAndSize(buffer, n);
    loop_give_read_buffer(loop, buffer);
    Py_DECREF(loop);
    if (UNLIKELY(n < 0)) {
        if (err == EAGAIN || err == EWOULDBLOCK) {
            return 0;
        }
        errno = err;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    *sender = *data == NULL ? NULL : sender_of(d, &from);
    if (UNLIKELY(*sender == NULL)) {
        Py_XDECREF(*data);
        return -1;
    }
    return 1;
}

static int
receive_ready(DatagramObj *d)
{
    PyObject *data, *sender;
    int n = receive_datagram(d, &data, &sender);
    if (UNLIKELY(n < 0)) {
        return datagram_error(d, "Fatal read error on datagram transport");
    }
    if (UNLIKELY(n == 0)) {
        return 0;
    }
    if (UNLIKELY(d->base.protocol == NULL)) { // lost: the allocations may have run anything
        Py_DECREF(data);
        Py_DECREF(sender);
        return 0;
    }
    PyObject *protocol = Py_NewRef(d->base.protocol);
    PyObject *stack[] = {protocol, data, sender};
    PyObject *res = PyObject_VectorcallMethod(d->base.st->str.datagram_received, stack, 3, NULL);
    Py_DECREF(protocol);
    Py_DECREF(data);
    Py_DECREF(sender);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
datagram_read_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    DatagramObj *d = (DatagramObj *)self;
    TransportObj *t = &d->base;
    int entered, status = 0;
    if (UNLIKELY(t->loop == NULL)) {
        return 0;
    }
    if (UNLIKELY(transport_enter(t, &entered) < 0)) {
        return -1;
    }
    if (UNLIKELY(!t->begun)) {
        status = begin_datagrams(d);
    }
    else if (LIKELY(is_receiving(d))) {
        status = receive_ready(d);
    }
    transport_exit(t, entered);
    return status;
}
