/* ctask.Handle: what call_soon() returns.

   It derives from asyncio's class and fills the very same slots, so asyncio's own methods (reprs, comparisons, _run())
   work on it; cancelling and letting go are in C.  TimerHandle (timer.c) and the handles of call_soon_threadsafe()
   (threadsafe.c) derive from it; the loop makes them and lets them go by handle.c. */

#include "handles/handle_type.h"
#include "handles/work.h"

/* ---- cancelling ---- */

PART int
handle_cancel_fields(HandleObj *handle, ctask_state *st)
{
    Py_XSETREF(handle->cancelled, Py_NewRef(Py_True));
    if (handle->loop != NULL && loop_plain(handle->loop) == NULL) {
        PyObject *loop = Py_NewRef(handle->loop);
        PyObject *res = PyObject_CallMethodNoArgs(loop, st->str.get_debug);
        Py_DECREF(loop);
        int debug = res == NULL ? -1 : PyObject_IsTrue(res);
        Py_XDECREF(res);
        if (debug < 0) {
            return -1;
        }
        if (debug) {
            /* The report of a slow callback still has to say which it was. */
            PyObject *repr = PyObject_Repr((PyObject *)handle);
            if (repr == NULL) {
                return -1;
            }
            Py_XSETREF(handle->repr, repr);
        }
    }
    Py_XSETREF(handle->callback, Py_NewRef(Py_None));
    Py_XSETREF(handle->args, Py_NewRef(Py_None));
    return 0;
}

/* ---- life ---- */

PART int
handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    HandleObj *handle = (HandleObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(handle->args);
    Py_VISIT(handle->callback);
    Py_VISIT(handle->cancelled);
    Py_VISIT(handle->context);
    Py_VISIT(handle->loop);
    Py_VISIT(handle->repr);
    Py_VISIT(handle->source_traceback);
    return 0;
}

PART int
handle_clear(PyObject *self)
{
    HandleObj *handle = (HandleObj *)self;
    Py_CLEAR(handle->args);
    Py_CLEAR(handle->callback);
    Py_CLEAR(handle->cancelled);
    Py_CLEAR(handle->context);
    Py_CLEAR(handle->loop);
    Py_CLEAR(handle->repr);
    Py_CLEAR(handle->source_traceback);
    return 0;
}

PART void
handle_dealloc(PyObject *self)
{
    handle_free(
        self, handle_dealloc, handle_clear, handle_drop_fields, offsetof(ctask_state, handles.free_handles));
}

/* ---- the type ---- */

PART PyObject *
Handle_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    HandleObj *handle = (HandleObj *)self;
    int cancelled = is_true_slot(handle->cancelled);
    if (cancelled < 0 || (cancelled == 0 && handle_cancel_fields(handle, state_of(self)) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PART PyObject *
Handle_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *cancelled = ((HandleObj *)self)->cancelled;
    if (cancelled == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_cancelled");
        return NULL;
    }
    return Py_NewRef(cancelled);
}

static PyObject *
no_context(PyObject *self)
{
    return PyErr_Format(
        PyExc_AttributeError, "'%.200s' object has no attribute '_context'", Py_TYPE(self)->tp_name);
}

static PyObject *
Handle_get_context(PyObject *self, void *Py_UNUSED(closure))
{
    HandleObj *handle = (HandleObj *)self;
    if (context_make(&state_of(self)->base.contexts, &handle->context) < 0) {
        return NULL;
    }
    return handle->context == NULL ? no_context(self) : Py_NewRef(handle->context);
}

static int
Handle_set_context(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    HandleObj *handle = (HandleObj *)self;
    if (value == NULL && handle->context == NULL) {
        (void)no_context(self);
        return -1;
    }
    Py_XSETREF(handle->context, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef Handle_getset[] = {
    {"_context", Handle_get_context, Handle_set_context, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Handle_methods[] = {
    {"cancel", Handle_cancel, METH_NOARGS, Handle_cancel_doc},
    {"cancelled", Handle_cancelled, METH_NOARGS, Handle_cancelled_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Handle_doc,
"A callback that loop.call_soon() has scheduled; it can be cancelled.\n\n"
"Stands for asyncio.Handle, which it derives from.");

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, (void *)Handle_doc},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, Handle_methods},
    {Py_tp_getset, Handle_getset},
    {0, NULL},
};

static PyType_Spec Handle_spec = {
    .name = "ctask.Handle",
    .basicsize = sizeof(HandleObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Handle_slots,
};

PART int
handle_add_derived(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec, PyObject *stock,
                   ctask_state *st)
{
    PyObject *bases = PyTuple_Pack(2, stock, (PyObject *)st->HandleType);
    if (bases == NULL) {
        return -1;
    }
    int result = add_type(module, name, slot, spec, bases);
    Py_DECREF(bases);
    return result;
}

PART int
handle_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, "Handle", &st->HandleType, &Handle_spec, st->stock_Handle);
}
