/* The transports of connect_read_pipe() and connect_write_pipe(): pipes, sockets and character devices as
   files.

   They stand on transport.c and differ from streams in what they own: one side of a descriptor, whose other
   side another transport may own (a terminal is often opened twice).  So they are told by level and watch
   only their side.  A writing one watches the reading side as well where that tells when the reader hangs
   up.

   Here they are made, and here are their types; what they do is in pipe_read.c, pipe_write.c and pipe_file.c. */

#include "io/pipe_parts.h"

#include <limits.h>
#include <sys/stat.h>

/* ---- making one ---- */

/* The file's descriptor, made non-blocking; -1 unless it is of a kind that can be waited for. */
static int
pipe_descriptor(PipeObj *p, PyObject *file)
{
    PyObject *number = PyObject_CallMethodNoArgs(file, p->base.st->str.fileno);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    struct stat status;
    if (fd < 0 || fd > INT_MAX || fstat((int)fd, &status) < 0) {
        errno = fd < 0 || fd > INT_MAX ? EBADF : errno;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode) && !S_ISCHR(status.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        p->writes ? "Pipe transport is only for pipes, sockets and character devices"
                                  : "Pipe transport is for pipes/sockets only.");
        return -1;
    }
    p->sees_hangup = p->writes && !S_ISCHR(status.st_mode);
    return blocking_take(&p->file, p->base.loop, (int)fd, &status) < 0 ? -1 : (int)fd;
}

static const transport_kind pipe_kind = {pipe_read_ready, pipe_send_waiting, transport_end};

static PyObject *
pipe_create(LoopObj *loop, PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pipe", "protocol", "waiter", "extra", NULL};
    PyObject *file, *protocol, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO", names, &file, &protocol, &waiter, &extra)) {
        return NULL;
    }
    ctask_state *st = loop->st;
    PipeObj *p = (PipeObj *)instance_alloc(type, 0);
    if (p == NULL) {
        return NULL;
    }
    TransportObj *t = &p->base;
    transport_init(t, loop, &pipe_kind);
    t->shared = &p->file;
    p->writes = type == st->WritePipeType;
    t->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    t->context = context_copy(&st->base.contexts);
    if (t->extra == NULL || t->context == NULL || PyObject_SetItem(t->extra, st->str.pipe, file) < 0 ||
        (t->fd = pipe_descriptor(p, file)) < 0) {
        goto failed;
    }
    t->protocol = Py_NewRef(protocol);
    p->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    if (transport_check_protocol(st, protocol) < 0 || transport_schedule(t) < 0) {
        goto failed;
    }
    t->sock = Py_NewRef(file);
    t->open = 1;
    blocking_keep(st, &p->file);
    PyObject_GC_Track(p);
    return (PyObject *)p;

failed:
    blocking_let_go(st, &p->file);
    transport_discard(t);
    return NULL;
}

/* ---- methods of both ---- */

#define PIPE(self) ((PipeObj *)(self))
#define NONE_UNLESS(failure) \
    if (failure) {           \
        return NULL;         \
    }                        \
    Py_RETURN_NONE

/* Who has closed the file himself says so by None; then there is nothing to warn of or to close. */
static int
Pipe_set_pipe(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    TransportObj *t = &PIPE(self)->base;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    if (value == Py_None) {
        if (t->loop != NULL) {
            transport_unwatch(t, POLL_READ);
            transport_unwatch(t, POLL_WRITE);
        }
        blocking_let_go(t->st, t->shared);
        t->open = 0;
        Py_CLEAR(t->sock);
    }
    else if (t->open) {
        Py_XSETREF(t->sock, Py_NewRef(value));
    }
    return 0;
}

static PyObject *
pipe_repr(PyObject *self)
{
    PipeObj *p = PIPE(self);
    TransportObj *t = &p->base;
    PyObject *rest;
    if (!t->open || t->loop == NULL || !t->loop->is_open) {
        rest = PyUnicode_FromString(t->open ? " open" : " closed");
    }
    else if (p->writes) {
        rest = PyUnicode_FromFormat(" %s bufsize=%zu", t->queue.length > 0 ? "polling" : "idle", t->queue.size);
    }
    else {
        rest = PyUnicode_FromString(t->begun && pipe_is_reading(p) ? " polling" : " idle");
    }
    return transport_repr(self, rest);
}

