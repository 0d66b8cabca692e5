/* Sending datagrams: sendto() sends at once; what the kernel does not take waits in the queue, whose chunks' owners are
   pairs (data, address) here and whose size counts a header for each, as asyncio's. */

#include "io/datagram_parts.h"

/* At most this many are sent in one system call. */
#define BATCH 16
/* Counted for each datagram that waits, as asyncio does. */
#if PY_VERSION_HEX >= 0x030D0000
#define HEADER_SIZE 8
#else
#define HEADER_SIZE 0
#endif

/* ---- sending ---- */

/* An exception is set: the protocol is told of an OSError, any other is fatal. */
PART int
datagram_error(DatagramObj *d, const char *fatal)
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
        known_address_set(known, obj, &read);
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
        if (UNLIKELY(receiver_of(d, to, &address) < 0)) { // again: a hook for audits may have sent something
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
        count_sent(d->base.loop, n);
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
    int err = transport_watch(t, POLL_WRITE);
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
            return datagram_error(d, "Fatal write error on datagram transport");
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
        for (int i = 0; i < sent; i++) {
            count_sent(d->base.loop, (ssize_t)messages[i].msg_len);
        }
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

PART int
datagram_send_waiting(TransportObj *t)
{
    DatagramObj *d = (DatagramObj *)t;
    while (t->queue.length > 0) {
        int sent = send_batch(d);
        if (sent < 0) {
            return datagram_error(d, "Fatal write error on datagram transport");
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
    transport_unwatch(t, POLL_WRITE);
    if (t->closing) {
        t->conn_lost = 1;
        return transport_end(t);
    }
    return 0;
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
    if (UNLIKELY(!PyBytes_Check(data)) && transport_check_data(data, "bytes-like") < 0) {
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
            return transport_write_lost(t);
        }
    }
    if (UNLIKELY(t->loop == NULL || !t->open)) {
        return transport_write_lost(t);
    }
    if (LIKELY(PyBytes_CheckExact(data))) {
        return send_bytes(d, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), to);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return datagram_error(d, "Fatal write error on datagram transport");
    }
    int status = send_bytes(d, data, view.buf, view.len, to);
    PyBuffer_Release(&view);
    return status;
}

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

PART PyObject *
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
