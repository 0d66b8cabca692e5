/* Futures: results, exceptions, and who is told when they come.  What is here is what schedules: completion goes to the
   loop's ring.  What Python sees is in future_type.c.

   A task that waits is the most frequent callback by far, so it has a form of its own: while the slot is
   free, future_add_waiter() stores the Task itself in callback0, with None for its context.  `_asyncio` stores a
   callback object there; waiter_as_callback() makes one before inherited code may look.  Anybody can end one of our
   futures by the methods of `_asyncio.Future`, which then calls loop.call_soon(task, future, context=None): our
   loop's knows that (schedule.c), and on a loop whose call_soon() is another the Task is not stored. */

#include "handles/handles.h"
#include "tasks/callable.h"
#include "tasks/future.h"

/* ---- scheduling ---- */

/* loop.call_soon(callback, arg, context=context), as documented; `arg` may be NULL. */
PART int
call_soon(ctask_state *st, PyObject *loop, PyObject *callback, PyObject *arg, PyObject *context)
{
    PyObject *stack[4] = {loop, callback};
    size_t nargs = 2;
    if (arg != NULL) {
        stack[nargs++] = arg;
    }
    stack[nargs] = context;
    PyObject *handle = PyObject_VectorcallMethod(st->str.call_soon, stack, nargs, st->context_kwnames);
    if (handle == NULL) {
        return -1;
    }
    Py_DECREF(handle);
    return 0;
}

/* The loop's own call_soon() has failed.  In debug mode it makes much: if memory was short the ring takes the callback
   (stolen, as is `context`) without all that, as who waits would do so for ever.  A call_soon() of the program's own may
   have kept it. */
