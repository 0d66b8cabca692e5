/* The transport of stream sockets: TCP and Unix.

   One receive for each time the kernel tells of data, into a buffer that the loop's transports share.  write()
   sends at once, and what the kernel does not take waits in a queue of the caller's own objects: nothing else
   ever does.  That the writes of one callback (head and body of a response) leave in one packet is the kernel's
   doing: see hold_back().

   The functions that are called by the loop, stream_read_ready() and stream_write_ready(), see from the state
   which of their work there is to do.  So an entry of the ring that comes late does no harm. */

#include "io/stream.h"

#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNKS_AT_ONCE 64
/* From so many writes to a lost connection on, each is logged; as asyncio's. */
#define LOG_LOST_WRITES 5

static int stream_read_ready(LoopObj *loop, PyObject *self);
static int stream_write_ready(LoopObj *loop, PyObject *self);
static int stream_lost_ready(LoopObj *loop, PyObject *self);
static int stream_close(StreamObj *s);
static void stream_dealloc(PyObject *self);

PART int
stream_is_exact(PyObject *obj)
{
    return Py_TYPE(obj)->tp_dealloc == stream_dealloc;
}

/* ---- patches ---- */

static int
has_own_method(PyObject *type, PyObject *name)
{
    PyObject *method = PyObject_GetAttr(type, name);
    int own = method != NULL && Py_IS_TYPE(method, &PyMethodDescr_Type) &&
              PyDescr_TYPE(method) == (PyTypeObject *)type;
    PyErr_Clear();
    Py_XDECREF(method);
    return own;
}

/* Tests replace methods of classes; the version tag changes when they do. */
static __attribute__((noinline)) void
look_for_patches(ctask_state *st)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *type = (PyObject *)st->StreamType;
    st->io.streams.own = has_own_method(type, st->str.write) && has_own_method(type, st->str.is_closing);
    PyErr_SetRaisedException(raised);
    st->io.streams.version = st->StreamType->tp_version_tag;
}

PART int
stream_is_unpatched(PyObject *obj)
{
    if (UNLIKELY(!stream_is_exact(obj) || ((TransportObj *)obj)->dict != NULL)) {
        return 0;
    }
    ctask_state *st = ((TransportObj *)obj)->st;
    unsigned int version = st->StreamType->tp_version_tag;
    if (UNLIKELY(st->io.streams.version != version || version == 0)) {
        look_for_patches(st);
    }
    return st->io.streams.own;
}

/* ---- beginning ---- */

/* The protocol, and who takes the data for it: set together, as Python code that is asked may set another one. */
static int
take_protocol(StreamObj *s, PyObject *protocol)
{
    ctask_state *st = s->base.st;
    const sink_kind *sink = sink_of(st, protocol);
    int buffered = sink != NULL ? 0 : PyObject_IsInstance(protocol, st->BufferedProtocol);
    if (buffered == 0 && sink == NULL && !PyObject_HasAttr(protocol, st->str.data_received)) {
        /* Whoever looks like one is taken as one; asyncio would fail at the first byte. */
        buffered = PyObject_HasAttr(protocol, st->str.get_buffer) &&
                   PyObject_HasAttr(protocol, st->str.buffer_updated);
    }
    if (buffered < 0) {
        return -1;
    }
    s->buffered = (char)buffered;
    s->sink = sink;
    Py_XSETREF(s->base.protocol, Py_NewRef(protocol));
    return 0;
}

