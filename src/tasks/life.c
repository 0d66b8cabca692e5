/* The life of futures and tasks: what they hold, how they are let go.  The addresses of what is here tell what an object
   is without the module's state. */

#include "tasks/life.h"
#include "tasks/registry.h"

/* ---- futures ---- */

/* See may_go_on().  Lists of callbacks and exceptions take the trashcan themselves. */
static inline int
future_may_go_on(FutureObj *fut)
{
    return may_go_on(fut->result) || may_go_on(fut->callback0) || may_go_on(fut->cancel_msg);
}

PART int
future_traverse_fields(FutureObj *fut, visitproc visit, void *arg)
{
    Py_VISIT(fut->loop);
    Py_VISIT(fut->callback0);
    Py_VISIT(fut->context0);
    Py_VISIT(fut->callbacks);
    Py_VISIT(fut->exception);
    Py_VISIT(fut->exception_tb);
    Py_VISIT(fut->result);
    Py_VISIT(fut->source_traceback);
    Py_VISIT(fut->cancel_msg);
    Py_VISIT(fut->cancelled_exc);
#if FUTURE_CALL_GRAPH
    Py_VISIT(fut->awaited_by);
#endif
    return 0;
}

/* Everything but the instance dictionary. */
PART void
future_clear_fields(FutureObj *fut)
{
    Py_CLEAR(fut->loop);
    Py_CLEAR(fut->callback0);
    Py_CLEAR(fut->context0);
    Py_CLEAR(fut->callbacks);
    Py_CLEAR(fut->exception);
    Py_CLEAR(fut->exception_tb);
    Py_CLEAR(fut->result);
    Py_CLEAR(fut->source_traceback);
    Py_CLEAR(fut->cancel_msg);
    Py_CLEAR(fut->cancelled_exc);
#if FUTURE_CALL_GRAPH
    Py_CLEAR(fut->awaited_by);
    fut->awaited_by_is_set = 0;
#endif
}

PART int
future_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    FUTURE_VISIT_DICT((FutureObj *)self);
    return future_traverse_fields((FutureObj *)self, visit, arg);
}

PART int
future_clear(PyObject *self)
{
    future_clear_fields((FutureObj *)self);
    FUTURE_CLEAR_DICT((FutureObj *)self);
    return 0;
}

static inline void
future_free(FutureObj *fut, PyTypeObject *type)
{
    PyObject *self = (PyObject *)fut;
    clear_weakrefs(self, type);
    int as_new = !FUTURE_HAS_ATTRIBUTES(fut);
    (void)future_clear(self);
    if (LIKELY(as_new && type->tp_dealloc == future_dealloc)) {
        freelist_give(&state_of(self)->tasks.free_futures, self, 1);
        return;
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PART void
future_dealloc(PyObject *self)
{
    FutureObj *fut = (FutureObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    /* A subclass made in Python has had its finalizer called already.  The only thing ours may have to
       say is that an exception was never retrieved. */
    if (fut->log_traceback && type->tp_dealloc == future_dealloc) {
        if (PyObject_CallFinalizerFromDealloc(self) < 0) {
            return;
        }
    }
    PyObject_GC_UnTrack(self);
    if (LIKELY(!future_may_go_on(fut))) {
        future_free(fut, type);
        return;
    }
    Py_TRASHCAN_BEGIN(self, future_dealloc);
    future_free(fut, type);
    Py_TRASHCAN_END;
}

PART void
future_derived_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    /* See future_dealloc(). */
    if (((FutureObj *)self)->log_traceback && type->tp_dealloc == future_derived_dealloc) {
        if (PyObject_CallFinalizerFromDealloc(self) < 0) {
            return;
        }
    }
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, future_derived_dealloc); /* a child may be the next of many */
    clear_weakrefs(self, type);
    (void)state_of(self)->tasks.derived_future->clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

/* ---- tasks ---- */

PART int
task_traverse(PyObject *self, visitproc visit, void *arg)
{
    TaskObj *task = (TaskObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(task->fut_waiter);
    Py_VISIT(task->coro);
    Py_VISIT(task->name);
    Py_VISIT(task->context);
    FUTURE_VISIT_DICT(task);
    return future_traverse_fields((FutureObj *)self, visit, arg);
}

PART int
task_clear(PyObject *self)
{
    TaskObj *task = (TaskObj *)self;
    registry_remove(task); /* without a loop it belongs to nobody's all_tasks() */
    future_clear_fields((FutureObj *)self);
    Py_CLEAR(task->fut_waiter);
    Py_CLEAR(task->coro);
    Py_CLEAR(task->name);
    Py_CLEAR(task->context);
    FUTURE_CLEAR_DICT(task);
    return 0;
}

static inline void
task_free(TaskObj *task, PyTypeObject *type)
{
    PyObject *self = (PyObject *)task;
    clear_weakrefs(self, type);
    if (LIKELY(type->tp_dealloc == task_dealloc && !FUTURE_HAS_ATTRIBUTES(task))) {
        ctask_state *st = PyType_GetModuleState(type);
        (void)task_clear(self);
        freelist_give(&st->tasks.free_tasks, self, 1);
        return;
    }
    (void)task_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PART void
task_dealloc(PyObject *self)
{
    TaskObj *task = (TaskObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    registry_remove(task);
    /* A subclass made in Python has had its finalizer called already. */
    if (type->tp_dealloc == task_dealloc &&
        (task->log_traceback ||
         (task->state == FUTURE_PENDING && task->log_destroy_pending && task->loop != NULL))) {
        if (PyObject_CallFinalizerFromDealloc(self) < 0) {
            return;
        }
    }
    PyObject_GC_UnTrack(self);
    if (LIKELY(task->state != FUTURE_PENDING && !future_may_go_on((FutureObj *)task))) {
        task_free(task, type);
        return;
    }
    Py_TRASHCAN_BEGIN(self, task_dealloc);
    task_free(task, type);
    Py_TRASHCAN_END;
}