static __attribute__((noinline, cold)) int
schedule_without_memory(FutureObj *fut, PyObject *callback, PyObject *context)
{
    PyObject *raised = PyErr_GetRaisedException();
    LoopObj *loop = fut->loop == NULL ? NULL : loop_cast(fut->loop);
    if (loop != NULL && loop->is_open && PyErr_GivenExceptionMatches(raised, PyExc_MemoryError) &&
        !loop_check_overrides(loop) && PyContext_CheckExact(context)) {
        int result = loop_ready(loop, callback, READY_CALL, Py_NewRef(fut), context);
        Py_DECREF(raised);
        return result;
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    PyErr_SetRaisedException(raised);
    return -1;
}

/* Have the loop call `callback(fut)`; steals `callback` and `context`, also when it fails. */
static int
schedule_callback(FutureObj *fut, ctask_state *st, PyObject *callback, PyObject *context)
{
    /* A call_soon() may start the future anew; by `_asyncio`'s own __init__(), which fails without a loop, it has none. */
    PyObject *other = fut->loop;
    LoopObj *loop = UNLIKELY(other == NULL) ? NULL : loop_plain(other);
    if (LIKELY(loop != NULL && PyContext_CheckExact(context))) {
        return loop_ready(loop, callback, READY_CALL, Py_NewRef(fut), context);
    }
    other = Py_XNewRef(fut->loop);
    int result = future_check_init(fut) < 0 ? -1 : call_soon(st, other, callback, (PyObject *)fut, context);
    Py_XDECREF(other);
    if (UNLIKELY(result < 0)) {
        return schedule_without_memory(fut, callback, context);
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    return result;
}

/* Have the loop wake a task that waits for `fut`; steals `task`, and does not look into it: a million that wait
   are far from the processor.  So whoever takes it from the ring asks whether it is a task: `_asyncio`'s own
   add_done_callback() may have left another callback with None for its context. */
static int
schedule_wakeup(FutureObj *fut, ctask_state *st, PyObject *task)
{
    LoopObj *loop = loop_plain(fut->loop);
    if (LIKELY(loop != NULL)) {
        return loop_ready(loop, task, READY_WAKE, Py_NewRef(fut), NULL);
    }
    PyObject *context, *wakeup;
    if (task_is_exact(task)) {
        wakeup = task_wakeup_in_context((TaskObj *)task, st, &context);
    }
    else {
        context = context_copy(&st->base.contexts);
        wakeup = context == NULL ? NULL : Py_NewRef(task);
    }
    Py_DECREF(task);
    return wakeup == NULL ? -1 : schedule_callback(fut, st, wakeup, context);
}

/* The future is done: hand every callback to the loop. */
PART int
future_schedule_callbacks(FutureObj *fut, ctask_state *st)
{
    /* call_soon() may be anybody's: both fields are ours before the first call. */
    PyObject *callback0 = fut->callback0;
    PyObject *context0 = fut->context0;
    PyObject *callbacks = fut->callbacks;
    fut->callback0 = fut->context0 = fut->callbacks = NULL;

    int result = 0;
    if (LIKELY(context0 == Py_None)) {
        CONSTANT_DROP(context0);
        result = schedule_wakeup(fut, st, callback0);
    }
    else if (callback0 != NULL) {
        result = schedule_callback(fut, st, callback0, context0);
    }
    if (callbacks != NULL) {
        for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(callbacks); i++) {
            PyObject *pair = PyList_GET_ITEM(callbacks, i);
            if (UNLIKELY(!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)) {
                /* `_asyncio`'s getter of `_callbacks` gave the very list away, up to 3.13.0. */
                PyErr_SetString(PyExc_RuntimeError, "corrupted callback tuple");
                result = -1;
                break;
            }
            result = schedule_callback(
                fut, st, Py_NewRef(PyTuple_GET_ITEM(pair, 0)), Py_NewRef(PyTuple_GET_ITEM(pair, 1)));
        }
        Py_DECREF(callbacks);
    }
    return result;
}

/* asyncio.futures._get_loop() */
PART PyObject *
future_get_loop(ctask_state *st, PyObject *fut)
{
    PyObject *method;
    if (PyObject_GetOptionalAttr(fut, st->str.get_loop, &method) < 0) {
        return NULL;
    }
    if (method == NULL) {
        return PyObject_GetAttr(fut, st->str._loop);
    }
    PyObject *loop = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return loop;
}

/* ---- callbacks ---- */

static int
callbacks_append(FutureObj *fut, PyObject *callback, PyObject *context)
{
    PyObject *pair = PyTuple_Pack(2, callback, context), *list = PyList_New(0);
    int result = pair == NULL || list == NULL ? -1 : 0;
    /* Up to 3.11 memory that is asked for may start a collection, and that may have ended the future. */
    if (result == 0 && UNLIKELY(fut->state != FUTURE_PENDING)) {
        result = schedule_callback(fut, state_of((PyObject *)fut), Py_NewRef(callback), Py_NewRef(context));
    }
    else if (result == 0) {
        if (fut->callbacks == NULL) {
            fut->callbacks = Py_NewRef(list);
        }
        result = PyList_Append(fut->callbacks, pair);
    }
    Py_XDECREF(list);
    Py_XDECREF(pair);
    return result;
}

PART int
future_add_callback(FutureObj *fut, ctask_state *st, PyObject *callback, PyObject *context)
{
    if (fut->state != FUTURE_PENDING) {
        return schedule_callback(fut, st, Py_NewRef(callback), Py_NewRef(context));
    }
    /* A Task given as a callback is a caller's mistake, and in the first place it would be a waiter: in the
       list it is what it is, and the loop will say that it cannot be called. */
    if (fut->callback0 == NULL && fut->callbacks == NULL && !task_is_exact(callback)) {
        fut->callback0 = Py_NewRef(callback);
        fut->context0 = Py_NewRef(context);
        return 0;
    }
    return callbacks_append(fut, callback, context);
}

/* Calls `task` back when `fut` is done (at once through the loop if it is). */
PART int
future_add_waiter(FutureObj *fut, ctask_state *st, TaskObj *task)
{
    if (task_is_exact((PyObject *)task) && context_is(&st->base.contexts, task->context)) {
        if (fut->state != FUTURE_PENDING) {
            return schedule_wakeup(fut, st, Py_NewRef(task));
        }
        if (fut->callback0 == NULL && fut->callbacks == NULL && LIKELY(loop_plain(fut->loop) != NULL)) {
            fut->callback0 = Py_NewRef(task);
            fut->context0 = CONSTANT_REF(Py_None);
            return 0;
        }
    }
    PyObject *context, *wakeup = task_wakeup_in_context(task, st, &context);
    if (wakeup == NULL) {
        return -1;
    }
    int result = future_add_callback(fut, st, wakeup, context);
    Py_DECREF(wakeup);
    Py_DECREF(context);
    return result;
}

/* ---- the call graph ---- */

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

/* ---- completion ---- */

static int
check_pending(FutureObj *fut, ctask_state *st)
{
    if (future_check_init(fut) < 0) {
        return -1;
    }
    if (fut->state != FUTURE_PENDING) {
        PyErr_SetString(st->InvalidStateError, "invalid state");
        return -1;
    }
    return 0;
}

PART int
future_set_result(FutureObj *fut, ctask_state *st, PyObject *result)
{
    if (check_pending(fut, st) < 0) {
        return -1;
    }
    fut->result = Py_NewRef(result);
    fut->state = FUTURE_FINISHED;
    return future_schedule_callbacks(fut, st);
}

/* What is accepted as an exception, and the traceback that is kept, differ between versions: `_asyncio`
   stores it, with no callbacks in sight, and the callbacks are then scheduled our way. */
PART int
future_set_exception(FutureObj *fut, ctask_state *st, PyObject *exc)
{
    if (check_pending(fut, st) < 0) {
        return -1;
    }
    PyObject *instance = PyExceptionClass_Check(exc) ? PyObject_CallNoArgs(exc) : Py_NewRef(exc);
    if (instance == NULL) {
        return -1;
    }
    PyObject *callback0 = fut->callback0;
    PyObject *context0 = fut->context0;
    PyObject *callbacks = fut->callbacks;
    fut->callback0 = fut->context0 = fut->callbacks = NULL;
    PyObject *stack[] = {(PyObject *)fut, instance};
    PyObject *res = PyObject_Vectorcall(st->stock_set_exception, stack, 2, NULL);
    fut->callback0 = callback0;
    fut->context0 = context0;
    fut->callbacks = callbacks;
    Py_DECREF(instance); /* if it is none its end may add callbacks, or end the future */
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return future_schedule_callbacks(fut, st);
}

/* Returns 1 if this call cancelled it, 0 if it was done already. */
PART int
future_cancel(FutureObj *fut, ctask_state *st, PyObject *msg)
{
    fut->log_traceback = 0;
    if (fut->state != FUTURE_PENDING) {
        return 0;
    }
    fut->state = FUTURE_CANCELLED;
    Py_XSETREF(fut->cancel_msg, Py_XNewRef(msg));
    return future_schedule_callbacks(fut, st) < 0 ? -1 : 1;
}

/* obj.method(), which answers yes or no: 1, 0, or -1 with an exception. */
PART int
call_predicate(PyObject *obj, PyObject *method)
{
    PyObject *res = PyObject_CallMethodNoArgs(obj, method);
    int answer = res == NULL ? -1 : PyObject_IsTrue(res);
    Py_XDECREF(res);
    return answer;
}

/* The CancelledError to raise: the one that ended the task, given out once, or a new one. */
PART PyObject *
future_cancelled_error(FutureObj *fut, ctask_state *st)
{
    PyObject *exc = fut->cancelled_exc;
    if (exc != NULL) {
        fut->cancelled_exc = NULL;
        return exc;
    }
    if (fut->cancel_msg == NULL || fut->cancel_msg == Py_None) {
        return PyObject_CallNoArgs(st->CancelledError);
    }
    PyObject *msg = Py_NewRef(fut->cancel_msg); // it may be replaced meanwhile
    exc = PyObject_CallOneArg(st->CancelledError, msg);
    Py_DECREF(msg);
    return exc;
}

/* ---- making them ---- */

/* A pending future of `loop` (stolen), whatever it was.  It never lacks a loop again, and what it had is let go when
   it is whole: that may run anything. */
static void
future_begin(FutureObj *fut, PyObject *loop)
{
    PyObject *before[] = {fut->loop,
                          fut->callback0,
                          fut->context0,
                          fut->callbacks,
                          fut->exception,
                          fut->exception_tb,
                          fut->result,
                          fut->source_traceback,
                          fut->cancel_msg,
                          fut->cancelled_exc,
#if FUTURE_CALL_GRAPH
                          fut->awaited_by
#endif
    };
    fut->loop = loop;
    fut->callback0 = fut->context0 = fut->callbacks = NULL;
    fut->exception = fut->exception_tb = fut->result = NULL;
    fut->source_traceback = fut->cancel_msg = fut->cancelled_exc = NULL;
    fut->state = FUTURE_PENDING;
    fut->log_traceback = 0;
    fut->blocking = 0;
#if FUTURE_CALL_GRAPH
    fut->awaited_by = NULL;
    fut->awaited_by_is_set = 0;
    fut->is_task = 0;
#endif
    for (size_t i = 0; i < Py_ARRAY_LENGTH(before); i++) {
        Py_XDECREF(before[i]);
    }
}

/* The common start of Future and Task.  Any field may hold something: __init__ can be called twice. */
PART int
future_init(FutureObj *fut, ctask_state *st, PyObject *loop)
{
    if (loop == NULL || loop == Py_None) {
        loop = PyObject_CallNoArgs(st->stock_get_event_loop);
        if (loop == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(loop);
    }
    future_begin(fut, Py_NewRef(loop));
    if (loop_plain(loop) != NULL) {
        Py_DECREF(loop);
        return 0;
    }
    int debug = call_predicate(loop, st->str.get_debug);
    Py_DECREF(loop);
    if (debug > 0 && !Py_IsFinalizing()) {
        /* While the interpreter shuts down the traceback module may be gone already. */
        PyObject *stack = PyObject_CallNoArgs(st->traceback_extract_stack);
        if (stack == NULL) {
            return -1;
        }
        Py_XSETREF(fut->source_traceback, stack);
    }
    return debug < 0 ? -1 : 0;
}

/* A new ctask.Future of `loop`: what loop.create_future() returns. */
PART PyObject *
future_create(ctask_state *st, PyObject *loop)
{
    FutureObj *fut = (FutureObj *)freelist_take(&st->tasks.free_futures, st->FutureType);
    if (fut == NULL) {
        return NULL;
    }
    memset((char *)fut + sizeof(PyObject), 0, sizeof(FutureObj) - sizeof(PyObject));
    PyObject_GC_Track(fut);
    if (LIKELY(loop_plain(loop) != NULL)) {
        fut->loop = Py_NewRef(loop);
    }
    else if (future_init(fut, st, loop) < 0) {
        Py_DECREF(fut);
        return NULL;
    }
    return (PyObject *)fut;
}

/* loop.create_future(), of any loop. */
PART PyObject *
loop_new_future(ctask_state *st, PyObject *loop)
{
    if (LIKELY(loop_plain(loop) != NULL)) {
        return future_create(st, loop);
    }
    Py_INCREF(loop); /* whoever holds it may drop it in the call */
    PyObject *fut = PyObject_CallMethodNoArgs(loop, st->str.create_future);
    Py_DECREF(loop);
    return fut;
}
