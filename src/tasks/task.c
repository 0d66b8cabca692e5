/* ctask.Task: drives a coroutine, one step at a time.

   A step is PyIter_Send() and a look at what came out: a future to wait for, a bare yield, a result or an
   exception.  The loop calls task_run() for the steps and wake-ups in its ring.  On any other loop, and
   wherever a call must be seen (debug mode, an overridden call_soon), the same step is wrapped in a
   callable and goes through loop.call_soon() as asyncio's own does.

   As with Future, what is cold (names of states, get_stack(), reprs, uncancel(), the report of a
   destroyed pending task) is inherited from `_asyncio.Task`. */

#include "tasks/tasks.h"

/* ---- scheduling a step ---- */

static int
schedule_step(TaskObj *task, ctask_state *st, PyObject *exc)
{
    LoopObj *loop = loop_plain(task->loop);
    if (LIKELY(loop != NULL && context_is(&st->base.contexts, task->context))) {
        return loop_ready(loop, Py_NewRef(task), READY_STEP, Py_XNewRef(exc), NULL);
    }
    PyObject *step = task_step_callback(task, st, exc);
    if (step == NULL) {
        return -1;
    }
    /* A foreign call_soon() may drop the task's fields. */
    PyObject *context = Py_XNewRef(task_context(task, st));
    if (context == NULL) {
        Py_DECREF(step);
        return -1;
    }
    PyObject *loop_obj = Py_NewRef(task->loop);
    int result = call_soon(st, loop_obj, step, NULL, context);
    Py_DECREF(loop_obj);
    Py_DECREF(context);
    Py_DECREF(step);
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
    int result = schedule_step(task, st, exc);
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
    return schedule_step(task, st, NULL);
}

/* ---- waiting ---- */