/* A long address is kept as Python shows it. */
static int
remember(StreamObj *s, short_address *to, PyObject *key, const struct sockaddr *address, socklen_t length)
{
    if (LIKELY(length <= sizeof(to->u))) {
        to->length = length;
        memcpy(&to->u, address, length);
        return 0;
    }
    PyObject *shown = address_object(address, length);
    if (shown == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int status = -1;
    if (s->base.extra != NULL || (s->base.extra = PyDict_New()) != NULL) {
        status = PyDict_SetDefault(s->base.extra, key, shown) == NULL ? -1 : 0;
    }
    Py_DECREF(shown);
    return status;
}

PART StreamObj *
stream_create(LoopObj *loop, int fd, int family, int type, int proto, PyObject *sock, PyObject *protocol,
              PyObject *waiter, PyObject *extra, PyObject *server, PyObject *context,
              const struct sockaddr *peer, socklen_t peer_length)
{
    ctask_state *st = loop->st;
    StreamObj *s = (StreamObj *)st->StreamType->tp_alloc(st->StreamType, 0);
    if (s == NULL) {
        return NULL;
    }
    TransportObj *t = &s->base;
    PyObject_GC_UnTrack(s); // nobody finds it before it is whole
    t->st = st;
    t->loop = (LoopObj *)Py_NewRef((PyObject *)loop);
    t->fd = fd;
    t->lost_ready = stream_lost_ready;
    s->family = family;
    s->type = type;
    s->proto = proto;
    s->is_tcp = (family == AF_INET || family == AF_INET6) && type == SOCK_STREAM &&
                (proto == 0 || proto == IPPROTO_TCP);
    (void)transport_set_limits(t, NULL, NULL);
    t->context = context == NULL || context == Py_None ? context_copy(&st->base.contexts) : Py_NewRef(context);
    if (t->context == NULL) {
        goto failed;
    }
    if (extra != NULL && extra != Py_None) {
        t->extra = PyDict_Copy(extra);
        if (t->extra == NULL) {
            goto failed;
        }
    }
    if (take_protocol(s, protocol) < 0) {
        goto failed;
    }
    struct sockaddr_storage address;
    if (peer == NULL) {
        peer_length = sizeof(address);
        if (getpeername(fd, (struct sockaddr *)&address, &peer_length) == 0) {
            peer = (struct sockaddr *)&address;
        }
    }
    if (peer != NULL && remember(s, &s->peer, st->str.peername, peer, peer_length) < 0) {
        goto failed;
    }
    PyObject_GC_Track(s);
    if (server != NULL && server != Py_None) {
        PyObject *res = st->io.server_knows_clients
                            ? PyObject_CallMethodOneArg(server, st->str._attach, (PyObject *)s)
                            : PyObject_CallMethodNoArgs(server, st->str._attach);
        if (res == NULL) {
            goto failed;
        }
        Py_DECREF(res);
        t->server = Py_NewRef(server);
    }
    s->waiter = waiter == NULL || waiter == Py_None ? NULL : Py_NewRef(waiter);
    if (loop_check_open(loop) < 0 ||
        loop_ready(loop, Py_NewRef((PyObject *)s), READY_READ, (PyObject *)(void *)stream_read_ready, NULL) <
            0) {
        goto failed;
    }
    t->sock = Py_XNewRef(sock);
    t->open = 1;
    watch_claim(loop, fd, (PyObject *)s);
    return s;

failed:
    transport_discard(t);
    return NULL;
}

static int
begin(StreamObj *s)
{
    TransportObj *t = &s->base;
    t->begun = 1;
    int status = 0;
    PyObject *waiter = s->waiter;
    s->waiter = NULL;
    if (!t->conn_lost) {
        int err = transport_own(t, stream_read_ready);
        if (err < 0) {
            poll_raise(err);
            status = transport_fatal_error(t, "Fatal error on transport");
        }
    }
    if (status == 0) {
        transport_call_made(t);
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (t->queue.length > 0 && !t->conn_lost && t->loop != NULL) {
        (void)transport_watch(t, POLL_WRITE, stream_write_ready);
    }
    return transport_connected((PyObject *)s, waiter, raised);
}

/* ---- reading ---- */

static int
is_reading(StreamObj *s)
{
    return !s->base.closing && !s->base.paused && !s->eof_seen && s->base.protocol != NULL;
}

static int
receive_eof(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (transport_debug(t, "%r received EOF") < 0) {
        return -1;
    }
    if (t->protocol == NULL) {
        return 0; // connection_lost() was called by who handles the line
    }
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, t->st->str.eof_received);
    Py_DECREF(protocol);
    int keep_open = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    if (keep_open < 0) {
        return transport_fatal_error(t, "Fatal error: protocol.eof_received() call failed.");
    }
    if (!keep_open) {
        return stream_close(s);
    }
    s->eof_seen = 1;
    if (t->loop != NULL) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    return 0;
}

/* 0 and *n, which is -1 if there is nothing to read now; -1 if the connection is lost with it. */
static int
receive_into(StreamObj *s, char *buffer, size_t size, ssize_t *n)
{
    do {
        *n = recv(transport_descriptor(&s->base), buffer, size, MSG_DONTWAIT);
    } while (*n < 0 && errno == EINTR);
    if (LIKELY(*n >= 0) || errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* What BufferedProtocol.get_buffer() gave is filled, and buffer_updated() called.  *n as receive_into()'s. */
static int
receive_buffered(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    TransportObj *t = &s->base;
    static const char get_failed[] = "Fatal error: protocol.get_buffer() call failed.";
    *n = -1;
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer = hint == NULL ? NULL : PyObject_CallMethodOneArg(protocol, t->st->str.get_buffer, hint);
    Py_XDECREF(hint);
    Py_buffer view;
    if (buffer == NULL) {
        return transport_fatal_error(t, get_failed);
    }
    Py_ssize_t items = PyObject_Length(buffer);
    if (items == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    if (items <= 0) {
        Py_DECREF(buffer);
        return transport_fatal_error(t, get_failed);
    }
    if (t->conn_lost || t->fd < 0 || !t->open) {
        Py_DECREF(buffer);
        return 0; // get_buffer() closed the connection
    }
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.200s",
                     Py_TYPE(buffer)->tp_name);
        Py_DECREF(buffer);
        return transport_fatal_error(t, "Fatal read error on socket transport");
    }
    int status = receive_into(s, view.buf, (size_t)view.len, n);
    PyBuffer_Release(&view);
    Py_DECREF(buffer);
    if (status < 0) {
        return transport_fatal_error(t, "Fatal read error on socket transport");
    }
    if (*n <= 0) {
        return 0;
    }
    PyObject *count = PyLong_FromSsize_t(*n);
    PyObject *res = count == NULL ? NULL
                                  : PyObject_CallMethodOneArg(protocol, t->st->str.buffer_updated, count);
    Py_XDECREF(count);
    if (res == NULL) {
        return transport_fatal_error(t, "Fatal error: protocol.buffer_updated() call failed.");
    }
    Py_DECREF(res);
    return 0;
}

/* Into the loop's buffer, and from there to a protocol that is ours. */
static int
receive_feed(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    LoopObj *loop = s->base.loop; // the caller holds it
    const sink_kind *sink = s->sink;
    char *buffer = loop_take_read_buffer(loop);
    int status = buffer == NULL ? -1 : receive_into(s, buffer, READ_BUFFER_SIZE, n);
    if (UNLIKELY(status < 0)) {
        loop_give_read_buffer(loop, buffer);
        return transport_fatal_error(&s->base, "Fatal read error on socket transport");
    }
    if (LIKELY(*n > 0)) {
        status = sink->feed(protocol, buffer, *n);
    }
    loop_give_read_buffer(loop, buffer);
    if (UNLIKELY(status < 0)) {
        return transport_fatal_error(&s->base, sink->failed);
    }
    return 0;
}

/* Where much comes at a time it is received into its own bytes object: copying 100 KiB takes as long as a system
   call.  What is less is copied from the loop's buffer, as the size is not known before. */
#define LARGE_READ (32 * 1024)

/* What is there to read.  NULL if that is nothing, with *n as receive_into()'s, or with an exception. */
static PyObject *
receive_bytes(StreamObj *s, ssize_t *n)
{
    LoopObj *loop = s->base.loop;
    PyObject *data = NULL;
    if (UNLIKELY(s->last_read >= LARGE_READ)) {
        size_t size = 2 * s->last_read < READ_BUFFER_SIZE ? 2 * s->last_read : READ_BUFFER_SIZE;
        data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (data == NULL || receive_into(s, PyBytes_AS_STRING(data), size, n) < 0 || *n <= 0) {
            Py_CLEAR(data);
        }
        else {
            (void)_PyBytes_Resize(&data, *n);
        }
    }
    else {
        char *buffer = loop_take_read_buffer(loop);
        if (LIKELY(buffer != NULL && receive_into(s, buffer, READ_BUFFER_SIZE, n) == 0 && *n > 0)) {
            data = PyBytes_FromStringAndSize(buffer, *n);
        }
        loop_give_read_buffer(loop, buffer);
    }
    if (*n > 0) {
        s->last_read = (size_t)*n;
    }
    return data;
}

static int
receive_plain(StreamObj *s, PyObject *protocol, ssize_t *n)
{
    TransportObj *t = &s->base;
    PyObject *data = receive_bytes(s, n);
    if (UNLIKELY(data == NULL)) {
        return PyErr_Occurred() ? transport_fatal_error(t, "Fatal read error on socket transport") : 0;
    }
    PyObject *res = PyObject_CallMethodOneArg(protocol, t->st->str.data_received, data);
    Py_DECREF(data);
    if (UNLIKELY(res == NULL)) {
        return transport_fatal_error(t, "Fatal error: protocol.data_received() call failed.");
    }
    Py_DECREF(res);
    return 0;
}

static int
receive(StreamObj *s)
{
    TransportObj *t = &s->base;
    ssize_t n = -1;
    PyObject *protocol = Py_NewRef(t->protocol);
    int status = s->buffered       ? receive_buffered(s, protocol, &n)
                 : s->sink != NULL ? receive_feed(s, protocol, &n)
                                   : receive_plain(s, protocol, &n);
    Py_DECREF(protocol);
    if (UNLIKELY(status < 0)) {
        return -1;
    }
    return n == 0 && !t->conn_lost ? receive_eof(s) : 0;
}

static int
stream_read_ready(LoopObj *loop, PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    int entered;
    if (UNLIKELY(t->loop == NULL || transport_enter(t, &entered) < 0)) {
        return t->loop == NULL ? 0 : -1;
    }
    (void)loop;
    int status = 0;
    if (UNLIKELY(!t->begun)) {
        status = begin(s);
    }
    else if (LIKELY(is_reading(s))) {
        status = receive(s);
    }
    transport_exit(t, entered);
    return status;
}

/* ---- writing ---- */

/* The callback has ended with less writes than usual.  (Of a socket that was detached meanwhile, as well; should the
   number be another connection's by now, nothing changes for that one.) */
static void
stream_uncork(LoopObj *loop)
{
    StreamObj *s = (StreamObj *)loop->corked;
    loop->corked = NULL;
    int corked = 1, fd = s->base.fd;
    socklen_t length = sizeof(corked);
    /* Unless the program has corked it itself. */
    if (getsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, &length) == 0 && !corked) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, length);
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_DECREF(s);
    PyErr_SetRaisedException(raised);
}

