/* ctask.Future: results, exceptions, and who is told when they come.

   The type derives from `_asyncio.Future` and shares its layout, so all that is cold (reprs, getters,
   source tracebacks, "exception was never retrieved") is inherited, in the shape that the
   running Python version gives it.  What is here is what schedules: completion goes to the loop's ring.

   A task that waits is the most frequent callback by far, so it has a form of its own: while the slot is
   free, future_add_waiter() stores the Task itself in callback0, with None for its context.  `_asyncio` stores a
   callback object there; waiter_as_callback() makes one before inherited code may look.  Anybody can end one of our
   futures by the methods of `_asyncio.Future`, which then calls loop.call_soon(task, future, context=None): our
   loop's knows that (schedule.c), and on a loop whose call_soon() is another the Task is not stored. */

#include "tasks/tasks.h"

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

/* Have the loop call `callback(fut)`; steals `callback` and `context`, also when it fails. */
static int
schedule_callback(FutureObj *fut, ctask_state *st, PyObject *callback, PyObject *context)
{
    LoopObj *loop = loop_plain(fut->loop);
    if (LIKELY(loop != NULL && PyContext_CheckExact(context))) {
        return loop_ready(loop, callback, READY_CALL, Py_NewRef(fut), context);
    }
    PyObject *other = Py_NewRef(fut->loop); /* its call_soon() may start the future anew */
    int result = call_soon(st, other, callback, (PyObject *)fut, context);
    Py_DECREF(other);
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
    PyObject *context = NULL, *wakeup = NULL;
    if (!task_is_exact(task)) {
        context = context_copy(&st->base.contexts);
        wakeup = Py_NewRef(task);
    }
    else if ((context = Py_XNewRef(task_context((TaskObj *)task, st))) != NULL) {
        wakeup = task_wakeup_callback((TaskObj *)task);
    }
    Py_DECREF(task);
    if (context == NULL || wakeup == NULL) {
        Py_XDECREF(context);
        Py_XDECREF(wakeup);
        return -1;
    }
    return schedule_callback(fut, st, wakeup, context);
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

/* Bring callback0 into the form that `_asyncio` knows. */
static int
waiter_as_callback(FutureObj *fut)
{
    if (fut->callback0 == NULL || !task_is_exact(fut->callback0)) {
        return 0;
    }
    TaskObj *task = (TaskObj *)Py_NewRef(fut->callback0);
    PyObject *context = Py_XNewRef(task_context(task, state_of((PyObject *)task)));
    PyObject *wakeup = context == NULL ? NULL : task_wakeup_callback(task);
    int result = wakeup == NULL ? -1 : 0;
    if (LIKELY(wakeup != NULL && fut->callback0 == (PyObject *)task)) { /* a collection may have ended it */
        PyObject *before = fut->context0;
        fut->callback0 = wakeup;
        fut->context0 = context;
        wakeup = context = NULL;
        Py_XDECREF(before);
        Py_DECREF(task);
    }
    Py_XDECREF(wakeup);
    Py_XDECREF(context);
    Py_DECREF(task);
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
    PyObject *wakeup = task_wakeup_callback(task);
    if (wakeup == NULL) {
        return -1;
    }
    PyObject *context = task_context(task, st);
    int result = context == NULL ? -1 : future_add_callback(fut, st, wakeup, context);
    Py_DECREF(wakeup);
    return result;
}

/* ---- completion ---- */

static int
check_pending(FutureObj *fut, ctask_state *st)
{
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
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
    Py_DECREF(instance);
    fut->callback0 = callback0;
    fut->context0 = context0;
    fut->callbacks = callbacks;
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
    return PyObject_CallOneArg(st->CancelledError, fut->cancel_msg);
}

/* ---- life ---- */

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

static int
future_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    FUTURE_VISIT_DICT((FutureObj *)self);
    return future_traverse_fields((FutureObj *)self, visit, arg);
}

