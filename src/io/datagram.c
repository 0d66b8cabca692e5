/* The transport of datagram endpoints: UDP and Unix.

   As in asyncio each iteration gives the protocol one datagram, so that a flood on one endpoint keeps nobody waiting.
   sendto() sends at once; what the kernel does not take waits in the queue, whose chunks' owners are pairs
   (data, address) here and whose size counts a header for each, as asyncio's.

   The loop calls datagram_read_ready() and datagram_write_ready(); what there is to do they see from the state. */

#include "io/transport.h"

/* At most this many are sent in one system call. */
#define BATCH 16
/* From so many datagrams to a lost connection on, each is logged; as asyncio's. */
#define LOG_LOST_WRITES 5
/* Counted for each datagram that waits, as asyncio does. */
#if PY_VERSION_HEX >= 0x030D0000
#define HEADER_SIZE 8
#else
#define HEADER_SIZE 0
#endif

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

static int datagram_read_ready(LoopObj *loop, PyObject *self);
static int datagram_write_ready(LoopObj *loop, PyObject *self);
static int datagram_lost_ready(LoopObj *loop, PyObject *self);

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
        int err = transport_own(t, datagram_read_ready);
        if (err == 0 && (t->closing || t->paused)) {
            watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
        }
        if (err == 0 && t->queue.length > 0) {
            err = transport_watch(t, POLL_WRITE, datagram_write_ready);
        }
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
        PyObject *old = known->obj;
        known->obj = Py_NewRef(obj);
        known->address.length = from->length;
        memcpy(&known->address.u, &from->u, from->length);
        Py_XDECREF(old);
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