/* MSG_MORE, if the packet will be sent for sure when the callback ends: in the loop's own thread, while one runs.
   One connection at a time.  Not while there is something to be read: who closes the socket then, or ends the process,
   resets the connection, and the kernel drops what it waits with. */
static __attribute__((noinline)) int
stream_cork(StreamObj *s)
{
    LoopObj *loop = s->base.loop;
    int unread;
    if (!s->is_tcp || loop->draining != PyThreadState_Get() ||
        (loop->corked != NULL && loop->corked != (PyObject *)s) ||
        ioctl(transport_descriptor(&s->base), FIONREAD, &unread) < 0 || unread > 0) {
        return 0;
    }
    if (loop->corked == NULL) {
        loop->corked = Py_NewRef((PyObject *)s);
        loop->uncork = stream_uncork;
    }
    return MSG_MORE;
}

/* Send what the queue has, up to what the kernel takes. */
static int
send_queue(StreamObj *s, int more)
{
    TransportObj *t = &s->base;
    int fd = transport_descriptor(t), flags = MSG_NOSIGNAL | MSG_DONTWAIT | more;
    while (t->queue.length > 0) {
        struct iovec iov[CHUNKS_AT_ONCE];
        ssize_t n;
        int count = queue_iovec(&t->queue, iov, CHUNKS_AT_ONCE);
        size_t asked = 0;
        for (int i = 0; i < count; i++) {
            asked += iov[i].iov_len;
        }
        do {
            if (count == 1) {
                n = send(fd, iov[0].iov_base, iov[0].iov_len, flags);
            }
            else {
                struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
                n = sendmsg(fd, &message, flags);
            }
        } while (n < 0 && errno == EINTR);
        if (n < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                return 0;
            }
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        queue_advance(&t->queue, (size_t)n);
        if ((size_t)n < asked) {
            return 0;
        }
    }
    return 0;
}

