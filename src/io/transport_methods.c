/* Methods and attributes that transports have in common. */

#include "io/transport.h"

PART PyObject *
Transport_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    return PyBool_FromLong(!t->closing && !t->paused);
}

PART PyObject *
Transport_is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((TransportObj *)self)->closing);
}

PART PyObject *
Transport_get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObj *t = (TransportObj *)self;
    return Py_BuildValue("(nn)", t->low_water, t->high_water);
}

PART PyObject *
Transport_get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = ((TransportObj *)self)->protocol;
    return Py_NewRef(protocol == NULL ? Py_None : protocol);
}

PART PyObject *
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
