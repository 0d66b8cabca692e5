/* Tasks: a coroutine is driven, one step at a time.

   A step is PyIter_Send() and a look at what came out: a future to wait for, a bare yield, a result or an
   exception.  The loop calls task_run() for the steps and wake-ups in its ring.  On any other loop, and
   wherever a call must be seen (debug mode, an overridden call_soon), the same step is wrapped in a
   callable and goes through loop.call_soon() as asyncio's own does. */

#include "handles/work.h"
#include "tasks/callable.h"
#include "tasks/future.h"
#include "tasks/registry.h"
#include "tasks/task.h"

/* ---- scheduling a step ---- */

PART int
task_schedule_step(TaskObj *task, ctask_state *st, PyObject *exc)
{
    if (UNLIKELY(future_check_init((FutureObj *)task) < 0)) {
        return -1; /* started anew by `_asyncio`'s own __init__(), in vain */
    }
    LoopObj *loop = loop_plain(task->loop);
    if (LIKELY(loop != NULL && context_is(&st->base.contexts, task->context))) {
        return loop_ready(loop, Py_NewRef(task), READY_STEP, Py_XNewRef(exc), NULL);
    }
    /* A foreign call_soon() may drop the task's fields, and a collection in what asks for memory. */
    PyObject *loop_obj = Py_XNewRef(task->loop);
    PyObject *step = task_step_callback(task, st, exc);
    PyObject *context = step == NULL ? NULL : Py_XNewRef(task_context(task, st));
    int result = context == NULL || future_check_init((FutureObj *)task) < 0
                     ? -1
                     : call_soon(st, loop_obj, step, NULL, context);
    Py_XDECREF(loop_obj);
    Py_XDECREF(context);
    Py_XDECREF(step);
    return result;
}

/* Throw a RuntimeError into the coroutine in the next iteration: it yielded what cannot be waited for. */
static int
schedule_error(TaskObj *task, ctask_state *st, const char *format, ...)
{
    va_list vargs;
    va_start(vargs, format);
    PyObject *message = PyUnicode_FromFormatV(format, vargs);
    va_end(vargs);
    if (message == NULL) {
        return -1;
    }
    PyObject *exc = PyObject_CallOneArg(PyExc_RuntimeError, message);
    Py_DECREF(message);
    if (exc == NULL) {
        return -1;
    }
    int result = task_schedule_step(task, st, exc);
    Py_DECREF(exc);
    return result;
}

/* The task has let others run, by sleep(0) or a bare yield. */
static int
schedule_yielded(TaskObj *task, ctask_state *st)
{
    LoopObj *loop = loop_plain(task->loop);
    if (LIKELY(loop != NULL && context_is(&st->base.contexts, task->context))) {
        return loop_ready(loop, Py_NewRef(task), READY_STEP, NULL, Py_NewRef(Py_None));
    }
    return task_schedule_step(task, st, NULL);
}

/* ---- waiting ---- */

/* The task waits for `fut` from now on (steals it); a cancellation that came too early reaches it now. */
static int
wait_for(TaskObj *task, ctask_state *st, PyObject *fut)
{
    Py_XSETREF(task->fut_waiter, fut);
    if (LIKELY(!task->must_cancel)) {
        return 0;
    }
    fut = Py_XNewRef(task->fut_waiter);
    if (fut == NULL) {
        return 0; // a step of the task has run in what was let go
    }
    PyObject *msg = Py_NewRef(task->cancel_msg == NULL ? Py_None : task->cancel_msg);
    PyObject *res = PyObject_CallMethodOneArg(fut, st->str.cancel, msg);
    Py_DECREF(fut);
    Py_DECREF(msg);
    if (res == NULL) {
        return -1;
    }
    int cancelled = PyObject_IsTrue(res);
    Py_DECREF(res);
    if (cancelled > 0) {
        task->must_cancel = 0;
    }
    return cancelled < 0 ? -1 : 0;
}

/* The coroutine yielded something that is not exactly one of our futures (steals it): another future, a
   look-alike, a bare yield's None is handled by the caller, the rest are mistakes. */
