/* Methods and attributes that transports have in common.

   Those that all have in the same words are added to each type when it is made; of the others only the functions are
   here, and each type has them in a table with words of its own. */

#include "io/transport.h"

/* ---- reading ---- */

PART PyObject *
Transport_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    return PyBool_FromLong(!t->closing && !t->paused);
}

PART PyObject *
Transport_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if (t->closing || t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 1;
    if (t->begun) {
        transport_unwatch(t, POLL_READ);
    }
    return transport_debug(t, "%r pauses reading") < 0 ? NULL : Py_NewRef(Py_None);
}

PART PyObject *
Transport_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    if (t->closing || !t->paused) {
        Py_RETURN_NONE;
    }
    t->paused = 0;
    if (t->begun && transport_wait(t, POLL_READ) < 0) {
        return NULL;
    }
    return transport_debug(t, "%r resumes reading") < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- flow control ---- */

PART PyObject *
Transport_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(((TransportObj *)self)->queue.size);
}

static PyObject *
Transport_get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    return Py_BuildValue("(nn)", t->low_water, t->high_water);
}

PART PyObject *
Transport_set_limits(PyObject *self, PyObject *args, PyObject *kwargs)
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
Transport_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *res = Transport_set_limits(self, args, kwargs);
    if (res == NULL || transport_pause_protocol((TransportObj *)self) < 0) {
        Py_XDECREF(res);
        return NULL;
    }
    return res;
}

/* ---- the protocol, the end ---- */

static PyObject *
Transport_get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = ((TransportObj *)self)->protocol;
    return Py_NewRef(protocol == NULL ? Py_None : protocol);
}

PART PyObject *
Transport_set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *protocol = single_argument(self, "set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL) {
        return NULL;
    }
    Py_XSETREF(((TransportObj *)self)->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *
Transport_is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((TransportObj *)self)->closing);
}

PART PyObject *
Transport_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return transport_close((TransportObj *)self) < 0 ? NULL : Py_NewRef(Py_None);
}

PART PyObject *
Transport_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return transport_force_close((TransportObj *)self, NULL) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Transport_call_connection_lost(PyObject *self, PyObject *exc)
{
    TransportObj *t = (TransportObj *)self;
    if (t->loop != NULL && !t->lost) {
        Py_XSETREF(t->lost_exc, exc == Py_None ? NULL : Py_NewRef(exc));
        if (transport_call_lost(t) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* ---- what debug mode calls ---- */

static PyObject *
call_ready(TransportObj *t, io_ready ready)
{
    LoopObj *loop = (LoopObj *)Py_XNewRef((PyObject *)t->loop);
    int status = ready(loop, (PyObject *)t);
    Py_XDECREF(loop);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Transport_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    return call_ready(t, t->kind->read_ready);
}

static PyObject *
Transport_write_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return call_ready((TransportObj *)self, transport_write_ready);
}

static PyObject *
Transport_lost_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return call_ready((TransportObj *)self, transport_lost_ready);
}

/* ---- what asyncio's own code and a few libraries look at ---- */

PART PyObject *
Transport_get_object(PyObject *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (size_t)offset);
    return Py_NewRef(value == NULL ? Py_None : value);
}

PART PyObject *
Transport_get_flag(PyObject *self, void *offset)
{
    return PyBool_FromLong(*((char *)self + (size_t)offset));
}

PART PyObject *
Transport_get_size(PyObject *self, void *offset)
{
    return PyLong_FromSsize_t(*(Py_ssize_t *)((char *)self + (size_t)offset));
}

PART PyObject *
Transport_get_int(PyObject *self, void *offset)
{
    return PyLong_FromLong(*(int *)((char *)self + (size_t)offset));
}

PART PyObject *
transport_repr(PyObject *self, PyObject *rest)
{
    TransportObj *t = (TransportObj *)self;
    PyObject *name = rest == NULL ? NULL : PyType_GetName(Py_TYPE(self)), *repr = NULL;
    if (name != NULL) {
        const char *state = !t->open ? " closed" : t->closing ? " closing" : "";
        repr = PyUnicode_FromFormat("<%U%s fd=%d%U>", name, state, t->fd, rest);
    }
    Py_XDECREF(name);
    Py_XDECREF(rest);
    return repr;
}

PART PyObject *
transport_repr_sides(PyObject *self, int reads, int writes)
{
    TransportObj *t = (TransportObj *)self;
    if (t->loop == NULL || !t->loop->is_open) {
        return transport_repr(self, PyUnicode_FromString(""));
    }
    return transport_repr(self,
                          PyUnicode_FromFormat(" read=%s write=<%s, bufsize=%zu>",
                                               reads ? "polling" : "idle",
                                               writes ? "polling" : "idle",
                                               t->queue.size));
}

/* ---- the tables ---- */

PyDoc_STRVAR(is_closing_doc,
"is_closing($self, /)\n--\n\nReturn True if the transport is closing or closed.  (asyncio.BaseTransport)");
PyDoc_STRVAR(get_protocol_doc,
"get_protocol($self, /)\n--\n\nReturn the protocol, None once the connection is lost.  (asyncio.BaseTransport)");
PyDoc_STRVAR(limits_doc,
"get_write_buffer_limits($self, /)\n--\n\nReturn (low, high) in bytes.  (asyncio.WriteTransport)");
PyDoc_STRVAR(set_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set at how many waiting bytes the protocol's pause_writing() and resume_writing() are called.\n\n"
"Raises ValueError unless high >= low >= 0.  (asyncio.WriteTransport)");

static PyMethodDef transport_methods[] = {
    {"is_closing", Transport_is_closing, METH_NOARGS, is_closing_doc},
    {"get_protocol", Transport_get_protocol, METH_NOARGS, get_protocol_doc},
    {"_call_connection_lost", Transport_call_connection_lost, METH_O, NULL},
    {"_read_ready", Transport_read_ready, METH_NOARGS, NULL},
    {"_write_ready", Transport_write_ready, METH_NOARGS, NULL},
    {"_lost_ready", Transport_lost_ready, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef transport_write_methods[] = {
    {"get_write_buffer_limits", Transport_get_write_buffer_limits, METH_NOARGS, limits_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))Transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     set_limits_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transport_attributes[] = {
    {"_loop", Transport_get_object, NULL, NULL, TRANSPORT_FIELD(loop)},
    {"_protocol", Transport_get_object, NULL, NULL, TRANSPORT_FIELD(protocol)},
    {"_closing", Transport_get_flag, NULL, NULL, TRANSPORT_FIELD(closing)},
    {"_paused", Transport_get_flag, NULL, NULL, TRANSPORT_FIELD(paused)},
    {"_protocol_paused", Transport_get_flag, NULL, NULL, TRANSPORT_FIELD(protocol_paused)},
    {NULL, NULL, NULL, NULL, NULL},
};

PART int
transport_add_methods(PyTypeObject *type, int writes)
{
    for (PyGetSetDef *def = transport_attributes; def->name != NULL; def++) {
        PyObject *attribute = PyDescr_NewGetSet(type, def);
        int result = attribute == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, def->name, attribute);
        Py_XDECREF(attribute);
        if (result < 0) {
            return -1;
        }
    }
    if (writes && add_methods(type, transport_write_methods) < 0) {
        return -1;
    }
    return add_methods(type, transport_methods);
}
