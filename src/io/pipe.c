/* The transports of connect_read_pipe() and connect_write_pipe(): pipes, sockets and character devices as
   files.

   They stand on transport.c and differ from streams in what they own: one side of a descriptor, whose other
   side another transport may own (a terminal is often opened twice).  So they are told by level and watch
   only their side.  A writing one watches the reading side as well where that tells when the reader hangs
   up.

   Here they are made, and here are their types; what they do is in pipe_read.c, pipe_write.c and pipe_file.c. */

#include "io/pipe.h"

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
    PyObject_GC_UnTrack(p); // nobody finds it before it is whole
    t->st = st;
    t->loop = (LoopObj *)Py_NewRef((PyObject *)loop);
    t->kind = &pipe_kind;
    t->shared = &p->file;
    p->writes = type == st->WritePipeType;
    (void)transport_set_limits(t, NULL, NULL);
    t->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    t->context = context_copy(&st->base.contexts);
    if (t->extra == NULL || t->context == NULL || PyObject_SetItem(t->extra, st->str.pipe, file) < 0 ||
        (t->fd = pipe_descriptor(p, file)) < 0) {
        goto failed;
    }
    t->protocol = Py_NewRef(protocol);
    p->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    if (transport_schedule(t) < 0) {
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

static PyObject *
Pipe_set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *protocol = single_argument(self, "set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL) {
        return NULL;
    }
    Py_XSETREF(PIPE(self)->base.protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *
Pipe_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    NONE_UNLESS(pipe_read_ready(NULL, self) < 0);
}

static PyObject *
Pipe_write_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    NONE_UNLESS((((TransportObj *)self)->conn_lost ? transport_lost_ready : transport_write_ready)(NULL, self) <
                0);
}

static PyObject *
Pipe_call_connection_lost(PyObject *self, PyObject *exc)
{
    TransportObj *t = &PIPE(self)->base;
    if (t->loop != NULL && !t->lost) {
        Py_XSETREF(t->lost_exc, exc == Py_None ? NULL : Py_NewRef(exc));
        t->closing = 1;
        NONE_UNLESS(transport_call_lost(t) < 0);
    }
    Py_RETURN_NONE;
}

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
Pipe_get_fileno(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(PIPE(self)->base.fd);
}