/* An exception is set: the protocol is told of an OSError, any other is fatal. */
static int
handle_error(DatagramObj *d, const char *fatal)
{
    TransportObj *t = &d->base;
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return transport_fatal_error(t, fatal);
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *protocol = Py_XNewRef(t->protocol);
    PyObject *res = protocol == NULL ? Py_NewRef(Py_None)
                                     : PyObject_CallMethodOneArg(protocol, t->st->str.error_received, exc);
    Py_XDECREF(protocol);
    Py_DECREF(exc);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
receive_ready(DatagramObj *d)
{
    PyObject *data, *sender;
    int n = receive_datagram(d, &data, &sender);
    if (UNLIKELY(n < 0)) {
        return handle_error(d, "Fatal read error on datagram transport");
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

static int
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

/* ---- sending ---- */

/* 1 if the kernel knows how to reach `obj`, 0 if the socket module has to find out, -1. */
static int
receiver_of(DatagramObj *d, PyObject *obj, const socket_address **to)
{
    if (LIKELY(obj == d->from.obj)) {
        *to = &d->from.address; // an answer
        return 1;
    }
    known_address *known = &d->to;
    *to = &known->address;
    if (obj == known->obj) {
        return 1;
    }
    socket_address read;
    int result = address_read(&read, d->family, obj);
    if (result == 1) {
        PyObject *old = known->obj;
        known->obj = Py_NewRef(obj);
        known->address.length = read.length;
        memcpy(&known->address.u, &read.u, read.length);
        Py_XDECREF(old);
    }
    return result;
}

/* sock.sendto() for an address that is not plain: 1 sent, 0 if it has to wait, -1. */
static int
send_by_socket(DatagramObj *d, PyObject *data, PyObject *to)
{
    if (d->base.sock == NULL) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyObject *sock = Py_NewRef(d->base.sock);
    PyObject *res = PyObject_CallMethod(sock, "sendto", "OO", data, to);
    Py_DECREF(sock);
    if (res != NULL) {
        Py_DECREF(res);
        return 1;
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return 0;
    }
    return -1;
}

/* Does it go to the peer that the kernel knows? */
static int
goes_to_peer(const DatagramObj *d, PyObject *to)
{
    return d->connected || (UNLIKELY(d->paired) && to == Py_None);
}

/* 1 sent, 0 if it has to wait, -1 with an exception. */
static int
send_one(DatagramObj *d, PyObject *data, const char *bytes, size_t size, PyObject *to)
{
    ssize_t n;
    const socket_address *address = NULL;
    if (!goes_to_peer(d, to)) {
        int known = receiver_of(d, to, &address);
        if (UNLIKELY(known <= 0)) {
            return known < 0 ? -1 : send_by_socket(d, data, to);
        }
        if (d->base.sock != NULL && PySys_Audit("socket.sendto", "OO", d->base.sock, to) < 0) {
            return -1;
        }
    }
    int fd = transport_descriptor(&d->base); // a hook for audits may have closed it
    do {
        n = address == NULL
                ? send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                : sendto(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL, &address->u.any, address->length);
    } while (n < 0 && errno == EINTR);
    if (LIKELY(n >= 0)) {
        return 1;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Put a datagram on the queue; `data` becomes bytes, as it may change. */
static int
enqueue_datagram(DatagramObj *d, PyObject *data, PyObject *to)
{
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    PyObject *pair = bytes == NULL ? NULL : PyTuple_Pack(2, bytes, to);
    Py_XDECREF(bytes);
    if (pair == NULL) {
        return -1;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(bytes) + HEADER_SIZE;
    if (queue_push(&d->base.queue, pair, PyBytes_AS_STRING(bytes), size) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int
wait_for_room(DatagramObj *d)
{
    TransportObj *t = &d->base;
    if (!t->begun) {
        return 0; // begin_datagrams() will
    }
    int err = transport_watch(t, POLL_WRITE, datagram_write_ready);
    if (UNLIKELY(err < 0)) {
        poll_raise(err);
        return transport_fatal_error(t, "Fatal write error on datagram transport");
    }
    return 0;
}

static int
send_bytes(DatagramObj *d, PyObject *data, const char *bytes, Py_ssize_t size, PyObject *to)
{
    TransportObj *t = &d->base;
    if (LIKELY(t->queue.length == 0)) {
        int sent = send_one(d, data, bytes, (size_t)size, to);
        if (LIKELY(sent > 0)) {
            return 0;
        }
        if (sent < 0) {
            return handle_error(d, "Fatal write error on datagram transport");
        }
        if (t->loop == NULL || wait_for_room(d) < 0 || !t->open) {
            return PyErr_Occurred() ? -1 : 0; // closed by what ran since
        }
    }
    return enqueue_datagram(d, data, to) < 0 ? -1 : transport_pause_protocol(t);
}

/* Look at the first of the queue, up to a batch: how many can go in one system call.  Each owner is held in
   `held`, as an audit hook may run anything.  0 if the first one has to go by the socket's own method; -1. */
static int
gather_batch(DatagramObj *d, PyObject **held, struct mmsghdr *messages, struct iovec *iov, socket_address *to)
{
    write_queue *q = &d->base.queue;
    int n = 0;
    while (n < BATCH && (size_t)n < q->length) {
        queue_chunk chunk = q->chunks[q->head + (size_t)n];
        struct msghdr *header = &messages[n].msg_hdr;
        held[n] = Py_NewRef(chunk.owner);
        n++;
        PyObject *receiver = PyTuple_GET_ITEM(chunk.owner, 1);
        if (!goes_to_peer(d, receiver)) {
            int known = address_read(&to[n - 1], d->family, receiver);
            if (known == 1 && d->base.sock != NULL &&
                PySys_Audit("socket.sendto", "OO", d->base.sock, receiver) < 0) {
                known = -1;
            }
            if (known <= 0) {
                Py_DECREF(held[--n]);
                if (n == 0) {
                    return known;
                }
                PyErr_Clear(); // again when it is the first
                return n;
            }
            header->msg_name = &to[n - 1].u;
            header->msg_namelen = to[n - 1].length;
        }
        iov[n - 1] = (struct iovec){(void *)chunk.data, chunk.size - HEADER_SIZE};
        header->msg_iov = &iov[n - 1];
        header->msg_iovlen = 1;
    }
    return n;
}

/* Send a batch, and take from the queue what went.  Returns 1 if that can be done again, 0 if the kernel takes
   nothing now, -1 with an exception; what it is about has been taken from the queue as well. */
static int
send_batch(DatagramObj *d)
{
    struct mmsghdr messages[BATCH];
    struct iovec iov[BATCH];
    socket_address to[BATCH];
    PyObject *held[BATCH];
    write_queue *q = &d->base.queue;
    memset(messages, 0, sizeof(messages));
    int n = gather_batch(d, held, messages, iov, to), sent = -1, status;
    if (n > 0) {
        do {
            sent = sendmmsg(transport_descriptor(&d->base), messages, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        status = sent > 0 ? 1 : errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        if (status < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    else if (q->length == 0) {
        return n; // forgotten by what ran since
    }
    else {
        held[0] = Py_NewRef(q->chunks[q->head].owner);
        status = n < 0 ? -1 : send_by_socket(d, PyTuple_GET_ITEM(held[0], 0), PyTuple_GET_ITEM(held[0], 1));
        n = 1;
    }
    int done = status > 0 && sent > 0 ? sent : status != 0;
    PyObject *raised = PyErr_GetRaisedException();
    for (int i = 0; i < n; i++) {
        if (i < done && q->length > 0 && q->chunks[q->head].owner == held[i]) {
            queue_pop(q);
        }
        Py_DECREF(held[i]);
    }
    PyErr_SetRaisedException(raised);
    return status;
}

/* Report what connection_lost() raised, as asyncio does of the handle that called it. */
static int
lose_datagrams(DatagramObj *d)
{
    TransportObj *t = &d->base;
    LoopObj *loop = (LoopObj *)Py_NewRef((PyObject *)t->loop);
    int status = transport_call_lost(t);
    if (status < 0) {
        PyObject *raised = PyErr_GetRaisedException();
        PyObject *callback = PyObject_GetAttr((PyObject *)d, t->st->str._call_connection_lost);
        PyErr_SetRaisedException(raised);
        if (callback != NULL) {
            status = loop_report(loop, callback, Py_None);
            Py_DECREF(callback);
        }
    }
    Py_DECREF(loop);
    return status;
}

static int
send_waiting_datagrams(DatagramObj *d)
{
    TransportObj *t = &d->base;
    while (t->queue.length > 0) {
        int sent = send_batch(d);
        if (sent < 0) {
            return handle_error(d, "Fatal write error on datagram transport");
        }
        if (sent == 0) {
            break;
        }
    }
    if (transport_resume_protocol(t) < 0) { // which may send
        return -1;
    }
    if (t->queue.length > 0 || t->loop == NULL || t->conn_lost) {
        return 0;
    }
    watch_forget(t->loop, t->fd, POLL_WRITE, (PyObject *)t);
    if (t->closing) {
        t->conn_lost = 1;
        return lose_datagrams(d);
    }
    return 0;
}

static int
datagram_write_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    DatagramObj *d = (DatagramObj *)self;
    TransportObj *t = &d->base;
    int entered;
    if (UNLIKELY(t->loop == NULL || t->conn_lost)) {
        return 0;
    }
    if (UNLIKELY(transport_enter(t, &entered) < 0)) {
        return -1;
    }
    int status = send_waiting_datagrams(d);
    transport_exit(t, entered);
    return status;
}

/* What transport_lose() has scheduled. */
static int
datagram_lost_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    DatagramObj *d = (DatagramObj *)self;
    TransportObj *t = &d->base;
    int entered;
    if (t->loop == NULL || transport_enter(t, &entered) < 0) {
        return t->loop == NULL ? 0 : -1;
    }
    int status = lose_datagrams(d);
    transport_exit(t, entered);
    return status;
}

/* What goes to a lost connection goes nowhere. */
static int
send_to_lost(DatagramObj *d)
{
    TransportObj *t = &d->base;
    int status = 0;
    if (t->conn_lost >= LOG_LOST_WRITES) {
        PyObject *res = PyObject_CallMethod(t->st->logger, "warning", "s", "socket.send() raised exception.");
        Py_XDECREF(res);
        status = res == NULL ? -1 : 0;
    }
    t->conn_lost++;
    return status;
}

/* With an address of its own the endpoint sends there only. */
static int
check_receiver(DatagramObj *d, PyObject *to)
{
    if (to == Py_None || to == d->address) {
        return 0;
    }
    int same = PyObject_RichCompareBool(to, d->address, Py_EQ);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", d->address);
    }
    return same > 0 ? 0 : -1;
}

static int
datagram_send(DatagramObj *d, PyObject *data, PyObject *to)
{
    TransportObj *t = &d->base;
    if (UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))) {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not %R", name);
            Py_DECREF(name);
        }
        return -1;
    }
#if PY_VERSION_HEX < 0x030D0000
    int truth = PyObject_IsTrue(data);
    if (truth <= 0) {
        return truth; /* an empty datagram was not sent in these versions */
    }
#endif
    if (d->address != NULL) {
        if (UNLIKELY(check_receiver(d, to) < 0)) {
            return -1;
        }
        to = d->address;
        if (UNLIKELY(t->conn_lost)) {
            return send_to_lost(d);
        }
    }
    if (UNLIKELY(t->loop == NULL || !t->open)) {
        return send_to_lost(d);
    }
    if (LIKELY(PyBytes_CheckExact(data))) {
        return send_bytes(d, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), to);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return handle_error(d, "Fatal write error on datagram transport");
    }
    int status = send_bytes(d, data, view.buf, view.len, to);
    PyBuffer_Release(&view);
    return status;
}

PyDoc_STRVAR(sendto_doc,
"sendto($self, /, data, addr=None)\n--\n\n"
"Send a datagram: at once if the kernel takes it, or else later.\n\n"
"Without `addr` it goes to the remote address that the endpoint was made with.  Raises TypeError if `data` is\n"
"not bytes, a bytearray or a memoryview, ValueError for another address than that of the endpoint; errors of\n"
"the network go to the protocol's error_received().  (asyncio.DatagramTransport.sendto)");

static PyObject *
Datagram_sendto_keywords(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *positional = PyTuple_New(nargs), *keywords = PyDict_New(), *data, *to = Py_None, *result = NULL;
    static char *names[] = {"data", "addr", NULL};
    for (Py_ssize_t i = 0; positional != NULL && i < nargs; i++) {
        PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
    }
    int status = positional == NULL || keywords == NULL ? -1 : 0;
    for (Py_ssize_t k = 0; status == 0 && kwnames != NULL && k < PyTuple_GET_SIZE(kwnames); k++) {
        status = PyDict_SetItem(keywords, PyTuple_GET_ITEM(kwnames, k), args[nargs + k]);
    }
    if (status == 0 && PyArg_ParseTupleAndKeywords(positional, keywords, "O|O:sendto", names, &data, &to) &&
        datagram_send((DatagramObj *)self, data, to) == 0) {
        result = Py_NewRef(Py_None);
    }
    Py_XDECREF(positional);
    Py_XDECREF(keywords);
    return result;
}

static PyObject *
Datagram_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (UNLIKELY(kwnames != NULL || nargs < 1 || nargs > 2)) {
        return Datagram_sendto_keywords(self, args, nargs, kwnames);
    }
    if (UNLIKELY(datagram_send((DatagramObj *)self, args[0], nargs > 1 ? args[1] : Py_None) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- reading, flow control, the protocol ---- */

static PyObject *
Datagram_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if (t->closing || t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 1;
    if (t->begun) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    if (transport_debug(t, "%r pauses reading") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Datagram_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    DatagramObj *d = (DatagramObj *)self;
    TransportObj *t = &d->base;
    if (t->closing || !t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 0;
    if (t->begun) {
        int err = transport_watch(t, POLL_READ, datagram_read_ready);
        if (err < 0) {
            return poll_raise(err);
        }
    }
    if (transport_debug(t, "%r resumes reading") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Datagram_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(((TransportObj *)self)->queue.size);
}

static PyObject *
Datagram_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high = NULL, *low = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high, &low) ||
        transport_set_limits((TransportObj *)self, high, low) < 0 ||
        transport_pause_protocol((TransportObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Datagram_set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *protocol = single_argument(self, "set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL) {
        return NULL;
    }
    Py_XSETREF(((TransportObj *)self)->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

/* ---- closing ---- */

static PyObject *
Datagram_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if (t->closing) {
        Py_RETURN_NONE;
    }
    t->closing = 1;
    if (t->begun) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    if (t->queue.length == 0 && transport_lose(t, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Datagram_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (transport_force_close((TransportObj *)self, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What debug mode calls. */
static PyObject *
Datagram_read_ready_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (datagram_read_ready(((TransportObj *)self)->loop, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Datagram_write_ready_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if ((t->conn_lost ? datagram_lost_ready : datagram_write_ready)(t->loop, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- what asyncio's own code and a few libraries look at ---- */

#define FIELD_OF(field) (void *)(offsetof(DatagramObj, base) + offsetof(TransportObj, field))

static PyGetSetDef datagram_getset[] = {
    {"_sock", Transport_get_object, NULL, NULL, FIELD_OF(sock)},
    {"_loop", Transport_get_object, NULL, NULL, FIELD_OF(loop)},
    {"_protocol", Transport_get_object, NULL, NULL, FIELD_OF(protocol)},
    {"_address", Transport_get_object, NULL, NULL, (void *)offsetof(DatagramObj, address)},
    {"_closing", Transport_get_flag, NULL, NULL, FIELD_OF(closing)},
    {"_paused", Transport_get_flag, NULL, NULL, FIELD_OF(paused)},
    {"_protocol_paused", Transport_get_flag, NULL, NULL, FIELD_OF(protocol_paused)},
    {"_sock_fd", Transport_get_int, NULL, NULL, FIELD_OF(fd)},
    {"_conn_lost", Transport_get_int, NULL, NULL, FIELD_OF(conn_lost)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef datagram_members[] = {
    {"__weaklistoffset__",
     Py_T_PYSSIZET,
     offsetof(DatagramObj, base) + offsetof(TransportObj, weakrefs),
     Py_READONLY,
     NULL},
    {"__dictoffset__",
     Py_T_PYSSIZET,
     offsetof(DatagramObj, base) + offsetof(TransportObj, dict),
     Py_READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
datagram_repr(PyObject *self)
{
    TransportObj *t = (TransportObj *)self;
    PyObject *name = PyType_GetName(Py_TYPE(self)), *repr = NULL;
    if (name == NULL) {
        return NULL;
    }
    const char *state = !t->open ? " closed" : t->closing ? " closing" : "";
    if (t->loop != NULL && t->loop->is_open) {
        poll_slot *slot = t->fd < t->loop->poll.n_slots ? &t->loop->poll.slots[t->fd] : NULL;
        repr = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>",
                                    name,
                                    state,
                                    t->fd,
                                    slot != NULL && slot->reader == self ? "polling" : "idle",
                                    slot != NULL && slot->writer == self ? "polling" : "idle",
                                    t->queue.size);
    }
    else {
        repr = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, t->fd);
    }
    Py_DECREF(name);
    return repr;
}

/* ---- life ---- */

static int
datagram_traverse(PyObject *self, visitproc visit, void *arg)
{
    DatagramObj *d = (DatagramObj *)self;
    Py_VISIT(d->address);
    Py_VISIT(d->waiter);
    Py_VISIT(d->from.obj);
    Py_VISIT(d->to.obj);
    return transport_traverse(self, visit, arg);
}

static int
datagram_clear(PyObject *self)
{
    DatagramObj *d = (DatagramObj *)self;
    Py_CLEAR(d->address);
    Py_CLEAR(d->waiter);
    Py_CLEAR(d->from.obj);
    Py_CLEAR(d->to.obj);
    transport_clear(&d->base);
    return 0;
}

static void
datagram_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (((TransportObj *)self)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    Py_TRASHCAN_BEGIN(self, datagram_dealloc); /* anything may be its protocol: another transport */
    (void)datagram_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

PyDoc_STRVAR(datagram_pause_doc,
"pause_reading($self, /)\n--\n\nDo not call datagram_received() until resume_reading().");
PyDoc_STRVAR(datagram_resume_doc, "resume_reading($self, /)\n--\n\nGive the protocol datagrams again.");
PyDoc_STRVAR(datagram_is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if the transport receives datagrams.");
PyDoc_STRVAR(datagram_is_closing_doc,
"is_closing($self, /)\n--\n\nReturn True if the transport is closing or closed.  (asyncio.BaseTransport)");
PyDoc_STRVAR(datagram_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Return how many bytes wait to be sent, with 8 for each datagram from Python 3.13 on.");
PyDoc_STRVAR(datagram_limits_doc, "get_write_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.");
PyDoc_STRVAR(datagram_set_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set at how many waiting bytes the protocol's pause_writing() and resume_writing() are called.\n\n"
"Raises ValueError unless high >= low >= 0.");
PyDoc_STRVAR(datagram_close_doc,
"close($self, /)\n--\n\n"
"Stop receiving, send what waits, then call the protocol's connection_lost(None).  (asyncio.BaseTransport)");
PyDoc_STRVAR(datagram_abort_doc,
"abort($self, /)\n--\n\nClose at once: what waits to be sent is lost.  (asyncio.DatagramTransport)");
PyDoc_STRVAR(datagram_set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive events to another protocol.  (asyncio.BaseTransport)");
PyDoc_STRVAR(datagram_get_protocol_doc,
"get_protocol($self, /)\n--\n\nReturn the protocol.  (asyncio.BaseTransport)");

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))Datagram_sendto, METH_FASTCALL | METH_KEYWORDS, sendto_doc},
    {"pause_reading", Datagram_pause_reading, METH_NOARGS, datagram_pause_doc},
    {"resume_reading", Datagram_resume_reading, METH_NOARGS, datagram_resume_doc},
    {"is_reading", Transport_is_reading, METH_NOARGS, datagram_is_reading_doc},
    {"is_closing", Transport_is_closing, METH_NOARGS, datagram_is_closing_doc},
    {"get_write_buffer_size", Datagram_get_write_buffer_size, METH_NOARGS, datagram_size_doc},
    {"get_write_buffer_limits", Transport_get_write_buffer_limits, METH_NOARGS, datagram_limits_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))Datagram_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     datagram_set_limits_doc},
    {"close", Datagram_close, METH_NOARGS, datagram_close_doc},
    {"abort", Datagram_abort, METH_NOARGS, datagram_abort_doc},
    {"set_protocol",
     (PyCFunction)(void (*)(void))Datagram_set_protocol,
     METH_FASTCALL | METH_KEYWORDS,
     datagram_set_protocol_doc},
    {"get_protocol", Transport_get_protocol, METH_NOARGS, datagram_get_protocol_doc},
    {"_call_connection_lost", Transport_call_connection_lost, METH_O, NULL},
    {"_read_ready", Datagram_read_ready_method, METH_NOARGS, NULL},
    {"_write_ready", Datagram_write_ready_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(datagram_doc, "The transport of a datagram endpoint.\n\nMade by the loop; an asyncio.DatagramTransport.");

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_repr, datagram_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_getset, datagram_getset},
    {Py_tp_members, datagram_members},
    {0, NULL},
};

static PyType_Spec datagram_spec = {
    .name = "ctask.DatagramTransport",
    .basicsize = sizeof(DatagramObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagram_slots,
};

/* ---- the loop's hook ---- */

/* One of asyncio's three keys, which it fills in at once; the peer's may be given. */
static int
set_extra(DatagramObj *d, PyObject *key, PyObject *value)
{
    int status = value == NULL ? -1 : PyDict_SetItem(d->base.extra, key, value);
    Py_XDECREF(value);
    return status;
}

static PyObject *
address_or_none(PyObject *sock, const char *method)
{
    PyObject *address = PyObject_CallMethod(sock, method, NULL);
    if (address == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        address = Py_NewRef(Py_None);
    }
    return address;
}

static int
fill_extra(DatagramObj *d, PyObject *sock, PyObject *extra)
{
    ctask_state *st = d->base.st;
    d->base.extra = extra == NULL || extra == Py_None ? PyDict_New() : PyDict_Copy(extra);
    if (d->base.extra == NULL ||
        set_extra(d, st->str.socket, PyObject_CallOneArg(st->TransportSocket, sock)) < 0 ||
        set_extra(d, st->str.sockname, address_or_none(sock, "getsockname")) < 0) {
        return -1;
    }
    int given = PyDict_Contains(d->base.extra, st->str.peername);
    if (given < 0 || (!given && set_extra(d, st->str.peername, address_or_none(sock, "getpeername")) < 0)) {
        return -1;
    }
    PyObject *peer = PyDict_GetItemWithError(d->base.extra, st->str.peername);
    int connected = peer == NULL ? (PyErr_Occurred() ? -1 : 0) : PyObject_IsTrue(peer);
    d->connected = connected > 0;
    d->paired = connected == 0 && peer != NULL && peer != Py_None;
    return connected < 0 ? -1 : 0;
}

PyDoc_STRVAR(make_datagram_doc,
"_make_datagram($self, sock, protocol, address=None, waiter=None, extra=None, /)\n--\n\n"
"Return the transport of a datagram socket (IPv4, IPv6 or Unix), which it owns from now on.");

static PyObject *
Loop_make_datagram(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2 || nargs > 5) {
        PyErr_Format(PyExc_TypeError, "_make_datagram expected 2 to 5 arguments, got %zd", nargs);
        return NULL;
    }
    LoopObj *loop = (LoopObj *)self;
    ctask_state *st = loop->st;
    if (!socketobj_is_plain(st, args[0])) {
        PyErr_SetString(PyExc_TypeError, "a plain socket.socket is expected");
        return NULL;
    }
    PyObject *sock = args[0], *address = nargs > 2 ? args[2] : Py_None;
    PyObject *family = PyObject_GetAttrString(sock, "family");
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    Py_XDECREF(family);
    int fd = number == -1 && PyErr_Occurred() ? -1 : PyObject_AsFileDescriptor(sock);
    int has_address = PyObject_IsTrue(address);
    if (fd < 0 || has_address < 0) {
        return NULL;
    }
    DatagramObj *d = (DatagramObj *)st->DatagramType->tp_alloc(st->DatagramType, 0);
    if (d == NULL) {
        return NULL;
    }
    TransportObj *t = &d->base;
    PyObject_GC_UnTrack(d); // nobody finds it before it is whole
    t->st = st;
    t->loop = (LoopObj *)Py_NewRef(self);
    t->fd = fd;
    t->lost_ready = datagram_lost_ready;
    d->family = (int)number;
    d->address = has_address ? Py_NewRef(address) : NULL;
    d->waiter = nargs > 3 && args[3] != Py_None ? Py_NewRef(args[3]) : NULL;
    t->protocol = Py_NewRef(args[1]);
    t->context = context_copy(&st->base.contexts);
    if (t->context == NULL || transport_set_limits(t, NULL, NULL) < 0 ||
        fill_extra(d, sock, nargs > 4 ? args[4] : NULL) < 0 || loop_check_open(loop) < 0 ||
        loop_ready(loop, Py_NewRef((PyObject *)d), READY_READ, (PyObject *)(void *)datagram_read_ready, NULL) <
            0) {
        transport_discard(t);
        return NULL;
    }
    t->sock = Py_NewRef(sock);
    t->open = 1;
    watch_claim(loop, fd, (PyObject *)d);
    PyObject_GC_Track(d);
    return (PyObject *)d;
}

static PyMethodDef datagram_loop_methods[] = {
    {"_make_datagram", (PyCFunction)(void (*)(void))Loop_make_datagram, METH_FASTCALL, make_datagram_doc},
    {NULL, NULL, 0, NULL},
};

PART int
datagram_setup(PyObject *module, ctask_state *st)
{
    PyObject *bases = PyTuple_Pack(2, st->stock_Transport, st->stock_DatagramTransport);
    if (bases == NULL) {
        return -1;
    }
    int status = add_type(module, "DatagramTransport", &st->DatagramType, &datagram_spec, bases);
    Py_DECREF(bases);
    return status < 0 ? -1 : add_methods(st->LoopType, datagram_loop_methods);
}