static int
wait_for_foreign(TaskObj *task, ctask_state *st, PyObject *obj)
{
    int result = -1;
    PyObject *wakeup = NULL, *context = NULL, *add = NULL, *flag = NULL;

    if (obj == (PyObject *)task) {
        result = schedule_error(task, st, "Task cannot await on itself: %R", task);
        goto finally;
    }
    if (PyObject_GetOptionalAttr(obj, st->str._asyncio_future_blocking, &flag) < 0) {
        goto finally;
    }
    if (flag == NULL || flag == Py_None) {
        int is_generator = PyObject_IsInstance(obj, (PyObject *)&PyGen_Type);
        if (is_generator > 0) {
            result = schedule_error(
                task, st, "yield was used instead of yield from for generator in task %R with %R", task, obj);
        }
        else if (is_generator == 0) {
            result = schedule_error(task, st, "Task got bad yield: %R", obj);
        }
        goto finally;
    }
    int blocking = PyObject_IsTrue(flag);
    if (blocking < 0) {
        goto finally;
    }
    PyObject *loop = future_get_loop(st, obj);
    if (loop == NULL) {
        goto finally;
    }
    int same_loop = loop == task->loop;
    Py_DECREF(loop);
    if (!same_loop) {
        result = schedule_error(task, st, "Task %R got Future %R attached to a different loop", task, obj);
        goto finally;
    }
    if (!blocking) {
        result = schedule_error(task, st, "yield was used instead of yield from in task %R with %R", task, obj);
        goto finally;
    }
    if (awaited_by_add(st, obj, task) < 0 ||
        PyObject_SetAttr(obj, st->str._asyncio_future_blocking, Py_False) < 0) {
        goto finally;
    }
    wakeup = task_wakeup_in_context(task, st, &context);
    add = wakeup == NULL ? NULL : PyObject_GetAttr(obj, st->str.add_done_callback);
    if (add == NULL) {
        goto finally;
    }
    PyObject *stack[] = {wakeup, context};
    PyObject *res = PyObject_Vectorcall(add, stack, 1, st->context_kwnames);
    if (res == NULL) {
        goto finally;
    }
    Py_DECREF(res);
    result = wait_for(task, st, Py_NewRef(obj));
finally:
    Py_XDECREF(add);
    Py_XDECREF(context);
    Py_XDECREF(wakeup);
    Py_XDECREF(flag);
    Py_DECREF(obj);
    return result;
}

static inline int
handle_yield(TaskObj *task, ctask_state *st, PyObject *obj)
{
    if (UNLIKELY(future_check_init((FutureObj *)task) < 0)) {
        Py_DECREF(obj); /* the coroutine has started its task anew, in vain */
        return -1;
    }
    if (obj == Py_None) {
        Py_DECREF(obj);
        return schedule_yielded(task, st);
    }
    FutureObj *fut = (FutureObj *)obj;
    if (!future_is_exact(obj) || fut->loop != task->loop || !fut->blocking || obj == (PyObject *)task) {
        return wait_for_foreign(task, st, obj);
    }
    fut->blocking = 0;
    if (awaited_by_add(st, obj, task) < 0 || future_check_init(fut) < 0 ||
        future_add_waiter(fut, st, task) < 0) {
        Py_DECREF(obj);
        return -1;
    }
    return wait_for(task, st, obj);
}

/* ---- a step ---- */

/* The coroutine has ended with the exception that is set. */
static int
end_with_exception(TaskObj *task, ctask_state *st)
{
    if (PyErr_ExceptionMatches(st->CancelledError)) {
        PyObject *cancelled = PyErr_GetRaisedException(); // up to 3.11 this may make it
        Py_XSETREF(task->cancelled_exc, cancelled);
        return future_cancel((FutureObj *)task, st, NULL) < 0 ? -1 : 0;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (future_set_exception((FutureObj *)task, st, exc) < 0) {
        Py_DECREF(exc);
        return -1;
    }
    if (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt) ||
        PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)) {
        PyErr_SetRaisedException(exc); /* and it ends the loop as well */
        return -1;
    }
    Py_DECREF(exc);
    return 0;
}

/* PyIter_Send() for throw(): the same three outcomes. */
static PySendResult
coro_throw(PyObject *coro, ctask_state *st, PyObject *exc, PyObject **result)
{
    *result = PyObject_CallMethodOneArg(coro, st->str.throw, exc);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    return _PyGen_FetchStopIterationValue(result) == 0 ? PYGEN_RETURN : PYGEN_ERROR;
}

#if PY_VERSION_HEX >= 0x030E0000
#define STEP_NAME "__step"
#else
#define STEP_NAME "_step"
#endif

static int step_lost(TaskObj *task, ctask_state *st, int entered);

