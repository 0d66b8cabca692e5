/* tasks/: futures (future.c), their steps as tasks (task.c), what Python sees of both (future_type.c, future_iter.c,
   task_type.c); which tasks exist and which one runs (registry.c).

   They put work in the ring of a loop (handles/), and never run the loop.  Other kinds of futures than these two make
   themselves known here (future_kind). */

#ifndef CTASK_TASKS_H
#define CTASK_TASKS_H

#include "handles/handles.h"

/* ---- callable.c ---- */

PART int callable_setup(PyObject *module, ctask_state *st);
PART PyObject *task_wakeup_callback(TaskObj *task);
/* The same and the task's context, in which it is to be called: both owned, or NULL and NULL with an exception. */
PART PyObject *task_wakeup_in_context(TaskObj *task, ctask_state *st, PyObject **context);
PART PyObject *task_step_callback(TaskObj *task, ctask_state *st, PyObject *exc);

/* ---- future.c ---- */

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

/* ---- future_iter.c ---- */

PART int future_iter_setup(PyObject *module, ctask_state *st);
PART PyObject *future_iter(PyObject *self);
PART void future_become_iterator(PyTypeObject *type);
PART int future_throw_arguments(PyObject *const *args, Py_ssize_t nargs);

/* ---- future_type.c ---- */

PART int future_setup(PyObject *module, ctask_state *st);
PART void future_dealloc(PyObject *self);
PART int future_traverse_fields(FutureObj *fut, visitproc visit, void *arg);
PART void future_clear_fields(FutureObj *fut);
PART PyObject *Future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PART PyObject *Future_remove_done_callback(PyObject *self, PyObject *callback);
PART PyObject *Future_get_callbacks(PyObject *self, void *closure);

/* What a future of a third kind does otherwise: gather()'s, which makes itself known in the state.  Its type has
   future_derived_dealloc() for its tp_dealloc. */
typedef struct future_kind {
    int (*cancel)(PyObject *self, ctask_state *st, PyObject *msg); // as future_cancel_any()
    int (*clear)(PyObject *self); // as tp_clear
} future_kind;

PART void future_derived_dealloc(PyObject *self);

/* ---- cancel.c ---- */

PART int task_cancel(TaskObj *task, ctask_state *st, PyObject *msg);
PART int future_cancel_any(PyObject *fut, ctask_state *st, PyObject *msg);

/* ---- task.c ---- */

PART int task_schedule_step(TaskObj *task, ctask_state *st, PyObject *exc);
PART int task_run(LoopObj *loop, PyThreadState *ts, TaskObj *task, PyObject *exc, PyObject *fut);
PART PyObject *task_run_as_callback(TaskObj *task, PyObject *exc, PyObject *fut);
PART int task_start_eagerly(TaskObj *task, ctask_state *st);

/* The task's context, borrowed. */
static inline PyObject *
task_context(TaskObj *task, ctask_state *st)
{
    return context_make(&st->base.contexts, &task->context) < 0 ? NULL : task->context;
}

/* ---- task_type.c ---- */

PART int task_setup(PyObject *module, ctask_state *st);
PART PyObject *task_create(ctask_state *st, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context,
                           int eager);
PART void task_dealloc(PyObject *self);

/* ---- registry.c ---- */

PART int registry_setup(PyObject *module, ctask_state *st);
PART int registry_add(ctask_state *st, TaskObj *task);
PART void registry_remove(TaskObj *task);
PART int current_enter(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave_later(LoopObj *loop, PyThreadState *ts, TaskObj *task);
PART int current_flush(LoopObj *loop);
PART PyObject *current_swap(ctask_state *st, PyObject *loop, PyObject *task);
PART PyObject *running_loop(ctask_state *st);
PART PyObject *bind_loop(ctask_state *st, PyObject *self, PyObject **bound);
PART PyObject *current_task(ctask_state *st, PyObject *loop);

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

/* ---- type tests that need no state ---- */

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

/* ---- chains of futures ---- */

/* See may_go_on().  Lists of callbacks and exceptions take the trashcan themselves. */
static inline int
future_may_go_on(FutureObj *fut)
{
    return may_go_on(fut->result) || may_go_on(fut->callback0) || may_go_on(fut->cancel_msg);
}

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