static int
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
    PyObject *res = PyObject_CallMethodNoArgs(loop, st->str.get_debug);
    Py_DECREF(loop);
    if (res == NULL) {
        return -1;
    }
    int debug = PyObject_IsTrue(res);
    Py_DECREF(res);
    if (debug > 0 && !Py_IsFinalizing()) {
        /* While the interpreter shuts down the traceback module may be gone already. */
        Py_XSETREF(fut->source_traceback, PyObject_CallNoArgs(st->traceback_extract_stack));
        if (fut->source_traceback == NULL) {
            return -1;
        }
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

/* ---- await ---- */

/* One turn of `await fut`: the future itself while it is pending, then its result.  Whether it was yielded
   already is in `blocking`, so no state is needed but the future. */
static PySendResult
future_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    FutureObj *fut = (FutureObj *)self;
    if (fut->state == FUTURE_PENDING) {
        if (LIKELY(!fut->blocking)) {
            fut->blocking = 1;
            *result = Py_NewRef(self);
            return PYGEN_NEXT;
        }
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        *result = NULL;
        return PYGEN_ERROR;
    }
    if (LIKELY(fut->state == FUTURE_FINISHED && fut->exception == NULL)) {
        fut->log_traceback = 0;
        *result = Py_NewRef(fut->result);
        return PYGEN_RETURN;
    }
    *result = PyObject_CallOneArg(state_of(self)->stock_result, self);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PyObject *
future_iternext(PyObject *self)
{
    PyObject *result;
    if (future_send(self, Py_None, &result) == PYGEN_RETURN) {
        /* Returning NULL with nothing set stands for StopIteration(None). */
        if (result != Py_None) {
            (void)set_stop_iteration(result);
        }
        Py_CLEAR(result);
    }
    return result;
}

/* What the interpreter calls for `await fut`: the future is its own iterator, and nothing is made.  Python
   code that asks for an iterator by name gets a FutureIter, with send() and throw(). */
static PyObject *
future_await(PyObject *self)
{
    if (UNLIKELY(((FutureObj *)self)->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
        return NULL;
    }
    return Py_NewRef(self);
}

/* The iterator of Python code: drives the future until it is exhausted. */
typedef struct {
    PyObject_HEAD
    FutureObj *fut; // owned; NULL when exhausted
} FutureIterObj;

PART PyObject *
future_iter(PyObject *self)
{
    ctask_state *st = state_of(self);
    if (((FutureObj *)self)->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
        return NULL;
    }
    FutureIterObj *iter = PyObject_GC_New(FutureIterObj, st->FutureIterType);
    if (iter == NULL) {
        return NULL;
    }
    iter->fut = (FutureObj *)Py_NewRef(self);
    PyObject_GC_Track(iter);
    return (PyObject *)iter;
}

static PyObject *
FutureIter_iternext(PyObject *self)
{
    FutureIterObj *iter = (FutureIterObj *)self;
    if (iter->fut == NULL) {
        return NULL; /* exhausted: StopIteration */
    }
    PyObject *fut = Py_NewRef(iter->fut);
    PyObject *result = future_iternext(fut);
    if (result == NULL && ((FutureObj *)fut)->state != FUTURE_PENDING) {
        Py_CLEAR(iter->fut);
    }
    Py_DECREF(fut);
    return result;
}

static PyObject *
FutureIter_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    PyObject *result = FutureIter_iternext(self);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

/* Set what throw(exception) is to raise, or throw(type, value, traceback), which generators accept as well.
   Returns -1 with another exception if the arguments are wrong. */
PART int
future_throw_arguments(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type, *value = NULL, *tb = NULL;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError,
                     "throw expected at %s argument%s, got %zd",
                     nargs < 1 ? "least 1" : "most 3",
                     nargs < 1 ? "" : "s",
                     nargs);
        return -1;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (nargs > 1 && PyErr_WarnEx(PyExc_DeprecationWarning,
                                  "the (type, exc, tb) signature of throw() is deprecated, "
                                  "use the single-arg signature instead.",
                                  1) < 0) {
        return -1;
    }
#endif
    type = args[0];
    if (nargs > 1 && args[1] != Py_None) {
        value = args[1];
    }
    if (nargs > 2 && args[2] != Py_None) {
        tb = args[2];
        if (!PyTraceBack_Check(tb)) {
            PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback");
            return -1;
        }
    }
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return -1;
        }
        value = type;
        type = PyExceptionInstance_Class(value);
    }
    else if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must be classes deriving BaseException or instances of such a class");
        return -1;
    }
    Py_XINCREF(tb);
    if (tb == NULL && value != NULL && PyExceptionInstance_Check(value)) {
        tb = PyException_GetTraceback(value);
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), tb);
    return 0;
}

static PyObject *
FutureIter_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (future_throw_arguments(args, nargs) == 0) {
        Py_CLEAR(((FutureIterObj *)self)->fut);
    }
    return NULL;
}

