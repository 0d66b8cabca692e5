/* What the three kinds of handles have in common: the slots of asyncio.Handle, how they are let go, and the methods
   that a kind takes over from the plain one. */

#ifndef CTASK_HANDLE_TYPE_H
#define CTASK_HANDLE_TYPE_H

#include "handles/objects.h"

/* The slots can be written from Python, and are empty until __init__. */
static inline int
is_true_slot(PyObject *value)
{
    if (value == Py_False || value == NULL) {
        return 0;
    }
    if (value == Py_True) {
        return 1;
    }
    Py_INCREF(value);
    int result = PyObject_IsTrue(value);
    Py_DECREF(value);
    return result;
}

PART int handle_cancel_fields(HandleObj *handle, ctask_state *st);

/* ---- life ---- */

PART void handle_dealloc(PyObject *self);
PART int handle_traverse(PyObject *self, visitproc visit, void *arg);
PART int handle_clear(PyObject *self);

/* handle_clear() for an object that nobody sees any more. */
static inline void
handle_drop_fields(PyObject *self)
{
    HandleObj *handle = (HandleObj *)self;
    Py_XDECREF(handle->args);
    Py_XDECREF(handle->callback);
    Py_XDECREF(handle->cancelled);
    Py_XDECREF(handle->context);
    Py_XDECREF(handle->loop);
    Py_XDECREF(handle->repr);
    Py_XDECREF(handle->source_traceback);
}

/* The tp_dealloc (`own`) of each kind.  Anything can be put into the slots, so also another handle: a chain of any
   length.  Those that are freed while one is take the interpreter's trashcan.  (In any thread: more than need to.) */
static inline __attribute__((always_inline)) void
handle_free(PyObject *self, destructor own, inquiry clear, void (*drop_fields)(PyObject *), size_t list_offset)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_weakrefs(self, type);
    if (UNLIKELY(type->tp_dealloc != own)) {
        (void)clear(self);
        type->tp_free(self);
        Py_DECREF(type);
        return;
    }
    ctask_state *st = PyType_GetModuleState(type);
    freelist *list = (freelist *)((char *)st + list_offset);
    if (PY_VERSION_HEX >= 0x030E0000 || LIKELY(!st->handles.freeing)) { // every tp_dealloc is called so there
        st->handles.freeing = 1;
        drop_fields(self);
        st->handles.freeing = 0;
        freelist_give(list, self, 0);
        return;
    }
    Py_TRASHCAN_BEGIN(self, own);
    drop_fields(self);
    freelist_give(list, self, 0);
    Py_TRASHCAN_END;
}

/* ---- the types ---- */

PyDoc_STRVAR(Handle_cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the callback; harmless if it has run or was cancelled.  (asyncio.Handle.cancel)");
PART PyObject *Handle_cancel(PyObject *self, PyObject *ignored);

PyDoc_STRVAR(Handle_cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Return True if the callback was cancelled.  (asyncio.Handle.cancelled)");
PART PyObject *Handle_cancelled(PyObject *self, PyObject *ignored);

PART int handle_setup(PyObject *module, ctask_state *st);
/* A type over asyncio's of this name and our Handle. */
PART int handle_add_derived(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec,
                            PyObject *stock, ctask_state *st);

#endif
