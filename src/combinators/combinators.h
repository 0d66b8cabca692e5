/* combinators/: functions and context managers over several tasks, or over a task and a timer: asyncio.gather(), wait(),
   shield(), as_completed(), ensure_future(), sleep(), wait_for(), timeouts and TaskGroup.

   They use everything below; nothing below needs one of them, and sockets never come in. */

#ifndef CTASK_COMBINATORS_H
#define CTASK_COMBINATORS_H

#include "tasks/tasks.h"

PART int ascompleted_setup(PyObject *module, ctask_state *st);
PART int gather_setup(PyObject *module, ctask_state *st);
PART int shield_setup(PyObject *module, ctask_state *st);
PART int sleep_setup(PyObject *module, ctask_state *st);
PART int taskgroup_setup(PyObject *module, ctask_state *st);
PART int timeout_setup(PyObject *module, ctask_state *st);
PART int wait_setup(PyObject *module, ctask_state *st);
PART int waitfor_setup(PyObject *module, ctask_state *st);

/* What __aexit__() is given as the type of an exception, for asyncio's own: early releases take no class derived from
   CancelledError for a cancellation.  Borrowed. */
static inline PyObject *
cancellation_or(ctask_state *st, PyObject *kind)
{
    return PyType_Check(kind) && PyType_IsSubtype((PyTypeObject *)kind, (PyTypeObject *)st->CancelledError)
               ? st->CancelledError
               : kind;
}

#endif
