/* Cancelling: a future ends by it; a task has what it waits for cancelled, which may be a task, and is told when it
   runs next. */

#include "tasks/cancel.h"
#include "tasks/future.h"

/* 1 if the task will be told, 0 if it is done. */
PART int
task_cancel(TaskObj *task, ctask_state *st, PyObject *msg)
{
    task->log_traceback = 0;
    if (task->state != FUTURE_PENDING) {
        return 0;
    }
    task->num_cancels_requested++;
    if (task->fut_waiter != NULL) {
        if (Py_EnterRecursiveCall(" while cancelling a task")) {
            return -1;
        }
        PyObject *waiter = Py_NewRef(task->fut_waiter);
        int cancelled = future_cancel_any(waiter, st, msg);
        Py_DECREF(waiter);
        Py_LeaveRecursiveCall();
        if (LIKELY(cancelled != 0)) {
            return cancelled;
        }
    }
    task->must_cancel = 1;
    Py_XSETREF(task->cancel_msg, Py_NewRef(msg));
    return 1;
}

/* fut.cancel(msg=msg), of any future: 1, 0, or -1. */
PART int
future_cancel_any(PyObject *obj, ctask_state *st, PyObject *msg)
{
    FutureObj *fut = (FutureObj *)obj;
    /* A program may have set a `cancel` of its own on the object. */
    if (LIKELY(future_is_exact(obj) && fut->loop != NULL && !FUTURE_HAS_DICT(fut))) {
        if (task_is_exact(obj)) {
            return task_cancel((TaskObj *)obj, st, msg);
        }
        return Py_TYPE(obj)->tp_dealloc == future_dealloc ? future_cancel(fut, st, msg)
                                                          : st->tasks.derived_future->cancel(obj, st, msg);
    }
    PyObject *stack[] = {obj, msg};
    PyObject *res = PyObject_VectorcallMethod(st->str.cancel, stack, 1, st->msg_kwnames);
    int cancelled = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    return cancelled;
}
