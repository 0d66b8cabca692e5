/* Futures: completion, and who waits for it (future.c). */

#ifndef CTASK_FUTURE_H
#define CTASK_FUTURE_H

#include "tasks/life.h"

PART int future_init(FutureObj *fut, ctask_state *st, PyObject *loop);
PART PyObject *future_create(ctask_state *st, PyObject *loop);
PART PyObject *loop_new_future(ctask_state *st, PyObject *loop);
PART int future_schedule_callbacks(FutureObj *fut, ctask_state *st);
PART int future_set_result(FutureObj *fut, ctask_state *st, PyObject *result);
PART int future_set_exception(FutureObj *fut, ctask_state *st, PyObject *exc);
PART int future_cancel(FutureObj *fut, ctask_state *st, PyObject *msg);
PART PyObject *future_cancelled_error(FutureObj *fut, ctask_state *st);
PART int future_add_waiter(FutureObj *fut, ctask_state *st, TaskObj *task);
PART int future_add_callback(FutureObj *fut, ctask_state *st, PyObject *callback, PyObject *context);
PART PyObject *future_get_loop(ctask_state *st, PyObject *fut);
PART int call_predicate(PyObject *obj, PyObject *method);
PART int call_soon(ctask_state *st, PyObject *loop, PyObject *callback, PyObject *arg, PyObject *context);

/* ---- the call graph (3.14+): who waits for whom ---- */

#if FUTURE_CALL_GRAPH
PART int awaited_by_call(ctask_state *st, PyObject *function, PyObject *fut, TaskObj *task);
#endif

static inline int
awaited_by_add(ctask_state *st, PyObject *fut, TaskObj *task)
{
#if FUTURE_CALL_GRAPH
    if (LIKELY(future_is_exact(fut) && ((FutureObj *)fut)->awaited_by == NULL)) {
        ((FutureObj *)fut)->awaited_by = Py_NewRef(task);
        return 0;
    }
    return awaited_by_call(st, st->stock_awaited_by_add, fut, task);
#else
    (void)st, (void)fut, (void)task;
    return 0;
#endif
}

static inline int
awaited_by_discard(ctask_state *st, PyObject *fut, TaskObj *task)
{
#if FUTURE_CALL_GRAPH
    if (LIKELY(future_is_exact(fut))) {
        PyObject *awaited_by = ((FutureObj *)fut)->awaited_by;
        if (LIKELY(awaited_by == (PyObject *)task)) {
            Py_CLEAR(((FutureObj *)fut)->awaited_by);
            return 0;
        }
        if (awaited_by == NULL) {
            return 0;
        }
    }
    return awaited_by_call(st, st->stock_awaited_by_discard, fut, task);
#else
    (void)st, (void)fut, (void)task;
    return 0;
#endif
}

#endif