#if FUTURE_CALL_GRAPH
PART int
awaited_by_call(ctask_state *st, PyObject *function, PyObject *fut, TaskObj *task)
{
    if (!PyObject_TypeCheck(fut, (PyTypeObject *)st->stock_Future)) {
        return 0;
    }
    PyObject *stack[] = {fut, (PyObject *)task};
    PyObject *res = PyObject_Vectorcall(function, stack, 2, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}
#endif

/* The task waits for `fut` from now on (steals it); a cancellation that came too early reaches it now. */
static int
wait_for(TaskObj *task, ctask_state *st, PyObject *fut)
{
    Py_XSETREF(task->fut_waiter, fut);
    if (LIKELY(!task->must_cancel)) {
        return 0;
    }
    PyObject *msg = Py_NewRef(task->cancel_msg == NULL ? Py_None : task->cancel_msg);
    Py_INCREF(fut);
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
    PyObject *wakeup = NULL, *add = NULL, *flag = NULL;

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
    wakeup = task_wakeup_callback(task);
    add = PyObject_GetAttr(obj, st->str.add_done_callback);
    PyObject *context = Py_XNewRef(task_context(task, st));
    PyObject *res = NULL;
    if (wakeup != NULL && add != NULL && context != NULL) {
        PyObject *stack[] = {wakeup, context};
        res = PyObject_Vectorcall(add, stack, 1, st->context_kwnames);
    }
    Py_XDECREF(context);
    if (res == NULL) {
        goto finally;
    }
    Py_DECREF(res);
    result = wait_for(task, st, Py_NewRef(obj));
finally:
    Py_XDECREF(add);
    Py_XDECREF(wakeup);
    Py_XDECREF(flag);
    Py_DECREF(obj);
    return result;
}

static inline int
handle_yield(TaskObj *task, ctask_state *st, PyObject *obj)
{
    if (obj == Py_None) {
        Py_DECREF(obj);
        return schedule_yielded(task, st);
    }
    FutureObj *fut = (FutureObj *)obj;
    if (!future_is_exact(obj) || fut->loop != task->loop || !fut->blocking || obj == (PyObject *)task) {
        return wait_for_foreign(task, st, obj);
    }
    fut->blocking = 0;
    if (awaited_by_add(st, obj, task) < 0 || future_add_waiter(fut, st, task) < 0) {
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
        Py_XSETREF(task->cancelled_exc, PyErr_GetRaisedException());
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
        return handle_yield(task, st, result);
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

/* Called by the loop for what it takes from its ring: enters the task's context, makes it current, steps. */
PART int
task_run(LoopObj *loop, PyThreadState *ts, TaskObj *task, PyObject *exc, PyObject *fut)
{
    ctask_state *st = loop->st;
    PyObject *context = Py_XNewRef(task_context(task, st));
    if (UNLIKELY(context == NULL)) {
        return -1;
    }
    int status = context_enter(&st->base.contexts, ts, context);
    if (status == 0) {
        status = current_enter(st, ts, (PyObject *)loop, task);
        if (status == 0) {
            status = step_or_wake(task, st, exc, fut);
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

/* The same as a callback: the context is entered already, and anything may have happened in between. */
static PyObject *
run_as_callback(TaskObj *task, PyObject *exc, PyObject *fut)
{
    ctask_state *st = state_of((PyObject *)task);
    if (task->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return NULL;
    }
    PyObject *loop = Py_NewRef(task->loop);
    PyThreadState *ts = PyThreadState_Get();
    int status = current_enter(st, ts, loop, task);
    if (status == 0) {
        status = step_or_wake(task, st, exc, fut);
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

/* ---- life ---- */

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
static int
eager_start(TaskObj *task, ctask_state *st)
{
    PyObject *loop = Py_NewRef(task->loop);
    PyObject *context = Py_XNewRef(task_context(task, st));
    PyObject *before = NULL;
    int status = context == NULL ? -1 : PyContext_Enter(context);
    if (status < 0) {
        task->log_destroy_pending = 0; // it never was a task
        goto finally;
    }
    status = registry_add(st, task);
    if (status == 0) {
        before = current_swap(st, loop, (PyObject *)task);
        status = before == NULL ? -1 : step_apart(task, st);
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *after = before == NULL ? NULL : current_swap(st, loop, before);
    if ((before != NULL && after == NULL) || PyContext_Exit(context) < 0) {
        status = -1;
    }
    Py_XDECREF(after);
    Py_XDECREF(before);
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

static int
is_coroutine(ctask_state *st, PyObject *obj)
{
    if (PyCoro_CheckExact(obj) || Py_IS_TYPE(obj, st->CoroType)) {
        return 1;
    }
    PyObject *res = PyObject_CallOneArg(st->iscoroutine, obj);
    if (res == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(res);
    Py_DECREF(res);
    return result;
}

/* The name of a task that was given none: a number, which get_name() formats. */
static PyObject *
task_number(ctask_state *st)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyLong_FromUnsignedLongLong(++st->tasks.counter);
#else /* `_asyncio.Task.get_name()`, which may be called with our tasks, does not */
    return PyUnicode_FromFormat("Task-%llu", (unsigned long long)++st->tasks.counter);
#endif
}

static int
task_init(TaskObj *task, ctask_state *st, PyObject *coro, PyObject *loop, PyObject *name, PyObject *context,
          int eager)
{
    if (future_init((FutureObj *)task, st, loop) < 0) {
        return -1;
    }
#if FUTURE_CALL_GRAPH
    task->is_task = 1;
#endif
    int is_coro = is_coroutine(st, coro);
    if (is_coro <= 0) {
        if (is_coro == 0) {
            task->log_destroy_pending = 0;
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
        }
        return -1;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (context != NULL && context != Py_None && !PyContext_CheckExact(context)) {
        task->log_destroy_pending = 0;
        PyErr_Format(PyExc_TypeError, "a contextvars.Context was expected, got %T", context);
        return -1;
    }
#endif
    context = context == NULL || context == Py_None ? context_snapshot(&st->base.contexts) : Py_NewRef(context);
    if (context == NULL) {
        return -1;
    }
    Py_XSETREF(task->context, context);
    Py_CLEAR(task->fut_waiter);
    task->must_cancel = 0;
    task->log_destroy_pending = 1;
    task->num_cancels_requested = 0;
    Py_XSETREF(task->coro, Py_NewRef(coro));
    if (name == NULL || name == Py_None) {
        name = task_number(st);
    }
    else {
        name = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    }
    if (name == NULL) {
        return -1;
    }
    Py_XSETREF(task->name, name);

    if (eager) {
        PyObject *own_loop = Py_NewRef(task->loop);
        PyObject *res = PyObject_CallMethodNoArgs(own_loop, st->str.is_running);
        Py_DECREF(own_loop);
        if (res == NULL) {
            return -1;
        }
        int running = PyObject_IsTrue(res);
        Py_DECREF(res);
        if (running != 0) {
            return running < 0 ? -1 : eager_start(task, st);
        }
    }
    if (schedule_step(task, st, NULL) < 0) {
        return -1;
    }
    return registry_add(st, task);
}

PART PyObject *
task_create(ctask_state *st, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context, int eager)
{
    TaskObj *task = (TaskObj *)freelist_take(&st->tasks.free_tasks, st->TaskType);
    if (task == NULL) {
        return NULL;
    }
    memset((char *)task + sizeof(PyObject), 0, sizeof(TaskObj) - sizeof(PyObject));
    PyObject_GC_Track(task);
    if (task_init(task, st, coro, loop, name, context, eager) < 0) {
        Py_DECREF(task);
        return NULL;
    }
    return (PyObject *)task;
}

static int
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

static int
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

#if !TASKS_IN_THREAD_STATE
/* asyncio's WeakSet forgets a task before its finalizer runs, so that one which the report of its own
   destruction brings back to life is not listed any more. */
static void
task_finalize(PyObject *self)
{
    registry_remove((TaskObj *)self);
    ((PyTypeObject *)state_of(self)->stock_Task)->tp_finalize(self);
}
#endif

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

/* ---- the type ---- */

static int
Task___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
#if PY_VERSION_HEX >= 0x030C0000
    static char *keywords[] = {"coro", "loop", "name", "context", "eager_start", NULL};
    const char *format = "O|$OOOp:Task";
#else
    static char *keywords[] = {"coro", "loop", "name", "context", NULL};
    const char *format = "O|$OOO:Task";
#endif
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None;
    int eager = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &coro, &loop, &name, &context, &eager)) {
        return -1;
    }
    if (refuse_second_init((FutureObj *)self) < 0) {
        return -1;
    }
    ctask_state *st = state_of(self);
    state_keep(st);
    return task_init((TaskObj *)self, st, coro, loop, name, context, eager);
}

PyDoc_STRVAR(Task_cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Have CancelledError(msg) thrown into the coroutine; return False if the task is done.\n\n"
"(asyncio.Task.cancel)");

static PyObject *
Task_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    ctask_state *st = state_of(self);
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (UNLIKELY(nargs + nkw > 1 ||
                 (nkw == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "msg") != 0))) {
        PyObject *stack[4] = {self};
        if (nargs + nkw > 3) {
            PyErr_SetString(PyExc_TypeError, "cancel() takes at most 1 argument");
            return NULL;
        }
        memcpy(stack + 1, args, (size_t)(nargs + nkw) * sizeof(PyObject *));
        return PyObject_Vectorcall(st->stock_task_cancel, stack, (size_t)nargs + 1, kwnames);
    }
    int result = task_cancel((TaskObj *)self, st, nargs + nkw == 1 ? args[0] : Py_None);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

PyDoc_STRVAR(Task_get_name_doc,
"get_name($self, /)\n--\n\n"
"Return the name of the task, a str.  (asyncio.Task.get_name)");

static PyObject *
Task_get_name(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TaskObj *task = (TaskObj *)self;
    if (task->name == NULL) {
        Py_RETURN_NONE;
    }
    if (PyLong_CheckExact(task->name)) {
        PyObject *name = PyUnicode_FromFormat("Task-%S", task->name);
        if (name == NULL) {
            return NULL;
        }
        Py_SETREF(task->name, name);
    }
    return Py_NewRef(task->name);
}

PyDoc_STRVAR(Task_get_coro_doc,
"get_coro($self, /)\n--\n\n"
"Return the coroutine that the task runs; None once a task that was started eagerly has ended.\n\n"
"(asyncio.Task.get_coro)");

static PyObject *
Task_get_coro(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *coro = ((TaskObj *)self)->coro;
    return Py_NewRef(coro == NULL ? Py_None : coro);
}

#if PY_VERSION_HEX >= 0x030C0000
#define TASK_SIGNATURE "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\n"

PyDoc_STRVAR(Task_get_context_doc,
"get_context($self, /)\n--\n\n"
"Return the contextvars.Context in which the coroutine runs.  (asyncio.Task.get_context)");

static PyObject *
Task_get_context(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TaskObj *task = (TaskObj *)self;
    return task->context == NULL ? Py_NewRef(Py_None) : Py_XNewRef(task_context(task, state_of(self)));
}

/* `_asyncio.Task.get_context()`, called with any task: ours may have only the variables of its context. */
static PyObject *
stock_get_context(PyObject *self, PyObject *ignored)
{
    PyObject *mro = Py_TYPE(self)->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        if (((PyTypeObject *)PyTuple_GET_ITEM(mro, i))->tp_dealloc == task_dealloc) {
            return Task_get_context(self, ignored);
        }
    }
    PyObject *context = ((TaskObj *)self)->context;
    return Py_NewRef(context == NULL ? Py_None : context);
}

static PyMethodDef stock_get_context_def = {
    "get_context", stock_get_context, METH_NOARGS, PyDoc_STR("get_context($self, /)\n--\n\n")};

/* It gives what is in the field, which is not always a context, and nothing else is asked on the way.  So it is the one
   method of asyncio's own type in whose place there is another; for asyncio's tasks it answers as before. */
static int
replace_get_context(PyTypeObject *type)
{
    PyObject *method = PyDescr_NewMethod(type, &stock_get_context_def);
    int result = method == NULL ? -1 : PyDict_SetItemString(type->tp_dict, "get_context", method);
    Py_XDECREF(method);
    PyType_Modified(type);
    return result;
}
#else
#define TASK_SIGNATURE "Task(coro, *, loop=None, name=None, context=None)\n--\n\n"
#endif

PyDoc_STRVAR(Task_doc,
TASK_SIGNATURE
"A coroutine that the event loop runs; awaiting the task gives its result.\n\n"
"Stands for asyncio.Task, which it derives from.  Raises TypeError if `coro` is no\n"
"coroutine.  Use loop.create_task() or asyncio.create_task() to make one.");

PyDoc_STRVAR(Task_add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=<unrepresentable>)\n--\n\n"
"As ctask.Future.add_done_callback().");

PyDoc_STRVAR(Task_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"As ctask.Future.remove_done_callback().");

PyDoc_STRVAR(Task___await___doc,
"__await__($self, /)\n--\n\n"
"As ctask.Future.__await__().");

/* ctask.Future has what is about callbacks, but `_asyncio.Task` has them a second time, and it comes first in
   the order of bases (for its cancel() and set_result()). */
static PyMethodDef Task_methods[] = {
    {"add_done_callback",
     (PyCFunction)(void (*)(void))Future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS,
     Task_add_done_callback_doc},
    {"remove_done_callback", Future_remove_done_callback, METH_O, Task_remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))Task_cancel, METH_FASTCALL | METH_KEYWORDS, Task_cancel_doc},
    {"get_name", Task_get_name, METH_NOARGS, Task_get_name_doc},
    /* `_asyncio`'s of some versions crash on a task without __init__. */
    {"get_coro", Task_get_coro, METH_NOARGS, Task_get_coro_doc},
#if PY_VERSION_HEX >= 0x030C0000
    {"get_context", Task_get_context, METH_NOARGS, Task_get_context_doc},
#endif
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Task_getset[] = {
    {"_callbacks", Future_get_callbacks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, (void *)Task_doc},
    {Py_tp_init, Task___init__},
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_iter, future_iter},
    {Py_am_await, future_iter}, /* for __await__(); see future_become_iterator() */
#if !TASKS_IN_THREAD_STATE
    {Py_tp_finalize, task_finalize},
#endif
    {Py_tp_methods, Task_methods},
    {Py_tp_getset, Task_getset},
    {0, NULL},
};

static PyType_Spec Task_spec = {
    .name = "ctask.Task",
    .basicsize = sizeof(TaskObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Task_slots,
};

PART int
task_setup(PyObject *module, ctask_state *st)
{
    PyObject *bases = PyTuple_Pack(2, st->stock_Task, (PyObject *)st->FutureType);
    if (bases == NULL) {
        return -1;
    }
    int result = add_type(module, "Task", &st->TaskType, &Task_spec, bases);
    Py_DECREF(bases);
    if (result < 0) {
        return -1;
    }
    future_become_iterator(st->TaskType);
#if PY_VERSION_HEX >= 0x030C0000
    if (replace_get_context((PyTypeObject *)st->stock_Task) < 0) {
        return -1;
    }
#endif
    st->tasks.run_as_callback = run_as_callback;
    return 0;
}