static PyObject *
FutureIter_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((FutureIterObj *)self)->fut);
    Py_RETURN_NONE;
}

static int
FutureIter_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((FutureIterObj *)self)->fut);
    return 0;
}

static int
FutureIter_clear(PyObject *self)
{
    Py_CLEAR(((FutureIterObj *)self)->fut);
    return 0;
}

static void
FutureIter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(((FutureIterObj *)self)->fut);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef FutureIter_methods[] = {
    {"send", FutureIter_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))FutureIter_throw, METH_FASTCALL, NULL},
    {"close", FutureIter_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot FutureIter_slots[] = {
    {Py_tp_dealloc, FutureIter_dealloc},
    {Py_tp_traverse, FutureIter_traverse},
    {Py_tp_clear, FutureIter_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, FutureIter_iternext},
    {Py_tp_methods, FutureIter_methods},
    {0, NULL},
};

static PyType_Spec FutureIter_spec = {
    .name = "ctask.FutureIter",
    .basicsize = sizeof(FutureIterObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = FutureIter_slots,
};

/* ---- the type ---- */

static int
Future___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop", NULL};
    PyObject *loop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", keywords, &loop)) {
        return -1;
    }
    if (refuse_second_init((FutureObj *)self) < 0) {
        return -1;
    }
    return future_init((FutureObj *)self, state_of(self), loop);
}

PyDoc_STRVAR(Future_set_result_doc,
"set_result($self, result, /)\n--\n\n"
"Mark the future done with `result` and schedule its callbacks.\n\n"
"Raises asyncio.InvalidStateError if it is done already.  (asyncio.Future.set_result)");

static PyObject *
Future_set_result(PyObject *self, PyObject *result)
{
    if (future_set_result((FutureObj *)self, state_of(self), result) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_set_exception_doc,
"set_exception($self, exception, /)\n--\n\n"
"Mark the future done with an exception (a class or an instance) and schedule its callbacks.\n\n"
"Raises asyncio.InvalidStateError if it is done already, TypeError for what is no exception.\n"
"(asyncio.Future.set_exception)");

static PyObject *
Future_set_exception(PyObject *self, PyObject *exc)
{
    if (future_set_exception((FutureObj *)self, state_of(self), exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=<unrepresentable>)\n--\n\n"
"Have the loop call `fn(future)` in `context` (the current one by default) once the future is done.\n\n"
"If it is done already, the call is scheduled at once.  (asyncio.Future.add_done_callback)");

PART PyObject *
Future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FutureObj *fut = (FutureObj *)self;
    ctask_state *st = state_of(self);
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs != 1) {
        PyErr_Format(
            PyExc_TypeError, "add_done_callback() takes exactly 1 positional argument (%zd given)", nargs);
        return NULL;
    }
    if (nkw > 1 || (nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.context) != 0)) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError,
                         "add_done_callback() got an unexpected keyword argument '%U'",
                         PyTuple_GET_ITEM(kwnames, nkw - 1));
        }
        return NULL;
    }
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
        return NULL;
    }
    PyObject *context = nkw == 1 ? Py_NewRef(args[1]) : context_copy(&st->base.contexts);
    if (context == NULL) {
        return NULL;
    }
    int result = future_add_callback(fut, st, args[0], context);
    Py_DECREF(context);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"Remove all instances of `fn` from the callbacks; return how many there were.\n\n"
"(asyncio.Future.remove_done_callback)");

/* A comparison may run anything, also what changes the callbacks: after each we look again.  (`_asyncio`'s own, up to
   3.13.0, does not.)  From the end, as most often all or one of the last are removed. */
static Py_ssize_t
remove_callback(FutureObj *fut, PyObject *callback)
{
    Py_ssize_t removed = 0;
    PyObject *callbacks = Py_XNewRef(fut->callbacks);
    for (Py_ssize_t i = callbacks == NULL ? 0 : PyList_GET_SIZE(callbacks); i-- > 0;) {
        if (i >= PyList_GET_SIZE(callbacks)) {
            continue;
        }
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        int equal = !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) == 0
                        ? 0
                        : PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), callback, Py_EQ);
        if (equal > 0 && i < PyList_GET_SIZE(callbacks) && PyList_GET_ITEM(callbacks, i) == pair) {
            equal = PyList_SetSlice(callbacks, i, i + 1, NULL);
            removed++;
        }
        Py_DECREF(pair);
        if (equal < 0) {
            Py_DECREF(callbacks);
            return -1;
        }
    }
    if (callbacks != NULL && fut->callbacks == callbacks && PyList_GET_SIZE(callbacks) == 0) {
        Py_CLEAR(fut->callbacks);
    }
    Py_XDECREF(callbacks);
    PyObject *first = Py_XNewRef(fut->callback0);
    int equal = first == NULL ? 0 : PyObject_RichCompareBool(first, callback, Py_EQ);
    if (equal > 0 && fut->callback0 == first) {
        PyObject *context = fut->context0;
        fut->callback0 = fut->context0 = NULL;
        Py_XDECREF(context);
        Py_DECREF(first);
        removed++;
    }
    Py_XDECREF(first);
    return equal < 0 ? -1 : removed;
}

