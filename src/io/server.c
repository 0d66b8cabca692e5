/* Accepting connections: what stands behind a server's listening socket.

   Each time the kernel tells of connections as many are accepted as are there, up to the backlog, and get
   their protocol and transport at once; asyncio makes a task for each.  Where somebody could tell (debug
   mode, TLS, a loop that overrides a step, a socket with methods of its own), asyncio's own way is taken; see
   EventLoop._start_serving(), and accept_by_asyncio() for what changes later. */

#include "io/stream.h"

#include <netinet/tcp.h>

typedef struct {
    PyObject_HEAD
    PyObject *factory; // owned; makes a protocol
    PyObject *sock;    // owned; the listening socket
    PyObject *server;  // owned; asyncio's Server
    PyObject *context; // owned; in which asyncio's callback would run
    PyObject *given;   // owned; the context of which each connection gets a copy, NULL: of the above
    PyObject *retry;   // owned; the arguments of _start_serving(), for after a shortage
    int fd;            // as it was when we began to watch
    int backlog;
    int family;
    int type;
    int proto;
} AcceptorObj;

/* Not stopped by what was called? */
static int
acceptor_watches(LoopObj *loop, AcceptorObj *a)
{
    poll_state *poll = &loop->poll;
    return a->fd < poll->n_slots && poll->slots[a->fd].reader == (PyObject *)a && a->sock != NULL;
}

/* Have _start_serving() called again in a while, and stop until then. */
static int
pause_serving(LoopObj *loop, AcceptorObj *a)
{
    ctask_state *st = loop->st;
    PyObject *later = NULL;
    PyObject *start = PyObject_GetAttr((PyObject *)loop, st->str._start_serving);
    PyObject *call_later = start == NULL ? NULL : PyObject_GetAttr((PyObject *)loop, st->str.call_later);
    PyObject *constants = call_later == NULL ? NULL : PyImport_ImportModule("asyncio.constants");
    PyObject *delay = constants == NULL ? NULL : PyObject_GetAttrString(constants, "ACCEPT_RETRY_DELAY");
    PyObject *arguments = delay == NULL ? NULL : PyTuple_Pack(2, delay, start);
    if (arguments != NULL) {
        Py_SETREF(arguments, PySequence_Concat(arguments, a->retry));
    }
    if (arguments != NULL) {
        later = PyObject_CallObject(call_later, arguments);
    }
    Py_XDECREF(arguments);
    Py_XDECREF(delay);
    Py_XDECREF(constants);
    Py_XDECREF(call_later);
    Py_XDECREF(start);
    if (later == NULL) {
        return -1; // and goes on serving
    }
    Py_DECREF(later);
    watch_forget(loop, a->fd, POLL_READ, (PyObject *)a);
    return 0;
}

/* No descriptors or memory: say so, and pause. */
static int
out_of_resources(LoopObj *loop, AcceptorObj *a, int err)
{
    ctask_state *st = loop->st;
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    PyObject *exc = PyErr_GetRaisedException(), *res = NULL;
    PyObject *shown = PyObject_CallOneArg(st->TransportSocket, a->sock);
    PyObject *report = shown == NULL ? NULL
                                     : Py_BuildValue("{s:s,s:O,s:O}",
                                                     "message",
                                                     "socket.accept() out of system resource",
                                                     "exception",
                                                     exc,
                                                     "socket",
                                                     shown);
    if (report != NULL) {
        res = loop_tell_handler(st, (PyObject *)loop, report, exc);
    }
    int failed = res == NULL;
    Py_XDECREF(res);
    Py_XDECREF(report);
    Py_XDECREF(shown);
    Py_DECREF(exc);
    return failed ? -1 : acceptor_watches(loop, a) ? pause_serving(loop, a) : 0;
}

