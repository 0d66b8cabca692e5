/* The transport of stream sockets: TCP and Unix.

   Here it is made, and here are its type and methods; reading is in stream_read.c, writing in stream_write.c, what
   get_extra_info() tells in stream_info.c. */

#include "io/stream.h"

#include <netinet/tcp.h>

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

static const transport_kind stream_kind = {stream_read_ready, stream_send_waiting, stream_call_lost};

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
    transport_init(t, loop, &stream_kind);
    t->fd = fd;
    s->family = family;
    s->type = type;
    s->proto = proto;
    s->is_tcp = (family == AF_INET || family == AF_INET6) && type == SOCK_STREAM &&
                (proto == 0 || proto == IPPROTO_TCP);
    t->context = context == NULL || context == Py_None ? context_copy(&st->base.contexts) : Py_NewRef(context);
    if (t->context == NULL) {
        goto failed;
    }
    if (extra != NULL && extra != Py_None) {
        t->extra = transport_copy_extra(extra);
        if (t->extra == NULL) {
            goto failed;
        }
    }
    if (take_protocol(s, protocol) < 0 || (s->sink == NULL && transport_check_protocol(st, protocol) < 0)) {
        goto failed;
    }
    struct sockaddr_storage address;
    if (peer == NULL) {
        peer_length = sizeof(address);
        if (getpeername(fd, (struct sockaddr *)&address, &peer_length) == 0) {
            peer = (struct sockaddr *)&address;
        }
    }
    if (peer != NULL && stream_remember(s, &s->peer, st->str.peername, peer, peer_length) < 0) {
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
        if (t->loop == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
            goto failed;
        }
    }
    s->waiter = waiter == NULL || waiter == Py_None ? NULL : Py_NewRef(waiter);
    if (transport_schedule(t) < 0) {
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

/* ---- flow control ---- */

static PyObject *
Stream_resume_reading(PyObject *self, PyObject *ignored)
{
    StreamObj *s = (StreamObj *)self;
    if (!s->base.closing && s->base.paused) {
        s->eof_seen = 0; // whoever is the protocol now hears of it as well
    }
    return Transport_resume_reading(self, ignored);
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

/* ---- closing ---- */

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
    int err = transport_own(t);
    if (err < 0) {
        return poll_raise(err);
    }
    if (s->eof_seen) {
        transport_unwatch(t, POLL_READ);
    }
    Py_RETURN_NONE;
}

/* ---- what asyncio's own code and a few libraries look at ---- */

static PyGetSetDef stream_getset[] = {
    {"_extra", Stream_get_extra, NULL, NULL, NULL},
    {"_sock", Stream_get_sock, NULL, NULL, NULL},
    {"_server", Transport_get_object, NULL, NULL, TRANSPORT_FIELD(server)},
    {"_empty_waiter", Transport_get_object, NULL, NULL, (void *)offsetof(StreamObj, empty_waiter)},
    {"_high_water", Transport_get_size, NULL, NULL, TRANSPORT_FIELD(high_water)},
    {"_low_water", Transport_get_size, NULL, NULL, TRANSPORT_FIELD(low_water)},
    {"_eof", Transport_get_flag, NULL, NULL, (void *)offsetof(StreamObj, eof_sent)},
    {"_sock_fd", Transport_get_int, NULL, NULL, TRANSPORT_FIELD(fd)},
    {"_conn_lost", Transport_get_int, NULL, NULL, TRANSPORT_FIELD(conn_lost)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stream_members[] = {
    TRANSPORT_MEMBERS,
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
stream_repr(PyObject *self)
{
    StreamObj *s = (StreamObj *)self;
    return transport_repr_sides(self, s->base.begun && stream_is_reading(s), s->base.queue.length > 0);
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
    transport_dealloc(self);
}

PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Send bytes, a bytearray or a memoryview: at once as far as the kernel takes it, the rest later.\n\n"
"Raises TypeError for anything else, RuntimeError after write_eof().  (asyncio.WriteTransport.write)");
PyDoc_STRVAR(writelines_doc,
"writelines($self, /, list_of_data)\n--\n\n"
"Send the chunks of an iterable, without joining them.\n\n"
"Raises RuntimeError after write_eof().  (asyncio.WriteTransport.writelines)");
PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Close the writing side once everything is sent.  (asyncio.WriteTransport.write_eof)");
PyDoc_STRVAR(pause_reading_doc,
"pause_reading($self, /)\n--\n\nDo not call data_received() until resume_reading().  (asyncio.ReadTransport)");
PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\nGive the protocol data again.  (asyncio.ReadTransport)");
PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if the transport receives data.  (asyncio.ReadTransport)");
PyDoc_STRVAR(size_doc,
"get_write_buffer_size($self, /)\n--\n\nReturn how many bytes wait to be sent.  (asyncio.WriteTransport)");
PyDoc_STRVAR(can_write_eof_doc, "can_write_eof($self, /)\n--\n\nReturn True.  (asyncio.WriteTransport)");
PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Stop reading, send what waits, then call the protocol's connection_lost(None).  (asyncio.BaseTransport)");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Close at once: what waits to be sent is lost.  (asyncio.WriteTransport)");
PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive data and events to another protocol.  (asyncio.BaseTransport)");
PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, /, name, default=None)\n--\n\n"
"Return what is known by that name: 'socket', 'peername', 'sockname'; else the default.\n\n"
"(asyncio.BaseTransport.get_extra_info)");

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS
#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

static PyMethodDef stream_methods[] = {
    {"write", FAST(Stream_write), write_doc},
    {"writelines", FAST(Stream_writelines), writelines_doc},
    {"write_eof", Stream_write_eof, METH_NOARGS, write_eof_doc},
    {"can_write_eof", Stream_can_write_eof, METH_NOARGS, can_write_eof_doc},
    {"pause_reading", Transport_pause_reading, METH_NOARGS, pause_reading_doc},
    {"resume_reading", Stream_resume_reading, METH_NOARGS, resume_reading_doc},
    {"is_reading", Transport_is_reading, METH_NOARGS, is_reading_doc},
    {"get_write_buffer_size", Transport_get_write_buffer_size, METH_NOARGS, size_doc},
    {"close", Transport_close, METH_NOARGS, close_doc},
    {"abort", Transport_abort, METH_NOARGS, abort_doc},
    {"set_protocol", FAST(Stream_set_protocol), set_protocol_doc},
    {"get_extra_info", KEYWORDS(Stream_get_extra_info), get_extra_info_doc},
    {"_set_write_buffer_limits", KEYWORDS(Transport_set_limits), NULL},
    {"_maybe_pause_protocol", Stream_maybe_pause, METH_NOARGS, NULL},
    {"_maybe_resume_protocol", Stream_maybe_resume, METH_NOARGS, NULL},
    {"_force_close", Stream_force_close, METH_O, NULL},
    {"_fatal_error", KEYWORDS(Stream_fatal_error), NULL},
    {"_make_empty_waiter", Stream_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", Stream_reset_empty_waiter, METH_NOARGS, NULL},
    {"_lend", Stream_lend, METH_NOARGS, lend_doc},
    {"_take_back", Stream_take_back, METH_NOARGS, take_back_doc},
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
    ctask_state *st = ((LoopObj *)self)->st;
    int fd = socketobj_take(st, args[0]);
    if (fd < 0) {
        return NULL;
    }
    int family = socket_int(args[0], st->io.sockets.family);
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
                                     socket_int(args[0], st->io.sockets.type),
                                     socket_int(args[0], st->io.sockets.proto),
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
        add_type(module, "StreamTransport", &st->StreamType, &stream_spec, st->stock_Transport) < 0 ||
        transport_add_methods(st->StreamType, 1) < 0) {
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