PART PyObject *
Future_remove_done_callback(PyObject *self, PyObject *callback)
{
    FutureObj *fut = (FutureObj *)self;
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
        return NULL;
    }
    Py_ssize_t removed = waiter_as_callback(fut) < 0 ? -1 : remove_callback(fut, callback);
    return removed < 0 ? NULL : PyLong_FromSsize_t(removed);
}

PyDoc_STRVAR(Future_cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Cancel the future and schedule its callbacks; return False if it was done already.\n\n"
"(asyncio.Future.cancel)");

static PyObject *
Future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", NULL};
    PyObject *msg = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &msg)) {
        return NULL;
    }
    FutureObj *fut = (FutureObj *)self;
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
        return NULL;
    }
    int result = future_cancel(fut, state_of(self), msg);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* A list of (callback, context), always a new one, or None. */
PART PyObject *
Future_get_callbacks(PyObject *self, void *Py_UNUSED(closure))
{
    FutureObj *fut = (FutureObj *)self;
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
        return NULL;
    }
    if (waiter_as_callback(fut) < 0) {
        return NULL;
    }
    if (fut->callback0 == NULL && fut->callbacks == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *callbacks = fut->callbacks == NULL
                              ? PyList_New(0)
                              : PyList_GetSlice(fut->callbacks, 0, PyList_GET_SIZE(fut->callbacks));
    if (callbacks != NULL && fut->callback0 != NULL) {
        PyObject *first = PyTuple_Pack(2, fut->callback0, fut->context0 == NULL ? Py_None : fut->context0);
        if (first == NULL || PyList_Insert(callbacks, 0, first) < 0) {
            Py_CLEAR(callbacks);
        }
        Py_XDECREF(first);
    }
    return callbacks;
}

static PyMethodDef Future_methods[] = {
    {"set_result", Future_set_result, METH_O, Future_set_result_doc},
    {"set_exception", Future_set_exception, METH_O, Future_set_exception_doc},
    {"add_done_callback",
     (PyCFunction)(void (*)(void))Future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS,
     Future_add_done_callback_doc},
    {"remove_done_callback", Future_remove_done_callback, METH_O, Future_remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))Future_cancel, METH_VARARGS | METH_KEYWORDS, Future_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Future_getset[] = {
    {"_callbacks", Future_get_callbacks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Future_doc,
"Future(*, loop=None)\n--\n\n"
"A result that is not there yet; `await` it, or add callbacks.\n\n"
"Stands for asyncio.Future, which it derives from.  `loop` defaults to asyncio.get_event_loop().");

static PyType_Slot Future_slots[] = {
    {Py_tp_doc, (void *)Future_doc},
    {Py_tp_init, Future___init__},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_iter, future_iter},
    {Py_am_await, future_iter}, /* for __await__(); see future_become_iterator() */
    {Py_tp_methods, Future_methods},
    {Py_tp_getset, Future_getset},
    {0, NULL},
};

static PyType_Spec Future_spec = {
    .name = "ctask.Future",
    .basicsize = sizeof(FutureObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Future_slots,
};

/* Set when the type is ready: `__await__` and `__iter__` have been made for future_iter() by then, no
   `__next__` appears, and a future is no Iterator to who asks. */
PART void
future_become_iterator(PyTypeObject *type)
{
    type->tp_iternext = future_iternext;
    type->tp_as_async->am_await = future_await;
    type->tp_as_async->am_send = future_send;
}

PART int
future_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, NULL, &st->FutureIterType, &FutureIter_spec, NULL) < 0) {
        return -1;
    }
    if (add_type(module, "Future", &st->FutureType, &Future_spec, st->stock_Future) < 0) {
        return -1;
    }
    future_become_iterator(st->FutureType);
    return 0;
}