static PyObject *
pipe_repr(PyObject *self)
{
    PipeObj *p = PIPE(self);
    TransportObj *t = &p->base;
    PyObject *name = PyType_GetName(Py_TYPE(self)), *repr;
    if (name == NULL) {
        return NULL;
    }
    const char *state = !t->open ? " closed" : t->closing ? " closing" : "";
    if (!t->open || t->loop == NULL || !t->loop->is_open) {
        repr = PyUnicode_FromFormat("<%U%s fd=%d %s>", name, state, t->fd, t->open ? "open" : "closed");
    }
    else if (p->writes) {
        repr = PyUnicode_FromFormat("<%U%s fd=%d %s bufsize=%zu>",
                                    name,
                                    state,
                                    t->fd,
                                    t->queue.length > 0 ? "polling" : "idle",
                                    t->queue.size);
    }
    else {
        repr = PyUnicode_FromFormat(
            "<%U%s fd=%d %s>", name, state, t->fd, t->begun && pipe_is_reading(p) ? "polling" : "idle");
    }
    Py_DECREF(name);
    return repr;
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
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (PIPE(self)->base.weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    Py_TRASHCAN_BEGIN(self, pipe_dealloc); /* anything may be its protocol: another transport */
    (void)pipe_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

#define PIPE_OFFSET(field) (void *)(offsetof(PipeObj, base) + offsetof(TransportObj, field))

static PyGetSetDef pipe_getset[] = {
    {"_loop", Transport_get_object, NULL, NULL, PIPE_OFFSET(loop)},
    {"_pipe", Transport_get_object, Pipe_set_pipe, NULL, PIPE_OFFSET(sock)},
    {"_protocol", Transport_get_object, NULL, NULL, PIPE_OFFSET(protocol)},
    {"_fileno", Pipe_get_fileno, NULL, NULL, NULL},
    {"_closing", Transport_get_flag, NULL, NULL, PIPE_OFFSET(closing)},
    {"_paused", Transport_get_flag, NULL, NULL, PIPE_OFFSET(paused)},
    {"_protocol_paused", Transport_get_flag, NULL, NULL, PIPE_OFFSET(protocol_paused)},
    {"_high_water", Transport_get_size, NULL, NULL, PIPE_OFFSET(high_water)},
    {"_low_water", Transport_get_size, NULL, NULL, PIPE_OFFSET(low_water)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef pipe_members[] = {
    {"__weaklistoffset__",
     Py_T_PYSSIZET,
     offsetof(PipeObj, base) + offsetof(TransportObj, weakrefs),
     Py_READONLY,
     NULL},
    {"__dictoffset__",
     Py_T_PYSSIZET,
     offsetof(PipeObj, base) + offsetof(TransportObj, dict),
     Py_READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(pipe_is_closing_doc,
"is_closing($self, /)\n--\n\nReturn True if the transport is closing or closed.  (asyncio.BaseTransport)");
PyDoc_STRVAR(pipe_set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nGive data and events to another protocol.  (asyncio.BaseTransport)");
PyDoc_STRVAR(pipe_get_protocol_doc,
"get_protocol($self, /)\n--\n\nReturn the protocol, None once the connection is lost.  (asyncio.BaseTransport)");

#define METHODS_OF_BOTH                                                               \
    {"is_closing", Transport_is_closing, METH_NOARGS, pipe_is_closing_doc},           \
        {"set_protocol",                                                              \
         (PyCFunction)(void (*)(void))Pipe_set_protocol,                              \
         METH_FASTCALL | METH_KEYWORDS,                                               \
         pipe_set_protocol_doc},                                                      \
        {"get_protocol", Transport_get_protocol, METH_NOARGS, pipe_get_protocol_doc}, \
        {"_call_connection_lost", Pipe_call_connection_lost, METH_O, NULL},           \
        {"_read_ready", Pipe_read_ready, METH_NOARGS, NULL},                          \
    {                                                                                 \
        "_write_ready", Pipe_write_ready, METH_NOARGS, NULL                           \
    }

#define SLOTS_OF_BOTH                                                                                     \
    {Py_tp_dealloc, pipe_dealloc}, {Py_tp_finalize, transport_finalize}, {Py_tp_traverse, pipe_traverse}, \
        {Py_tp_clear, pipe_clear}, {Py_tp_repr, pipe_repr}, {Py_tp_getset, pipe_getset},                  \
    {                                                                                                     \
        Py_tp_members, pipe_members                                                                       \
    }

/* ---- the reading one ---- */

PyDoc_STRVAR(pipe_pause_reading_doc,
"pause_reading($self, /)\n--\n\nDo not call data_received() until resume_reading().  (asyncio.ReadTransport)");

static PyObject *
ReadPipe_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = &PIPE(self)->base;
    if (!pipe_is_reading(PIPE(self)) || t->loop == NULL) {
        Py_RETURN_NONE;
    }
    t->paused = 1;
    transport_unwatch(t, POLL_READ);
    NONE_UNLESS(transport_debug(t, "%r pauses reading") < 0);
}

PyDoc_STRVAR(pipe_resume_reading_doc,
"resume_reading($self, /)\n--\n\nGive the protocol data again.  (asyncio.ReadTransport)");

static PyObject *
ReadPipe_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = &PIPE(self)->base;
    if (t->closing || !t->paused || t->loop == NULL) {
        Py_RETURN_NONE;
    }
    t->paused = 0;
    NONE_UNLESS((t->begun && pipe_watch(PIPE(self), POLL_READ) < 0) ||
                transport_debug(t, "%r resumes reading") < 0);
}

PyDoc_STRVAR(pipe_is_reading_doc,
"is_reading($self, /)\n--\n\nReturn True if it is neither paused nor closing.  (asyncio.ReadTransport)");

static PyObject *
ReadPipe_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(pipe_is_reading(PIPE(self)));
}

PyDoc_STRVAR(pipe_read_close_doc,
"close($self, /)\n--\n\n"
"Stop reading, then call the protocol's connection_lost(None) and close the file.  (asyncio.BaseTransport)");

static PyObject *
ReadPipe_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    NONE_UNLESS(!PIPE(self)->base.closing && transport_force_close(&PIPE(self)->base, NULL) < 0);
}

static PyMethodDef read_pipe_methods[] = {
    METHODS_OF_BOTH,
    {"pause_reading", ReadPipe_pause_reading, METH_NOARGS, pipe_pause_reading_doc},
    {"resume_reading", ReadPipe_resume_reading, METH_NOARGS, pipe_resume_reading_doc},
    {"is_reading", ReadPipe_is_reading, METH_NOARGS, pipe_is_reading_doc},
    {"close", ReadPipe_close, METH_NOARGS, pipe_read_close_doc},
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

static PyObject *
WritePipe_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    NONE_UNLESS(transport_force_close(&PIPE(self)->base, NULL) < 0);
}

PyDoc_STRVAR(pipe_size_doc,
"get_write_buffer_size($self, /)\n--\n\nReturn how many bytes wait to be written.  (asyncio.WriteTransport)");

static PyObject *
WritePipe_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(PIPE(self)->base.queue.size);
}

PyDoc_STRVAR(pipe_limits_doc,
"get_write_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.  (asyncio.WriteTransport)");

PyDoc_STRVAR(pipe_set_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set at how many waiting bytes the protocol's pause_writing() and resume_writing() are called.\n\n"
"Raises ValueError unless high >= low >= 0.  (asyncio.WriteTransport)");

static PyObject *
WritePipe_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high = NULL, *low = NULL;
    TransportObj *t = &PIPE(self)->base;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high, &low)) {
        return NULL;
    }
    NONE_UNLESS(transport_set_limits(t, high, low) < 0 || transport_pause_protocol(t) < 0);
}

static PyMethodDef write_pipe_methods[] = {
    METHODS_OF_BOTH,
    {"write", (PyCFunction)(void (*)(void))WritePipe_write, METH_FASTCALL | METH_KEYWORDS, pipe_write_doc},
    {"write_eof", WritePipe_write_eof, METH_NOARGS, pipe_write_eof_doc},
    {"can_write_eof", WritePipe_can_write_eof, METH_NOARGS, pipe_can_write_eof_doc},
    {"close", WritePipe_write_eof, METH_NOARGS, pipe_write_close_doc},
    {"abort", WritePipe_abort, METH_NOARGS, pipe_abort_doc},
    {"get_write_buffer_size", WritePipe_get_write_buffer_size, METH_NOARGS, pipe_size_doc},
    {"get_write_buffer_limits", Transport_get_write_buffer_limits, METH_NOARGS, pipe_limits_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))WritePipe_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     pipe_set_limits_doc},
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
    return add_methods(st->LoopType, pipe_loop_methods);
}