/* One step, `exc` (borrowed, or NULL) being thrown in.  The task is current and its context entered. */
static int
step(TaskObj *task, ctask_state *st, PyObject *exc)
{
    PyObject *cancelled = NULL;
    if (UNLIKELY(task->state != FUTURE_PENDING)) {
        /* Not its coroutine has ended it: somebody did, by a method of Future. */
        registry_remove(task);
        PyErr_Format(
            st->InvalidStateError, STEP_NAME "(): already done: %R %R", task, exc == NULL ? Py_None : exc);
        return -1;
    }
    if (UNLIKELY(task->must_cancel)) {
        if (exc == NULL || !PyErr_GivenExceptionMatches(exc, st->CancelledError)) {
            exc = cancelled = future_cancelled_error((FutureObj *)task, st);
            if (exc == NULL) {
                return -1;
            }
        }
        task->must_cancel = 0;
    }
    Py_CLEAR(task->fut_waiter);

    if (task->coro == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        Py_XDECREF(cancelled);
        return -1;
    }
    PyObject *coro = Py_NewRef(task->coro);
    PyObject *result = NULL;
    PySendResult outcome;
    if (exc == NULL) {
        outcome = PyIter_Send(coro, Py_None, &result);
    }
    else {
        outcome = coro_throw(coro, st, exc, &result);
        Py_XDECREF(cancelled);
    }
    Py_DECREF(coro);

    if (outcome == PYGEN_NEXT) {
        return LIKELY(handle_yield(task, st, result) == 0) ? 0 : step_lost(task, st, 1);
    }
    registry_remove(task);
    if (outcome == PYGEN_ERROR) {
        return end_with_exception(task, st);
    }
    int status;
    if (UNLIKELY(task->must_cancel)) {
        /* Cancelled while it was returning. */
        task->must_cancel = 0;
        PyObject *msg = Py_XNewRef(task->cancel_msg);
        status = future_cancel((FutureObj *)task, st, msg) < 0 ? -1 : 0;
        Py_XDECREF(msg);
    }
    else {
        status = future_set_result((FutureObj *)task, st, result);
    }
    Py_DECREF(result);
    return status;
}

/* Can the task neither wait nor run?  Then nothing would ever wake it. */
static inline int
is_lost(TaskObj *task)
{
    return task->state == FUTURE_PENDING && task->fut_waiter == NULL && task->coro != NULL;
}

/* Memory was short: the coroutine hears of it where it waits, in a step of its own, or at once if there is no memory
   for that either and its context is entered.  Any other error, and what comes of hearing it at once, is the loop's
   to report. */
static __attribute__((noinline, cold)) int
step_lost(TaskObj *task, ctask_state *st, int entered)
{
    if (!is_lost(task) || !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int status = task_schedule_step(task, st, exc);
    if (status < 0) {
        int again = entered && PyErr_ExceptionMatches(PyExc_MemoryError) && is_lost(task);
        PyErr_Clear();
        /* Who waits again and again in vain does not do so for ever. */
        if (!again || Py_EnterRecursiveCall(" without memory for a task")) {
            PyErr_Clear();
            PyErr_SetRaisedException(exc);
            return -1;
        }
        status = step(task, st, exc);
        Py_LeaveRecursiveCall();
    }
    Py_DECREF(exc);
    return status;
}

/* What the coroutine is to be woken with: NULL, or the exception of the future it waited for (owned). */
static int
result_of(PyObject *obj, ctask_state *st, PyObject **exc)
{
    *exc = NULL;
    FutureObj *fut = (FutureObj *)obj;
    if (LIKELY(future_is_exact(obj) && fut->state == FUTURE_FINISHED && fut->exception == NULL)) {
        fut->log_traceback = 0;
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(obj, st->str.result);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    *exc = PyErr_GetRaisedException();
    return 0;
}

/* A step as the loop's own business or somebody's callback: `fut` is what woke the task, or NULL. */
static int
step_or_wake(TaskObj *task, ctask_state *st, PyObject *exc, PyObject *fut)
{
    PyObject *raised = NULL;
    if (fut != NULL) {
        if (awaited_by_discard(st, fut, task) < 0 || result_of(fut, st, &raised) < 0) {
            return -1;
        }
        exc = raised;
    }
    int status = step(task, st, exc);
    Py_XDECREF(raised);
    return status;
}

/* Its step cannot even begin: if memory was short the task, which waits for nothing any more, hears of that. */
static __attribute__((noinline, cold)) int
step_unbegun(TaskObj *task, ctask_state *st, int entered)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyObject *raised = PyErr_GetRaisedException();
        Py_CLEAR(task->fut_waiter);
        PyErr_SetRaisedException(raised);
    }
    return step_lost(task, st, entered);
}

/* current_enter(); 1 if that failed and the task has heard of it. */
static inline int
enter_for_step(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task)
{
    if (LIKELY(current_enter(st, ts, loop, task) == 0)) {
        return 0;
    }
    return step_unbegun(task, st, 1) < 0 ? -1 : 1;
}