static int
pipe_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(PIPE(self)->waiter);
    return transport_traverse(self, visit, arg);
}

static int
pipe_clear(PyObject *self)
{
    Py_CLEAR(PIPE(self)->waiter);
    transport_clear((TransportObj *)self);
    return 0;
}

static void
pipe_dealloc(PyObject *self)
{
    transport_dealloc(self);
}

static PyGetSetDef pipe_getset[] = {
    {"_pipe", Transport_get_object, Pipe_set_pipe, NULL, TRANSPORT_FIELD(sock)},
    {"_fileno", Transport_get_int, NULL, NULL, TRANSPORT_FIELD(fd)},
    {"_high_water", Transport_get_size, NULL, NULL, TRANSPORT_FIELD(high_water)},
    {"_low_water", Transport_get_size, NULL, NULL, TRANSPORT_FIELD(low_water)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef pipe_members[] = {
    TRANSPORT_MEMBERS,
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(pipe_set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive data and events to another protocol.  (asyncio.BaseTransport)");

#define SET_PROTOCOL                                      \
    {"set_protocol",                                      \
     (PyCFunction)(void (*)(void))Transport_set_protocol, \
     METH_FASTCALL | METH_KEYWORDS,                       \
     pipe_set_protocol_doc}

#define SLOTS_OF_BOTH                                                                                     \
    {Py_tp_dealloc, pipe_dealloc}, {Py_tp_finalize, transport_finalize}, {Py_tp_traverse, pipe_traverse}, \
        {Py_tp_clear, pipe_clear}, {Py_tp_repr, pipe_repr}, {Py_tp_getset, pipe_getset},                  \
    {                                                                                                     \
        Py_tp_members, pipe_members                                                                       \
    }

/* ---- the reading one ---- */

PyDoc_STRVAR(pipe_pause_reading_doc,
"pause_reading($self, /)\n--\n\nDo not call data_received() until resume_reading().  (asyncio.ReadTransport)");

PyDoc_STRVAR(pipe_resume_reading_doc,
"resume_reading($self, /)\n--\n\nGive the protocol data again.  (asyncio.ReadTransport)");

PyDoc_STRVAR(pipe_is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if it is neither paused nor closing.  (asyncio.ReadTransport)");

PyDoc_STRVAR(pipe_read_close_doc,
"close($self, /)\n--\n\n"
"Stop reading, then call the protocol's connection_lost(None) and close the file.  (asyncio.BaseTransport)");

static PyMethodDef read_pipe_methods[] = {
    SET_PROTOCOL,
    {"pause_reading", Transport_pause_reading, METH_NOARGS, pipe_pause_reading_doc},
    {"resume_reading", Transport_resume_reading, METH_NOARGS, pipe_resume_reading_doc},
    {"is_reading", Transport_is_reading, METH_NOARGS, pipe_is_reading_doc},
    {"close", Transport_close, METH_NOARGS, pipe_read_close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(read_pipe_doc,
"The transport that loop.connect_read_pipe() makes.\n\n"
"Made by the loop; an asyncio.ReadTransport.");

static PyType_Slot read_pipe_slots[] = {
    {Py_tp_doc, (void *)read_pipe_doc},
    {Py_tp_methods, read_pipe_methods},
    SLOTS_OF_BOTH,
    {0, NULL},
};

static PyType_Spec read_pipe_spec = {
    .name = "ctask.ReadPipeTransport",
    .basicsize = sizeof(PipeObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = read_pipe_slots,
};

/* ---- the writing one ---- */

PyDoc_STRVAR(pipe_write_doc,
"write($self, /, data)\n--\n\n"
"Write bytes, a bytearray or a memoryview: at once as far as the kernel takes it, the rest later.\n\n"
"Raises AssertionError for anything else.  (asyncio.WriteTransport.write)");

static PyObject *
WritePipe_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *data = single_argument(self, "write", "data", args, nargs, kwnames);
    if (data == NULL) {
        return NULL;
    }
    NONE_UNLESS(pipe_write(PIPE(self), data) < 0);
}

PyDoc_STRVAR(pipe_write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Close the file once everything is written.  (asyncio.WriteTransport.write_eof)");

static PyObject *
WritePipe_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    NONE_UNLESS(pipe_write_eof(PIPE(self)) < 0);
}

PyDoc_STRVAR(pipe_can_write_eof_doc, "can_write_eof($self, /)\n--\n\nReturn True.  (asyncio.WriteTransport)");

static PyObject *
WritePipe_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(pipe_write_close_doc,
"close($self, /)\n--\n\n"
"Write what waits, then call the protocol's connection_lost(None) and close the file.\n"
"(asyncio.BaseTransport)");

PyDoc_STRVAR(pipe_abort_doc,
"abort($self, /)\n--\n\nClose at once: what waits to be written is lost.  (asyncio.WriteTransport)");

PyDoc_STRVAR(pipe_size_doc,
"get_write_buffer_size($self, /)\n--\n\nReturn how many bytes wait to be written.  (asyncio.WriteTransport)");

static PyMethodDef write_pipe_methods[] = {
    SET_PROTOCOL,
    {"write", (PyCFunction)(void (*)(void))WritePipe_write, METH_FASTCALL | METH_KEYWORDS, pipe_write_doc},
    {"write_eof", WritePipe_write_eof, METH_NOARGS, pipe_write_eof_doc},
    {"can_write_eof", WritePipe_can_write_eof, METH_NOARGS, pipe_can_write_eof_doc},
    {"close", WritePipe_write_eof, METH_NOARGS, pipe_write_close_doc},
    {"abort", Transport_abort, METH_NOARGS, pipe_abort_doc},
    {"get_write_buffer_size", Transport_get_write_buffer_size, METH_NOARGS, pipe_size_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(write_pipe_doc,
"The transport that loop.connect_write_pipe() makes.\n\n"
"Made by the loop; an asyncio.WriteTransport.");

static PyType_Slot write_pipe_slots[] = {
    {Py_tp_doc, (void *)write_pipe_doc},
    {Py_tp_methods, write_pipe_methods},
    SLOTS_OF_BOTH,
    {0, NULL},
};

static PyType_Spec write_pipe_spec = {
    .name = "ctask.WritePipeTransport",
    .basicsize = sizeof(PipeObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = write_pipe_slots,
};

/* ---- the loop's hooks ---- */

PyDoc_STRVAR(pipe_make_read_doc,
"_make_read_pipe_transport($self, pipe, protocol, waiter=None, extra=None)\n--\n\n"
"Return a transport that reads from a file, which it owns from now on.\n\n"
"Raises ValueError unless that is a pipe, a socket or a character device.\n"
"(What asyncio.loop.connect_read_pipe stands on.)");

static PyObject *
Loop_make_read_pipe_transport(PyObject *self, PyObject *args, PyObject *kwargs)
{
    LoopObj *loop = (LoopObj *)self;
    return pipe_create(loop, loop->st->ReadPipeType, args, kwargs);
}

PyDoc_STRVAR(pipe_make_write_doc,
"_make_write_pipe_transport($self, pipe, protocol, waiter=None, extra=None)\n--\n\n"
"Return a transport that writes to a file, which it owns from now on.\n\n"
"Raises ValueError unless that is a pipe, a socket or a character device.\n"
"(What asyncio.loop.connect_write_pipe stands on.)");

static PyObject *
Loop_make_write_pipe_transport(PyObject *self, PyObject *args, PyObject *kwargs)
{
    LoopObj *loop = (LoopObj *)self;
    return pipe_create(loop, loop->st->WritePipeType, args, kwargs);
}

static PyMethodDef pipe_loop_methods[] = {
    {"_make_read_pipe_transport",
     (PyCFunction)(void (*)(void))Loop_make_read_pipe_transport,
     METH_VARARGS | METH_KEYWORDS,
     pipe_make_read_doc},
    {"_make_write_pipe_transport",
     (PyCFunction)(void (*)(void))Loop_make_write_pipe_transport,
     METH_VARARGS | METH_KEYWORDS,
     pipe_make_write_doc},
    {NULL, NULL, 0, NULL},
};

PART int
pipe_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, NULL, &st->ReadPipeType, &read_pipe_spec, st->stock_ReadTransport) < 0 ||
        add_type(module, NULL, &st->WritePipeType, &write_pipe_spec, st->stock_Transport) < 0) {
        return -1;
    }
    if (transport_add_methods(st->ReadPipeType, 0) < 0 || transport_add_methods(st->WritePipeType, 1) < 0) {
        return -1;
    }
    return add_methods(st->LoopType, pipe_loop_methods);
}
