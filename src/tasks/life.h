/* What tells futures and tasks apart, what they need before they are of use, and how they are let go (life.c). */

#ifndef CTASK_LIFE_H
#define CTASK_LIFE_H

#include "ctask.h"

/* ---- type tests that need no state ---- */

PART void future_dealloc(PyObject *self);
PART void future_derived_dealloc(PyObject *self);
PART void task_dealloc(PyObject *self);

/* Exactly ctask.Future or ctask.Task, or what gather() returns, of whichever interpreter: a subclass made in
   Python gets the tp_dealloc of its metatype.  How it is cancelled differs: future_cancel_any(). */
static inline int
future_is_exact(PyObject *obj)
{
    destructor dealloc = Py_TYPE(obj)->tp_dealloc;
    return dealloc == future_dealloc || dealloc == task_dealloc || dealloc == future_derived_dealloc;
}

static inline int
task_is_exact(PyObject *obj)
{
    return Py_TYPE(obj)->tp_dealloc == task_dealloc;
}

/* ---- __init__ ---- */

/* Set RuntimeError if it was not called. */
static inline int
future_check_init(const FutureObj *fut)
{
    if (LIKELY(fut->loop != NULL)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
    return -1;
}

/* From 3.15 on asyncio refuses to initialise a future twice; before, that starts it anew. */
static inline int
refuse_second_init(FutureObj *fut)
{
#if PY_VERSION_HEX >= 0x030F0000
    if (fut->loop != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", fut);
        return -1;
    }
#else
    (void)fut;
#endif
    return 0;
}

/* ---- fields ---- */

/* The task's context, borrowed. */
static inline PyObject *
task_context(TaskObj *task, ctask_state *st)
{
    return context_make(&st->base.contexts, &task->context) < 0 ? NULL : task->context;
}

PART int future_traverse_fields(FutureObj *fut, visitproc visit, void *arg);
PART void future_clear_fields(FutureObj *fut);

/* ---- slots ---- */

PART int future_traverse(PyObject *self, visitproc visit, void *arg);
PART int future_clear(PyObject *self);
PART int task_traverse(PyObject *self, visitproc visit, void *arg);
PART int task_clear(PyObject *self);

/* What a future of a third kind does otherwise: gather()'s, which makes itself known in the state.  Its type has
   future_derived_dealloc() for its tp_dealloc. */
typedef struct future_kind {
    int (*cancel)(PyObject *self, ctask_state *st, PyObject *msg); // as future_cancel_any()
    int (*clear)(PyObject *self); // as tp_clear
} future_kind;

#endif