/* Called by the loop for what it takes from its ring: enters the task's context, makes it current, steps. */
PART int
task_run(LoopObj *loop, PyThreadState *ts, TaskObj *task, PyObject *exc, PyObject *fut)
{
    ctask_state *st = loop->st;
    PyObject *context = Py_XNewRef(task_context(task, st));
    if (UNLIKELY(context == NULL)) {
        return step_unbegun(task, st, 0);
    }
    int status = context_enter(&st->base.contexts, ts, context);
    if (status == 0) {
        status = enter_for_step(st, ts, (PyObject *)loop, task);
        if (status == 0) {
            status = step_or_wake(task, st, exc, fut);
            task->since = loop->ready.head;
            if (UNLIKELY(status < 0)) {
                PyObject *raised = PyErr_GetRaisedException();
                (void)current_leave_later(loop, ts, task);
                PyErr_SetRaisedException(raised);
            }
            else {
                status = current_leave_later(loop, ts, task);
            }
        }
        if (UNLIKELY(status < 0)) {
            PyObject *raised = PyErr_GetRaisedException();
            (void)context_exit(&st->base.contexts, ts, context);
            PyErr_SetRaisedException(raised);
        }
        else {
            status = context_exit(&st->base.contexts, ts, context);
        }
    }
    Py_DECREF(context);
    context_rest(&st->base.contexts, &task->context);
    return status;
}

/* For `since`, where the loop may be anybody's. */
static inline void
note_step(TaskObj *task, PyObject *obj)
{
    LoopObj *loop = loop_cast(obj);
    if (loop != NULL) {
        task->since = loop->ready.head;
    }
}

/* The same as a callback: the context is entered already, and anything may have happened in between. */
PART PyObject *
task_run_as_callback(TaskObj *task, PyObject *exc, PyObject *fut)
{
    ctask_state *st = state_of((PyObject *)task);
    if (task->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return NULL;
    }
    PyObject *loop = Py_NewRef(task->loop);
    PyThreadState *ts = PyThreadState_Get();
    int status = enter_for_step(st, ts, loop, task);
    if (status == 0) {
        status = step_or_wake(task, st, exc, fut);
        note_step(task, loop);
        PyObject *raised = PyErr_GetRaisedException();
        if (current_leave(st, ts, loop, task) < 0) {
            if (raised == NULL) {
                status = -1;
            }
            else {
                PyErr_Clear();
            }
        }
        if (raised != NULL) {
            PyErr_SetRaisedException(raised);
        }
    }
    Py_DECREF(loop);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- an eager start ---- */

/* step() that does not see which exception its caller handles: in a step from the ring there is none. */
static int
step_apart(TaskObj *task, ctask_state *st)
{
    PyThreadState *ts = PyThreadState_Get();
    _PyErr_StackItem *handled = ts->exc_info;
    _PyErr_StackItem none = {0};
    ts->exc_info = &none;
    int status = step(task, st, NULL);
    ts->exc_info = handled;
    Py_XDECREF(none.exc_value);
    return status;
}

/* The coroutine runs now, up to where it first waits, in place of a step through the ring. */
PART int
task_start_eagerly(TaskObj *task, ctask_state *st)
{
    if (UNLIKELY(future_check_init((FutureObj *)task) < 0)) {
        return -1; /* is_running() may be anybody's */
    }
    PyObject *loop = Py_NewRef(task->loop);
    PyObject *context = Py_XNewRef(task_context(task, st));
    PyObject *before = NULL;
    LoopObj *observed = loop_cast(loop);
    uint64_t began = 0; // where an observer sees it
    int status = context == NULL ? -1 : PyContext_Enter(context);
    if (status < 0) {
        task->log_destroy_pending = 0; // it never was a task
        goto finally;
    }
    status = registry_add(st, task);
    if (status == 0) {
        if (UNLIKELY(observed != NULL && observed->observer != NULL)) {
            began = st->tasks.observe_clock(observed);
        }
        int ours = current_is_ours(st, loop);
        before = ours > 0 ? current_swap(st, loop, (PyObject *)task) : NULL;
        status = ours < 0 || (ours > 0 && before == NULL) ? -1 : step_apart(task, st);
        note_step(task, loop);
        if (UNLIKELY(began != 0)) {
            st->tasks.observe_eager(observed, task, began);
        }
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *after = before == NULL ? NULL : current_swap(st, loop, before);
    PyObject *unswapped = PyErr_GetRaisedException();
    if (PyContext_Exit(context) < 0 || unswapped != NULL) {
        status = -1;
    }
    Py_XDECREF(after);
    Py_XDECREF(before);
    /* What was first is what is raised. */
    if (raised == NULL) {
        raised = unswapped;
    }
    else {
        Py_XDECREF(unswapped);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    if (task->state != FUTURE_PENDING) {
        Py_CLEAR(task->coro);
    }
finally:
    Py_XDECREF(context);
    Py_DECREF(loop);
    return status;
}
