/* What the functions over several awaitables share (ensure.c). */

#ifndef CTASK_ENSURE_H
#define CTASK_ENSURE_H

#include "tasks/tasks.h"

PART int ensure_setup(PyObject *module, ctask_state *st);
/* asyncio.ensure_future(arg, loop=loop); `loop` may be NULL. */
PART PyObject *ensure_future(ctask_state *st, PyObject *arg, PyObject *loop);
/* asyncio._get_running_loop(): a new reference; NULL, with nothing set, if no loop runs in this thread. */
PART PyObject *running_loop_or_null(ctask_state *st);
#if FUTURE_CALL_GRAPH
/* The task that runs on `loop`, as one that waits in the call graph; owned.  NULL if there is none, also with an
   exception. */
PART PyObject *task_for_call_graph(ctask_state *st, PyObject *loop);
#endif

/* Is it equal to nothing but itself? */
static inline int
is_told_by_address(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return type->tp_hash == PyBaseObject_Type.tp_hash &&
           (type->tp_richcompare == NULL || type->tp_richcompare == PyBaseObject_Type.tp_richcompare);
}

#endif