/* The socket has got another accept(), or what is accepted another class: this turn is asyncio's. */
static int
accept_by_asyncio(LoopObj *loop, AcceptorObj *a, int Py_UNUSED(err))
{
    PyObject *accept = PyObject_GetAttrString((PyObject *)loop, "_accept_connection");
    PyObject *res = accept == NULL ? NULL : PyObject_CallObject(accept, a->retry);
    Py_XDECREF(accept);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* In the server's context, which serving goes on in afterwards. */
static int
in_context(LoopObj *loop, AcceptorObj *a, int (*function)(LoopObj *, AcceptorObj *, int), int err)
{
    if (PyContext_Enter(a->context) < 0) {
        return -1;
    }
    int status = function(loop, a, err);
    PyObject *raised = PyErr_GetRaisedException();
    (void)PyContext_Exit(a->context);
    PyErr_SetRaisedException(raised);
    return status;
}

/* Make a connection's protocol and transport, in a context of its own. */
static int
make_connection(LoopObj *loop, AcceptorObj *a, int fd, const struct sockaddr *peer, socklen_t peer_length)
{
    PyObject *context = PyContext_Copy(a->given == NULL ? a->context : a->given);
    PyObject *protocol = NULL, *stream = NULL;
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return -1;
    }
    protocol = PyObject_CallNoArgs(a->factory);
    if (protocol != NULL) {
        stream = (PyObject *)stream_create(loop,
                                           fd,
                                           a->family,
                                           a->type,
                                           a->proto,
                                           NULL,
                                           protocol,
                                           NULL,
                                           NULL,
                                           a->server,
                                           context,
                                           peer,
                                           peer_length);
        Py_DECREF(protocol);
    }
    PyObject *raised = PyErr_GetRaisedException();
    (void)PyContext_Exit(context);
    PyErr_SetRaisedException(raised);
    Py_DECREF(context);
    Py_XDECREF(stream);
    return stream == NULL ? -1 : 0;
}

/* What goes wrong ends this connection only.  As with asyncio nobody hears of it but in debug mode (which was
   set after the server had started; before, asyncio's own code accepts). */
