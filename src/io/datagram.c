/* The transport of datagram endpoints: UDP and Unix.

   Here it is made, and here are its type and methods; sending is in datagram_send.c, receiving in datagram_receive.c. */

#include "io/datagram_parts.h"

/* ---- what asyncio's own code and a few libraries look at ---- */

static PyGetSetDef datagram_getset[] = {
    {"_sock", Transport_get_object, NULL, NULL, TRANSPORT_FIELD(sock)},
    {"_address", Transport_get_object, NULL, NULL, (void *)offsetof(DatagramObj, address)},
    {"_sock_fd", Transport_get_int, NULL, NULL, TRANSPORT_FIELD(fd)},
    {"_conn_lost", Transport_get_int, NULL, NULL, TRANSPORT_FIELD(conn_lost)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef datagram_members[] = {
    TRANSPORT_MEMBERS,
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
datagram_repr(PyObject *self)
{
    TransportObj *t = (TransportObj *)self;
    poll_slot *slot = t->loop != NULL && t->fd < t->loop->poll.n_slots ? &t->loop->poll.slots[t->fd] : NULL;
    return transport_repr_sides(
        self, slot != NULL && slot->reader == self, slot != NULL && slot->writer == self);
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
    transport_dealloc(self);
}

PyDoc_STRVAR(sendto_doc,
"sendto($self, /, data, addr=None)\n--\n\n"
"Send a datagram: at once if the kernel takes it, or else later.\n\n"
"Without `addr` it goes to the remote address that the endpoint was made with.  Raises TypeError if `data` is\n"
"not bytes, a bytearray or a memoryview, ValueError for another address than that of the endpoint; errors of\n"
"the network go to the protocol's error_received().  (asyncio.DatagramTransport.sendto)");

PyDoc_STRVAR(datagram_pause_doc,
"pause_reading($self, /)\n--\n\nDo not call datagram_received() until resume_reading().");
PyDoc_STRVAR(datagram_resume_doc, "resume_reading($self, /)\n--\n\nGive the protocol datagrams again.");
PyDoc_STRVAR(datagram_is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if the transport receives datagrams.");
PyDoc_STRVAR(datagram_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Return how many bytes wait to be sent, with 8 for each datagram from Python 3.13 on.");
PyDoc_STRVAR(datagram_close_doc,
"close($self, /)\n--\n\n"
"Stop receiving, send what waits, then call the protocol's connection_lost(None).  (asyncio.BaseTransport)");
PyDoc_STRVAR(datagram_abort_doc,
"abort($self, /)\n--\n\nClose at once: what waits to be sent is lost.  (asyncio.DatagramTransport)");
PyDoc_STRVAR(datagram_set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive events to another protocol.  (asyncio.BaseTransport)");

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))Datagram_sendto, METH_FASTCALL | METH_KEYWORDS, sendto_doc},
    {"pause_reading", Transport_pause_reading, METH_NOARGS, datagram_pause_doc},
    {"resume_reading", Transport_resume_reading, METH_NOARGS, datagram_resume_doc},
    {"is_reading", Transport_is_reading, METH_NOARGS, datagram_is_reading_doc},
    {"get_write_buffer_size", Transport_get_write_buffer_size, METH_NOARGS, datagram_size_doc},
    {"close", Transport_close, METH_NOARGS, datagram_close_doc},
    {"abort", Transport_abort, METH_NOARGS, datagram_abort_doc},
    {"set_protocol",
     (PyCFunction)(void (*)(void))Transport_set_protocol,
     METH_FASTCALL | METH_KEYWORDS,
     datagram_set_protocol_doc},
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

static int
fill_extra(DatagramObj *d, PyObject *sock, PyObject *extra)
{
    ctask_state *st = d->base.st;
    d->base.extra = extra == NULL || extra == Py_None ? PyDict_New() : transport_copy_extra(extra);
    if (d->base.extra == NULL ||
        set_extra(d, st->str.socket, PyObject_CallOneArg(st->TransportSocket, sock)) < 0 ||
        set_extra(d, st->str.sockname, socketobj_address(sock, "getsockname")) < 0) {
        return -1;
    }
    int given = PyDict_Contains(d->base.extra, st->str.peername);
    if (given < 0 || (!given && set_extra(d, st->str.peername, socketobj_address(sock, "getpeername")) < 0)) {
        return -1;
    }
    PyObject *peer = PyDict_GetItemWithError(d->base.extra, st->str.peername);
    int connected = peer == NULL ? (PyErr_Occurred() ? -1 : 0) : PyObject_IsTrue(peer);
    d->connected = connected > 0;
    d->paired = connected == 0 && peer != NULL && peer != Py_None;
    return connected < 0 ? -1 : 0;
}

static const transport_kind datagram_kind = {datagram_read_ready, datagram_send_waiting, transport_end};

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
    PyObject *sock = args[0], *address = nargs > 2 ? args[2] : Py_None;
    int fd = socketobj_take(st, sock);
    int has_address = fd < 0 ? -1 : PyObject_IsTrue(address);
    if (has_address < 0) {
        return NULL;
    }
    DatagramObj *d = (DatagramObj *)st->DatagramType->tp_alloc(st->DatagramType, 0);
    if (d == NULL) {
        return NULL;
    }
    TransportObj *t = &d->base;
    transport_init(t, loop, &datagram_kind);
    t->fd = fd;
    d->family = socket_int(sock, st->io.sockets.family);
    d->address = has_address ? Py_NewRef(address) : NULL;
    d->waiter = nargs > 3 && args[3] != Py_None ? Py_NewRef(args[3]) : NULL;
    t->protocol = Py_NewRef(args[1]);
    t->context = context_copy(&st->base.contexts);
    if (t->context == NULL || fill_extra(d, sock, nargs > 4 ? args[4] : NULL) < 0 ||
        transport_check_protocol(st, args[1]) < 0 || transport_schedule(t) < 0) {
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
    if (status < 0 || transport_add_methods(st->DatagramType, 1) < 0) {
        return -1;
    }
    return add_methods(st->LoopType, datagram_loop_methods);
}