/* Sending failed, with the exception set: the connection is lost. */
static int
write_failed(StreamObj *s)
{
    TransportObj *t = &s->base;
    PyObject *exc = PyErr_GetRaisedException();
    PyErr_SetRaisedException(Py_NewRef(exc));
    int status = transport_fatal_error(t, "Fatal write error on socket transport");
    if (s->empty_waiter != NULL && status == 0) {
        PyObject *res = PyObject_CallMethod(s->empty_waiter, "set_exception", "O", exc);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    Py_DECREF(exc);
    return status;
}

static int
wait_until_writable(StreamObj *s)
{
    TransportObj *t = &s->base;
    int err = transport_watch(t, POLL_WRITE, stream_write_ready);
    if (LIKELY(err == 0)) {
        return 0;
    }
    poll_raise(err);
    return write_failed(s);
}

static int
shut_down(StreamObj *s)
{
    if (shutdown(transport_descriptor(&s->base), SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* The queue has become empty. */
static int
all_sent(StreamObj *s)
{
    TransportObj *t = &s->base;
    watch_forget(t->loop, t->fd, POLL_WRITE, (PyObject *)t);
    if (s->empty_waiter != NULL) {
        PyObject *res = PyObject_CallMethod(s->empty_waiter, "set_result", "O", Py_None);
        Py_XDECREF(res);
        if (res == NULL) {
            return -1;
        }
    }
    if (t->closing && !t->conn_lost) {
        t->conn_lost = 1;
        return stream_lost_ready(t->loop, (PyObject *)s);
    }
    return s->eof_sent && t->open && !t->conn_lost ? shut_down(s) : 0;
}

/* Send what waits for the kernel. */
static int
send_waiting(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (t->queue.length == 0) {
        watch_forget(t->loop, t->fd, POLL_WRITE, (PyObject *)t);
        return 0;
    }
    if (send_queue(s, 0) < 0) {
        return write_failed(s);
    }
    if (transport_resume_protocol(t) < 0) { // which may write
        return -1;
    }
    if (t->conn_lost || t->loop == NULL) {
        return 0;
    }
    return t->queue.length == 0 ? all_sent(s) : wait_until_writable(s);
}

/* The own address, before the descriptor goes. */
static void
remember_own_address(StreamObj *s)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    if (s->own.length == 0 &&
        getsockname(transport_descriptor(&s->base), (struct sockaddr *)&address, &length) == 0 &&
        remember(s, &s->own, s->base.st->str.sockname, (struct sockaddr *)&address, length) < 0) {
        PyErr_WriteUnraisable((PyObject *)s);
    }
}

/* Report what connection_lost() raised, as asyncio does of the handle that called it. */
static int
call_lost(StreamObj *s)
{
    TransportObj *t = &s->base;
    LoopObj *loop = (LoopObj *)Py_NewRef((PyObject *)t->loop);
    PyObject *waiter = s->empty_waiter;
    s->empty_waiter = NULL;
    if (Py_REFCNT(s) > 1) {
        remember_own_address(s); // not only the ring and the poller hold it: somebody may ask
    }
    int status = transport_call_lost(t);
    if (status < 0) {
        PyObject *raised = PyErr_GetRaisedException();
        PyObject *callback = PyObject_GetAttr((PyObject *)s, t->st->str._call_connection_lost);
        PyErr_SetRaisedException(raised);
        if (callback != NULL) {
            status = loop_report(loop, callback, Py_None);
            Py_DECREF(callback);
        }
    }
    if (waiter != NULL) {
        PyObject *exc = PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
        PyObject *done = PyObject_CallMethod(waiter, "done", NULL);
        PyObject *res = NULL;
        if (done == Py_False && exc != NULL) {
            res = PyObject_CallMethod(waiter, "set_exception", "O", exc);
        }
        if (PyErr_Occurred()) {
            PyErr_WriteUnraisable((PyObject *)s);
        }
        Py_XDECREF(res);
        Py_XDECREF(done);
        Py_XDECREF(exc);
        Py_DECREF(waiter);
    }
    Py_DECREF(loop);
    return status;
}

static int
stream_write_ready(LoopObj *loop, PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    (void)loop;
    int entered;
    if (t->loop == NULL || t->conn_lost) {
        return 0;
    }
    if (transport_enter(t, &entered) < 0) {
        return -1;
    }
    int status = send_waiting(s);
    transport_exit(t, entered);
    return status;
}

/* What transport_lose() has scheduled. */
static int
stream_lost_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    int entered;
    if (t->loop == NULL || transport_enter(t, &entered) < 0) {
        return t->loop == NULL ? 0 : -1;
    }
    int status = call_lost(s);
    transport_exit(t, entered);
    return status;
}

/* Bytes of a lost connection go nowhere. */
static int
write_to_lost(StreamObj *s)
{
    TransportObj *t = &s->base;
    int status = 0;
    if (t->conn_lost >= LOG_LOST_WRITES) {
        PyObject *res = PyObject_CallMethod(t->st->logger, "warning", "s", "socket.send() raised exception.");
        Py_XDECREF(res);
        status = res == NULL ? -1 : 0;
    }
    t->conn_lost++;
    return status;
}

static int
check_writable(StreamObj *s, const char *method)
{
    if (UNLIKELY(s->eof_sent)) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (UNLIKELY(s->empty_waiter != NULL)) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 0;
}

/* Put bytes on the queue; `owner` is taken. */
static int
enqueue(StreamObj *s, PyObject *owner, const char *data, size_t size)
{
    if (UNLIKELY(queue_push(&s->base.queue, owner, data, size) < 0)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The queue has grown. */
static int
after_enqueue(StreamObj *s)
{
    if (wait_until_writable(s) < 0) {
        return -1;
    }
    return s->base.conn_lost ? 0 : transport_pause_protocol(&s->base);
}

/* The flags for the next send: MSG_MORE where this callback is going to write again, going by the last two that
   wrote.  The bytes are the kernel's at once, whatever becomes of the callback or the process; it only waits with
   the packet for the next ones, 200 ms at most. */
static inline int
hold_back(StreamObj *s)
{
    LoopObj *loop = s->base.loop;
    size_t turn = loop->ready.head;
    if (LIKELY(s->write_turn != turn)) {
        s->write_turn = turn;
        s->usual_writes = Py_MIN(s->last_writes, s->writes);
        s->last_writes = s->writes;
        s->writes = 0;
    }
    s->writes += s->writes < UCHAR_MAX;
    if (UNLIKELY(s->writes < s->usual_writes)) {
        return stream_cork(s);
    }
    if (UNLIKELY(loop->corked == (PyObject *)s)) {
        Py_CLEAR(loop->corked); // what is sent now takes with it what waits
    }
    return 0;
}

/* -1 with an exception; *n is what the kernel took of it. */
static inline int
send_now(StreamObj *s, const char *data, size_t size, size_t *n)
{
    int fd = transport_descriptor(&s->base), flags = MSG_NOSIGNAL | MSG_DONTWAIT | hold_back(s);
    ssize_t sent;
    do {
        sent = send(fd, data, size, flags);
    } while (sent < 0 && errno == EINTR);
    if (LIKELY(sent >= 0)) {
        *n = (size_t)sent;
        return 0;
    }
    *n = 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int
write_chunk(StreamObj *s, PyObject *data, const char *bytes, size_t size)
{
    TransportObj *t = &s->base;
    size_t sent = 0;
    int blocked = t->queue.length > 0;
    if (LIKELY(!blocked)) {
        if (UNLIKELY(send_now(s, bytes, size, &sent) < 0)) {
            return write_failed(s);
        }
        if (LIKELY(sent == size)) {
            return 0;
        }
    }
    bytes += sent;
    size -= sent;
    PyObject *owner = Py_XNewRef(data);
    if (owner == NULL) {
        owner = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
        if (owner == NULL) {
            return -1;
        }
        bytes = PyBytes_AS_STRING(owner);
    }
    if (enqueue(s, owner, bytes, size) < 0) {
        return -1;
    }
    return blocked ? transport_pause_protocol(t) : after_enqueue(s);
}

/* Memory that may change after write() has returned is copied; memory that cannot is kept by a view. */
static int
write_view(StreamObj *s, PyObject *data)
{
    PyObject *view = PyMemoryView_FromObject(data);
    if (view == NULL) {
        return -1;
    }
    Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    int status = -1;
    if (!PyBuffer_IsContiguous(buffer, 'C')) {
        PyErr_SetString(PyExc_BufferError, "memoryview: underlying buffer is not C-contiguous");
        status = write_failed(s);
    }
    else if (buffer->len == 0) {
        status = 0;
    }
    else if (s->base.conn_lost) { // the view was made by a __buffer__() that ended the connection
        status = write_to_lost(s);
    }
    else {
        status = write_chunk(s, buffer->readonly ? view : NULL, buffer->buf, (size_t)buffer->len);
    }
    Py_DECREF(view);
    return status;
}

PART int
stream_write(StreamObj *s, PyObject *data)
{
    TransportObj *t = &s->base;
    if (UNLIKELY(!PyBytes_Check(data)) && transport_check_data(data) == NULL) {
        return -1;
    }
    if (check_writable(s, "write") < 0) {
        return -1;
    }
    if (LIKELY(PyBytes_CheckExact(data))) {
        Py_ssize_t size = PyBytes_GET_SIZE(data);
        if (UNLIKELY(size == 0)) {
            return 0;
        }
        if (UNLIKELY(t->conn_lost)) {
            return write_to_lost(s);
        }
        return write_chunk(s, data, PyBytes_AS_STRING(data), (size_t)size);
    }
    int truth = PyObject_IsTrue(data);
    if (truth <= 0) {
        return truth;
    }
    return t->conn_lost ? write_to_lost(s) : write_view(s, data);
}

PART int
stream_write_raw(PyObject *transport, const char *data, Py_ssize_t n)
{
    StreamObj *s = (StreamObj *)transport;
    if (check_writable(s, "write") < 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    return s->base.conn_lost ? write_to_lost(s) : write_chunk(s, NULL, data, (size_t)n);
}

PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Send bytes, a bytearray or a memoryview: at once as far as the kernel takes it, the rest later.\n\n"
"Raises TypeError for anything else, RuntimeError after write_eof().  (asyncio.WriteTransport.write)");

static PyObject *
Stream_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *data = single_argument(self, "write", "data", args, nargs, kwnames);
    if (UNLIKELY(data == NULL || stream_write((StreamObj *)self, data) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(writelines_doc,
"writelines($self, /, list_of_data)\n--\n\n"
"Send the chunks of an iterable, without joining them.\n\n"
"Raises RuntimeError after write_eof().  (asyncio.WriteTransport.writelines)");

static PyObject *
Stream_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *lines = single_argument(self, "writelines", "list_of_data", args, nargs, kwnames);
    if (lines == NULL) {
        return NULL;
    }
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    if (check_writable(s, "writelines") < 0) {
        return NULL;
    }
    int any = PyObject_IsTrue(lines);
    if (any <= 0) {
        return any < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *chunks = PySequence_List(lines);
    if (chunks == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyList_GET_SIZE(chunks);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!PyBytes_CheckExact(PyList_GET_ITEM(chunks, i))) {
            PyObject *view = PyMemoryView_FromObject(PyList_GET_ITEM(chunks, i));
            if (view == NULL) {
                Py_DECREF(chunks);
                return NULL;
            }
            PyList_SetItem(chunks, i, view);
        }
    }
    if (n == 0) {
        Py_DECREF(chunks);
        Py_RETURN_NONE;
    }
    if (t->conn_lost) {
        Py_DECREF(chunks);
        if (write_to_lost(s) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    int blocked = t->queue.length > 0, status = 0;
    for (Py_ssize_t i = 0; i < n && status == 0; i++) {
        PyObject *chunk = PyList_GET_ITEM(chunks, i);
        const char *data;
        Py_ssize_t size;
        if (PyBytes_CheckExact(chunk)) {
            data = PyBytes_AS_STRING(chunk);
            size = PyBytes_GET_SIZE(chunk);
            Py_INCREF(chunk);
        }
        else {
            Py_buffer *buffer = PyMemoryView_GET_BUFFER(chunk);
            int keep = buffer->readonly && PyBuffer_IsContiguous(buffer, 'C');
            chunk = keep ? Py_NewRef(chunk) : PyBytes_FromObject(chunk);
            if (chunk == NULL) {
                status = -1;
                break;
            }
            data = keep ? buffer->buf : PyBytes_AS_STRING(chunk);
            size = keep ? buffer->len : PyBytes_GET_SIZE(chunk);
        }
        if (size == 0) {
            Py_DECREF(chunk);
            continue;
        }
        status = enqueue(s, chunk, data, (size_t)size);
    }
    Py_DECREF(chunks);
    if (t->queue.length > 0 && !t->conn_lost && t->loop != NULL) {
        int sent = 0;
        if (!blocked) {
            sent = send_queue(s, hold_back(s));
            if (sent < 0) {
                status = write_failed(s);
            }
        }
        if (sent == 0 && t->queue.length > 0 && after_enqueue(s) < 0) {
            status = -1;
        }
    }
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Close the writing side once everything is sent.  (asyncio.WriteTransport.write_eof)");

static PyObject *
Stream_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    if (s->base.closing || s->eof_sent) {
        Py_RETURN_NONE;
    }
    s->eof_sent = 1;
    if (s->base.queue.length == 0 && shut_down(s) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* ---- flow control ---- */

static PyObject *
Stream_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    if (t->closing || t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 1;
    if (t->begun && !s->eof_seen) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    if (transport_debug(t, "%r pauses reading") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    if (t->closing || !t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 0;
    s->eof_seen = 0; // whoever is the protocol now hears of it as well
    if (t->begun) {
        int err = transport_watch(t, POLL_READ, stream_read_ready);
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
Stream_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(((TransportObj *)self)->queue.size);
}

static PyObject *
Stream_set_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high = NULL, *low = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high, &low) ||
        transport_set_limits((TransportObj *)self, high, low) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_maybe_pause(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (transport_pause_protocol((TransportObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_maybe_resume(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (transport_resume_protocol((TransportObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *res = Stream_set_limits(self, args, kwargs);
    if (res == NULL || transport_pause_protocol((TransportObj *)self) < 0) {
        Py_XDECREF(res);
        return NULL;
    }
    return res;
}

/* ---- closing ---- */

static int
stream_close(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (t->closing) {
        return 0;
    }
    t->closing = 1;
    if (t->begun) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    if (t->queue.length == 0) {
        return transport_lose(t, NULL);
    }
    return 0;
}

static PyObject *
Stream_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (stream_close((StreamObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (transport_force_close((TransportObj *)self, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_force_close(PyObject *self, PyObject *exc)
{
    if (transport_force_close((TransportObj *)self, exc == Py_None ? NULL : exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_fatal_error(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"exc", "message", NULL};
    PyObject *exc;
    const char *message = "Fatal error on transport";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:_fatal_error", names, &exc, &message)) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_SetString(PyExc_TypeError, "an exception is expected");
        return NULL;
    }
    PyErr_SetRaisedException(Py_NewRef(exc));
    if (transport_fatal_error((TransportObj *)self, message) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the protocol ---- */

static PyObject *
Stream_set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    StreamObj *s = (StreamObj *)self;
    PyObject *protocol = single_argument(self, "set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL || take_protocol(s, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- extra information ---- */

static PyObject *
stream_socket(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (t->sock != NULL) {
        return Py_NewRef(t->sock);
    }
    PyObject *sock;
    if (t->open) {
        sock = PyObject_CallFunction(t->st->socket_type, "iiii", s->family, s->type, s->proto, t->fd);
    }
    else {
        sock = PyObject_CallFunction(t->st->socket_type, "iii", s->family, s->type, s->proto);
    }
    if (sock == NULL) {
        return NULL;
    }
    if (!Py_IS_TYPE(sock, (PyTypeObject *)t->st->socket_type)) { // its descriptor is read as a field
        PyErr_Format(PyExc_TypeError, "socket.socket() returned a %.100s", Py_TYPE(sock)->tp_name);
        Py_DECREF(sock);
        return NULL;
    }
    if (t->sock != NULL) {
        Py_SETREF(sock, Py_NewRef(t->sock)); // meanwhile made by somebody else
        return sock;
    }
    if (t->open) {
        t->sock = Py_NewRef(sock);
        PyObject *res = PyObject_CallMethod(sock, "setblocking", "O", Py_False);
        Py_XDECREF(res);
        if (res == NULL) {
            Py_CLEAR(sock);
        }
        return sock;
    }
    PyObject *res = PyObject_CallMethod(sock, "close", NULL);
    Py_XDECREF(res);
    if (res == NULL) {
        Py_CLEAR(sock);
    }
    return sock;
}

/* An address: as it was remembered, or as the socket says; None if neither knows. */
static PyObject *
stream_address(StreamObj *s, const short_address *known, int own)
{
    PyObject *address = NULL;
    struct sockaddr_storage storage;
    if (known->length > 0) {
        address = address_object(&known->u.any, known->length);
    }
    else if (s->base.open) {
        socklen_t length = sizeof(storage);
        struct sockaddr *any = (struct sockaddr *)&storage;
        int fd = transport_descriptor(&s->base);
        int status = own ? getsockname(fd, any, &length) : getpeername(fd, any, &length);
        if (status == 0) {
            address = address_object(any, length);
        }
        else {
            Py_RETURN_NONE;
        }
    }
    else {
        Py_RETURN_NONE;
    }
    if (address == NULL && !PyErr_Occurred()) {
        PyObject *sock = stream_socket(s);
        address = sock == NULL ? NULL : PyObject_CallMethod(sock, own ? "getsockname" : "getpeername", NULL);
        Py_XDECREF(sock);
        if (address == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
            PyErr_Clear();
            address = Py_NewRef(Py_None);
        }
    }
    return address;
}

/* One of asyncio's three keys: made when it is first asked for.  NULL without an exception for any other. */
static PyObject *
stream_make_extra(StreamObj *s, PyObject *key)
{
    ctask_state *st = s->base.st;
    if (PyUnicode_Compare(key, st->str.peername) == 0) {
        return stream_address(s, &s->peer, 0);
    }
    if (PyUnicode_Compare(key, st->str.sockname) == 0) {
        return stream_address(s, &s->own, 1);
    }
    if (PyUnicode_Compare(key, st->str.socket) == 0) {
        PyObject *sock = stream_socket(s);
        PyObject *shown = sock == NULL ? NULL : PyObject_CallOneArg(st->TransportSocket, sock);
        Py_XDECREF(sock);
        return shown;
    }
    return NULL;
}

/* The dictionary, which whoever is called from now on may take from the transport. */
static PyObject *
stream_extra_dict(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (t->extra == NULL && (t->extra = PyDict_New()) == NULL) {
        return NULL;
    }
    if (!PyDict_Check(t->extra)) {
        PyErr_SetString(PyExc_TypeError, "the transport's _extra is no dict");
        return NULL;
    }
    return Py_NewRef(t->extra);
}

/* NULL without an exception if there is none. */
static PyObject *
stream_extra(StreamObj *s, PyObject *extra, PyObject *key)
{
    PyObject *value = Py_XNewRef(PyDict_GetItemWithError(extra, key));
    if (value != NULL || PyErr_Occurred() || !PyUnicode_Check(key)) {
        return value;
    }
    value = stream_make_extra(s, key);
    if (value != NULL && PyDict_SetItem(extra, key, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, /, name, default=None)\n--\n\n"
"Return what is known by that name: 'socket', 'peername', 'sockname'; else the default.\n\n"
"(asyncio.BaseTransport.get_extra_info)");

/* Tests put a function of theirs into asyncio.BaseTransport, where asyncio has the only one. */
static PyObject *
stream_get_extra_info_patched(StreamObj *s, PyObject *args, PyObject *kwargs)
{
    ctask_state *st = s->base.st;
    PyObject *super = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, st->StreamType, s, NULL);
    PyObject *found = super == NULL ? NULL : PyObject_GetAttr(super, st->str.get_extra_info);
    PyObject *value = found == NULL ? NULL : PyObject_Call(found, args, kwargs);
    Py_XDECREF(super);
    Py_XDECREF(found);
    return value;
}

static PyObject *
Stream_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs)
{
    ctask_state *st = ((StreamObj *)self)->base.st;
    if (UNLIKELY(_PyType_Lookup((PyTypeObject *)st->stock_Transport, st->str.get_extra_info) !=
                 st->stock_get_extra_info)) {
        return stream_get_extra_info_patched((StreamObj *)self, args, kwargs);
    }
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
    }
    LoopObj *loop = ((StreamObj *)self)->base.loop;
    if (UNLIKELY(loop != NULL && loop->corked == self)) {
        stream_uncork(loop); // whoever has the socket may wait for the answer
    }
    PyObject *extra = stream_extra_dict((StreamObj *)self);
    PyObject *value = extra == NULL ? NULL : stream_extra((StreamObj *)self, extra, name);
    Py_XDECREF(extra);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(fallback);
}

static PyObject *
Stream_get_extra(PyObject *self, void *Py_UNUSED(closure))
{
    StreamObj *s = (StreamObj *)self;
    PyObject *keys[] = {s->base.st->str.peername, s->base.st->str.sockname, s->base.st->str.socket};
    PyObject *extra = stream_extra_dict(s);
    for (int i = 0; extra != NULL && i < 3; i++) {
        Py_XDECREF(stream_extra(s, extra, keys[i]));
        if (PyErr_Occurred()) {
            Py_CLEAR(extra);
        }
    }
    return extra;
}

/* ---- sendfile ---- */

static PyObject *
Stream_make_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    if (s->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (s->base.loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
        return NULL;
    }
    PyObject *future = future_create(s->base.st, (PyObject *)s->base.loop);
    if (future == NULL) {
        return NULL;
    }
    s->empty_waiter = Py_NewRef(future);
    if (s->base.queue.length == 0 && future_set_result((FutureObj *)future, s->base.st, Py_None) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

static PyObject *
Stream_reset_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((StreamObj *)self)->empty_waiter);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lend_doc,
"_lend($self, /)\n--\n\n"
"Stop watching the descriptor and return its socket: somebody else is going to use it until _take_back().");

static PyObject *
Stream_lend(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    if (s->base.loop != NULL && s->base.begun) {
        watch_disown(s->base.loop, s->base.fd, self);
    }
    return stream_socket(s);
}

PyDoc_STRVAR(take_back_doc, "_take_back($self, /)\n--\n\nWatch the descriptor again.");

static PyObject *
Stream_take_back(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    if (t->loop == NULL || t->conn_lost || !t->open) {
        Py_RETURN_NONE;
    }
    int err = transport_own(t, stream_read_ready);
    if (err == 0 && (t->paused || s->eof_seen || t->closing)) {
        watch_forget(t->loop, t->fd, POLL_READ, (PyObject *)t);
    }
    if (err == 0 && t->queue.length > 0) {
        err = transport_watch(t, POLL_WRITE, stream_write_ready);
    }
    if (err < 0) {
        return poll_raise(err);
    }
    Py_RETURN_NONE;
}

/* ---- what asyncio's own code and a few libraries look at ---- */

static PyObject *
Stream_read_ready_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)Py_XNewRef((PyObject *)((TransportObj *)self)->loop);
    int status = stream_read_ready(loop, self);
    Py_XDECREF(loop);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_write_ready_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if ((t->conn_lost ? stream_lost_ready : stream_write_ready)(t->loop, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Stream_get_sock(PyObject *self, void *Py_UNUSED(closure))
{
    StreamObj *s = (StreamObj *)self;
    if (!s->base.open) {
        Py_RETURN_NONE;
    }
    return stream_socket(s);
}

#define BASE(field) (void *)(offsetof(StreamObj, base) + offsetof(TransportObj, field))

static PyGetSetDef stream_getset[] = {
    {"_extra", Stream_get_extra, NULL, NULL, NULL},
    {"_sock", Stream_get_sock, NULL, NULL, NULL},
    {"_loop", Transport_get_object, NULL, NULL, BASE(loop)},
    {"_protocol", Transport_get_object, NULL, NULL, BASE(protocol)},
    {"_server", Transport_get_object, NULL, NULL, BASE(server)},
    {"_empty_waiter", Transport_get_object, NULL, NULL, (void *)offsetof(StreamObj, empty_waiter)},
    {"_closing", Transport_get_flag, NULL, NULL, BASE(closing)},
    {"_paused", Transport_get_flag, NULL, NULL, BASE(paused)},
    {"_protocol_paused", Transport_get_flag, NULL, NULL, BASE(protocol_paused)},
    {"_high_water", Transport_get_size, NULL, NULL, BASE(high_water)},
    {"_low_water", Transport_get_size, NULL, NULL, BASE(low_water)},
    {"_eof", Transport_get_flag, NULL, NULL, (void *)offsetof(StreamObj, eof_sent)},
    {"_sock_fd", Transport_get_int, NULL, NULL, BASE(fd)},
    {"_conn_lost", Transport_get_int, NULL, NULL, BASE(conn_lost)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stream_members[] = {
    {"__weaklistoffset__",
     Py_T_PYSSIZET,
     offsetof(StreamObj, base) + offsetof(TransportObj, weakrefs),
     Py_READONLY,
     NULL},
    {"__dictoffset__",
     Py_T_PYSSIZET,
     offsetof(StreamObj, base) + offsetof(TransportObj, dict),
     Py_READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
stream_repr(PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    TransportObj *t = &s->base;
    PyObject *name = PyType_GetName(Py_TYPE(self)), *repr = NULL;
    if (name == NULL) {
        return NULL;
    }
    const char *state = !t->open ? " closed" : t->closing ? " closing" : "";
    if (t->loop != NULL && t->loop->is_open) {
        repr = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>",
                                    name,
                                    state,
                                    t->fd,
                                    t->begun && is_reading(s) ? "polling" : "idle",
                                    t->queue.length > 0 ? "polling" : "idle",
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
stream_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((StreamObj *)self)->waiter);
    Py_VISIT(((StreamObj *)self)->empty_waiter);
    return transport_traverse(self, visit, arg);
}

static int
stream_clear(PyObject *self)
{
    Py_CLEAR(((StreamObj *)self)->waiter);
    Py_CLEAR(((StreamObj *)self)->empty_waiter);
    transport_clear((TransportObj *)self);
    return 0;
}

static void
stream_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (((TransportObj *)self)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    Py_TRASHCAN_BEGIN(self, stream_dealloc); /* anything may be its protocol: another transport */
    (void)stream_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

PyDoc_STRVAR(pause_reading_doc,
"pause_reading($self, /)\n--\n\nDo not call data_received() until resume_reading().  (asyncio.ReadTransport)");
PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\nGive the protocol data again.  (asyncio.ReadTransport)");
PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if the transport receives data.  (asyncio.ReadTransport)");
PyDoc_STRVAR(is_closing_doc,
"is_closing($self, /)\n--\n\nReturn True if the transport is closing or closed.  (asyncio.BaseTransport)");
PyDoc_STRVAR(size_doc,
"get_write_buffer_size($self, /)\n--\n\nReturn how many bytes wait to be sent.  (asyncio.WriteTransport)");
PyDoc_STRVAR(limits_doc,
"get_write_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.  (asyncio.WriteTransport)");
PyDoc_STRVAR(set_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set at how many waiting bytes the protocol's pause_writing() and resume_writing() are called.\n\n"
"Raises ValueError unless high >= low >= 0.  (asyncio.WriteTransport)");
PyDoc_STRVAR(can_write_eof_doc, "can_write_eof($self, /)\n--\n\nReturn True.  (asyncio.WriteTransport)");
PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Stop reading, send what waits, then call the protocol's connection_lost(None).  (asyncio.BaseTransport)");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Close at once: what waits to be sent is lost.  (asyncio.WriteTransport)");
PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive data and events to another protocol.  (asyncio.BaseTransport)");
PyDoc_STRVAR(get_protocol_doc, "get_protocol($self, /)\n--\n\nReturn the protocol.  (asyncio.BaseTransport)");

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS
#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

static PyMethodDef stream_methods[] = {
    {"write", FAST(Stream_write), write_doc},
    {"writelines", FAST(Stream_writelines), writelines_doc},
    {"write_eof", Stream_write_eof, METH_NOARGS, write_eof_doc},
    {"can_write_eof", Stream_can_write_eof, METH_NOARGS, can_write_eof_doc},
    {"pause_reading", Stream_pause_reading, METH_NOARGS, pause_reading_doc},
    {"resume_reading", Stream_resume_reading, METH_NOARGS, resume_reading_doc},
    {"is_reading", Transport_is_reading, METH_NOARGS, is_reading_doc},
    {"is_closing", Transport_is_closing, METH_NOARGS, is_closing_doc},
    {"get_write_buffer_size", Stream_get_write_buffer_size, METH_NOARGS, size_doc},
    {"get_write_buffer_limits", Transport_get_write_buffer_limits, METH_NOARGS, limits_doc},
    {"set_write_buffer_limits", KEYWORDS(Stream_set_write_buffer_limits), set_limits_doc},
    {"close", Stream_close, METH_NOARGS, close_doc},
    {"abort", Stream_abort, METH_NOARGS, abort_doc},
    {"set_protocol", FAST(Stream_set_protocol), set_protocol_doc},
    {"get_protocol", Transport_get_protocol, METH_NOARGS, get_protocol_doc},
    {"get_extra_info", KEYWORDS(Stream_get_extra_info), get_extra_info_doc},
    {"_set_write_buffer_limits", KEYWORDS(Stream_set_limits), set_limits_doc},
    {"_maybe_pause_protocol", Stream_maybe_pause, METH_NOARGS, NULL},
    {"_maybe_resume_protocol", Stream_maybe_resume, METH_NOARGS, NULL},
    {"_force_close", Stream_force_close, METH_O, NULL},
    {"_fatal_error", KEYWORDS(Stream_fatal_error), NULL},
    {"_call_connection_lost", Transport_call_connection_lost, METH_O, NULL},
    {"_make_empty_waiter", Stream_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", Stream_reset_empty_waiter, METH_NOARGS, NULL},
    {"_lend", Stream_lend, METH_NOARGS, lend_doc},
    {"_take_back", Stream_take_back, METH_NOARGS, take_back_doc},
    {"_read_ready", Stream_read_ready_method, METH_NOARGS, NULL},
    {"_write_ready", Stream_write_ready_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(stream_doc,
"The transport of a connected stream socket.\n\n"
"Made by the loop; an asyncio.Transport.");

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_repr, stream_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {Py_tp_members, stream_members},
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "ctask.StreamTransport",
    .basicsize = sizeof(StreamObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};

/* ---- the loop's hook ---- */

static int
int_attribute(PyObject *obj, const char *name, int *value)
{
    PyObject *number = PyObject_GetAttrString(obj, name);
    if (number == NULL) {
        return -1;
    }
    long n = PyLong_AsLong(number);
    Py_DECREF(number);
    *value = (int)n;
    return n == -1 && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(make_stream_doc,
"_make_stream($self, sock, protocol, waiter=None, extra=None, server=None, context=None, /)\n--\n\n"
"Return the transport of a connected stream socket, which it owns from now on.");

static PyObject *
Loop_make_stream(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2 || nargs > 6) {
        PyErr_Format(PyExc_TypeError, "_make_stream expected 2 to 6 arguments, got %zd", nargs);
        return NULL;
    }
    if (!socketobj_is_plain(((LoopObj *)self)->st, args[0])) {
        PyErr_SetString(PyExc_TypeError, "a plain socket.socket is expected");
        return NULL;
    }
    int family, type, proto, fd = PyObject_AsFileDescriptor(args[0]);
    if (fd < 0 || int_attribute(args[0], "family", &family) < 0 || int_attribute(args[0], "type", &type) < 0 ||
        int_attribute(args[0], "proto", &proto) < 0) {
        return NULL;
    }
    if (nargs > 5 && args[5] != Py_None && !PyContext_CheckExact(args[5])) {
        PyErr_SetString(PyExc_TypeError, "a context is expected");
        return NULL;
    }
    if (family == AF_INET || family == AF_INET6) {
        int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    return (PyObject *)stream_create((LoopObj *)self,
                                     fd,
                                     family,
                                     type,
                                     proto,
                                     args[0],
                                     args[1],
                                     nargs > 2 ? args[2] : NULL,
                                     nargs > 3 ? args[3] : NULL,
                                     nargs > 4 ? args[4] : NULL,
                                     nargs > 5 ? args[5] : NULL,
                                     NULL,
                                     0);
}

static PyMethodDef stream_loop_methods[] = {
    {"_make_stream", (PyCFunction)(void (*)(void))Loop_make_stream, METH_FASTCALL, make_stream_doc},
    {NULL, NULL, 0, NULL},
};

PART int
stream_setup(PyObject *module, ctask_state *st)
{
    if (((PyTypeObject *)st->stock_Transport)->tp_basicsize != offsetof(TransportObj, dict)) {
        PyErr_SetString(PyExc_ImportError,
                        "ctask was built for another asyncio: its transports have other slots");
        return -1;
    }
    st->stock_get_extra_info = PyObject_GetAttr(st->stock_Transport, st->str.get_extra_info);
    if (st->stock_get_extra_info == NULL ||
        add_type(module, "StreamTransport", &st->StreamType, &stream_spec, st->stock_Transport) < 0) {
        return -1;
    }
    PyObject *type = (PyObject *)st->StreamType;
    PyObject *mode = PyObject_GetAttrString(st->SendfileMode, "TRY_NATIVE");
    int status = mode == NULL || PyObject_SetAttrString(type, "_sendfile_compatible", mode) < 0 ||
                         PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0
                     ? -1
                     : 0;
    Py_XDECREF(mode);
    return status < 0 ? -1 : add_methods(st->LoopType, stream_loop_methods);
}