static int
serve(LoopObj *loop, AcceptorObj *a, int fd, const struct sockaddr *peer, socklen_t peer_length)
{
    if (LIKELY(make_connection(loop, a, fd, peer, peer_length) == 0)) {
        return 0;
    }
    socketobj_close(fd);
    if (raised_is_exit()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException(), *report = NULL, *res = NULL;
    if (LIKELY(!loop->debug)) {
        Py_DECREF(exc);
        return 0;
    }
    report = Py_BuildValue(
        "{s:s,s:O}", "message", "Error on transport creation for incoming connection", "exception", exc);
    if (report != NULL) {
        res = loop_tell_handler(loop->st, (PyObject *)loop, report, exc);
    }
    Py_XDECREF(report);
    Py_DECREF(exc);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* One connection: 1, 0 if there is none, -1. */
static int
accept_one(LoopObj *loop, AcceptorObj *a)
{
    socket_address from;
    int listener = socket_int(a->sock, loop->st->io.sockets.fd), fd = -1;
    if (LIKELY(listener == a->fd)) {
        fd = socketobj_accept(listener, &from);
    }
    else {
        /* Closed behind the server's back; the kernel tells as long as a duplicate is open. */
        watch_stop(loop, a->fd, POLL_READ, (PyObject *)a);
        errno = EBADF;
    }
    if (LIKELY(fd >= 0)) {
        return serve(loop, a, fd, &from.u.any, from.length) < 0 ? -1 : 1;
    }
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return 0;
    case ECONNABORTED:
        return 1;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return in_context(loop, a, out_of_resources, errno) < 0 ? -1 : 0;
    default:
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
}

/* One more than the backlog, as asyncio from 3.14 on; before, a backlog of 0 has it busy with accepting none. */
static int
accept_ready(LoopObj *loop, PyObject *self)
{
    AcceptorObj *a = (AcceptorObj *)self;
    ctask_state *st = loop->st;
    int status = 1, left = a->backlog < 0 ? 0 : a->backlog;
    do {
        if (!acceptor_watches(loop, a)) {
            return 0;
        }
        if (UNLIKELY(!socketobj_is_plain(st, a->sock) || socketobj_is_replaced(st))) {
            return in_context(loop, a, accept_by_asyncio, 0);
        }
        status = accept_one(loop, a);
    } while (status > 0 && left-- > 0);
    return status < 0 ? -1 : 0;
}

static PyObject *
Acceptor_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *server = ((AcceptorObj *)self)->server;
    if (server == NULL) {
        Py_RETURN_NONE; // the collector has taken it
    }
    PyObject *loop = PyObject_CallMethod(server, "get_loop", NULL);
    LoopObj *ours = loop == NULL ? NULL : loop_cast(loop);
    int status = ours == NULL ? -1 : accept_ready(ours, self);
    if (loop != NULL && ours == NULL) {
        PyErr_SetString(PyExc_TypeError, "the server's loop is none of ctask's");
    }
    Py_XDECREF(loop);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
acceptor_traverse(PyObject *self, visitproc visit, void *arg)
{
    AcceptorObj *a = (AcceptorObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(a->factory);
    Py_VISIT(a->sock);
    Py_VISIT(a->server);
    Py_VISIT(a->context);
    Py_VISIT(a->given);
    Py_VISIT(a->retry);
    return 0;
}

static int
acceptor_clear(PyObject *self)
{
    AcceptorObj *a = (AcceptorObj *)self;
    Py_CLEAR(a->factory);
    Py_CLEAR(a->sock);
    Py_CLEAR(a->server);
    Py_CLEAR(a->retry);
    Py_CLEAR(a->given);
    Py_CLEAR(a->context);
    return 0;
}

static void
acceptor_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)acceptor_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef acceptor_methods[] = {
    {"_read_ready", Acceptor_read_ready, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot acceptor_slots[] = {
    {Py_tp_dealloc, acceptor_dealloc},
    {Py_tp_traverse, acceptor_traverse},
    {Py_tp_clear, acceptor_clear},
    {Py_tp_methods, acceptor_methods},
    {0, NULL},
};

static PyType_Spec acceptor_spec = {
    .name = "ctask._ctask.Acceptor",
    .basicsize = sizeof(AcceptorObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = acceptor_slots,
};

PyDoc_STRVAR(accept_streams_doc,
"_accept_streams($self, factory, sock, server, backlog, retry, context=None, /)\n--\n\n"
"Accept the connections of a listening socket; `retry` is what _start_serving() is called with after a\n"
"shortage of descriptors.");

static PyObject *
Loop_accept_streams(PyObject *self, PyObject *args)
{
    LoopObj *loop = (LoopObj *)self;
    ctask_state *st = loop->st;
    PyObject *factory, *sock, *server, *retry, *context = Py_None;
    int backlog;
    if (!PyArg_ParseTuple(
            args, "OOOiO!|O", &factory, &sock, &server, &backlog, &PyTuple_Type, &retry, &context)) {
        return NULL;
    }
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_SetString(PyExc_TypeError, "a context is expected");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0 || loop_check_open(loop) < 0) {
        return NULL;
    }
    AcceptorObj *a = (AcceptorObj *)st->AcceptorType->tp_alloc(st->AcceptorType, 0);
    if (a == NULL) {
        return NULL;
    }
    a->factory = Py_NewRef(factory);
    a->sock = Py_NewRef(sock);
    a->server = Py_NewRef(server);
    a->retry = Py_NewRef(retry);
    a->fd = fd;
    a->backlog = backlog;
    a->given = context == Py_None ? NULL : Py_NewRef(context);
    a->context = PyContext_CopyCurrent();
    socklen_t length = sizeof(int);
    if (a->context == NULL) {
        goto failed;
    }
    int one = 1, err = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &a->family, &length) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &a->type, &length) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &a->proto, &length) < 0) {
        err = -errno;
    }
    if (err == 0 && (a->family == AF_INET || a->family == AF_INET6)) {
        /* Linux gives it to each accepted socket. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    if (err == 0) {
        err = watch_object(loop, fd, POLL_READ, (PyObject *)a, accept_ready);
    }
    if (err < 0) {
        poll_raise(err);
        goto failed;
    }
    Py_DECREF(a); // the poller holds it
    Py_RETURN_NONE;

failed:
    Py_DECREF(a);
    return NULL;
}

static PyMethodDef server_loop_methods[] = {
    {"_accept_streams", Loop_accept_streams, METH_VARARGS, accept_streams_doc},
    {NULL, NULL, 0, NULL},
};

PART int
server_setup(PyObject *module, ctask_state *st)
{
    (void)module;
    if (add_type(module, NULL, &st->AcceptorType, &acceptor_spec, NULL) < 0) {
        return -1;
    }
    /* From 3.13 on a server knows its connections, before it counts them. */
    PyObject *count = NULL, *code = PyObject_GetAttrString(st->Server, "_attach");
    if (code != NULL) {
        Py_SETREF(code, PyObject_GetAttrString(code, "__code__"));
    }
    if (code != NULL) {
        count = PyObject_GetAttrString(code, "co_argcount");
        Py_DECREF(code);
    }
    if (count == NULL) {
        return -1;
    }
    st->io.server_knows_clients = PyLong_AsLong(count) > 1;
    Py_DECREF(count);
    return add_methods(st->LoopType, server_loop_methods);
}
