/* Coroutines without a frame: what read(), acquire() or sleep() in C return.

   A CoroObj does one step after the other (coro.h).  If nothing has to be waited for it ends at once, otherwise
   it waits for one thing and goes on.  It has everything that makes a coroutine to those who ask
   (asyncio.iscoroutine(), inspect.iscoroutine(), collections.abc.Coroutine): send(), throw(), close(), __await__(),
   names, and the warning if it was never awaited.  To those who follow a chain of coroutines (stacks, reprs, call
   graphs) it shows one of asyncio's own function (coroframe.c). */

#include "coro/coro.h"
#include "coro/coroframe.h"

PART PyObject *
coro_new(ctask_state *st, PyObject *owner, coro_step step, const char *name, Py_ssize_t n, PyObject *arg)
{
    CoroObj *coro = (CoroObj *)freelist_take(&st->coro.free_coros, st->CoroType);
    if (coro == NULL) {
        return NULL;
    }
    coro->owner = Py_XNewRef(owner);
    coro->arg = Py_XNewRef(arg);
    coro->waiter = coro->subject = coro->awaiting = coro->function = NULL;
    coro->st = st;
    coro->step = step;
    coro->failed = NULL;
    coro->unwait = NULL;
    coro->name = name;
    coro->n = n;
    coro->offset = 0;
    coro->state = CORO_CREATED;
    coro->finalized = 0;
    PyObject_GC_Track(coro);
    return (PyObject *)coro;
}

static void
refuse_second_await(void)
{
    PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
}

/* A coroutine made in Python, unless somebody awaits it. */
static PyObject *
coroutine_iter(ctask_state *st, PyObject *obj)
{
    PyObject *awaited = PyObject_GetAttr(obj, st->str.cr_await);
    if (awaited == NULL) {
        return NULL;
    }
    Py_DECREF(awaited);
    if (awaited != Py_None) {
        refuse_second_await();
        return NULL;
    }
    return Py_NewRef(obj);
}

/* What the interpreter asks of an __await__() that may be anybody's. */
static PyObject *
checked_iter(PyObject *iter)
{
    if (iter != NULL && PyCoro_CheckExact(iter)) {
        PyErr_SetString(PyExc_TypeError, "__await__() returned a coroutine");
        Py_CLEAR(iter);
    }
    else if (iter != NULL && !PyIter_Check(iter)) {
        PyErr_Format(
            PyExc_TypeError, "__await__() returned non-iterator of type '%.100s'", Py_TYPE(iter)->tp_name);
        Py_CLEAR(iter);
    }
    return iter;
}

/* The iterator that `await` would use. */
static PyObject *
awaitable_iter(ctask_state *st, PyObject *obj)
{
    PyAsyncMethods *methods = Py_TYPE(obj)->tp_as_async;
    if (LIKELY(future_is_exact(obj))) {
        return methods->am_await(obj);
    }
    if (PyCoro_CheckExact(obj)) {
        return coroutine_iter(st, obj);
    }
    if (methods == NULL || methods->am_await == NULL) {
        PyErr_Format(
            PyExc_TypeError, "object %.100s can't be used in 'await' expression", Py_TYPE(obj)->tp_name);
        return NULL;
    }
    return checked_iter(methods->am_await(obj));
}

PART int
coro_await(CoroObj *coro, PyObject *awaitable, coro_step next)
{
    if (awaitable == NULL) {
        return CORO_ERROR;
    }
    coro->awaiting = awaitable_iter(coro->st, awaitable);
    coro->step = next;
    Py_DECREF(awaitable);
    return coro->awaiting == NULL ? CORO_ERROR : CORO_AWAIT;
}

/* Coroutines that wait for each other are as deep as the program has nested them. */
static __attribute__((noinline)) PySendResult
coro_ask_deeper(CoroObj *coro, PyObject *value, PyObject **result)
{
    if (Py_EnterRecursiveCall("")) {
        *result = NULL;
        return PYGEN_ERROR;
    }
    PySendResult outcome = PyIter_Send(coro->awaiting, value, result);
    Py_LeaveRecursiveCall();
    return outcome;
}

/* awaiting.send(value).  A future asks nobody, and of coroutines in Python the interpreter counts the depth. */
static inline PySendResult
coro_ask(CoroObj *coro, PyObject *value, PyObject **result)
{
    if (LIKELY(future_is_exact(coro->awaiting) || PyCoro_CheckExact(coro->awaiting))) {
        return PyIter_Send(coro->awaiting, value, result);
    }
    return coro_ask_deeper(coro, value, result);
}

/* It does not wait any more, whatever the reason.  An exception may be set. */
static inline void
coro_end_wait(CoroObj *coro)
{
    PyObject *awaiting = coro->awaiting;
    coro->awaiting = NULL;
    if (coro->unwait != NULL) {
        void (*unwait)(CoroObj *) = coro->unwait;
        coro->unwait = NULL;
        unwait(coro);
    }
    Py_XDECREF(awaiting);
}

static inline void
coro_end(CoroObj *coro)
{
    PyObject *owner = coro->owner, *arg = coro->arg, *waiter = coro->waiter, *subject = coro->subject;
    coro->state = CORO_CLOSED;
    coro->owner = coro->arg = coro->waiter = coro->subject = NULL;
    Py_XDECREF(arg);
    Py_XDECREF(waiter);
    Py_XDECREF(subject);
    Py_XDECREF(owner);
}

/* What `awaiting` has answered, and all that follows until it has to wait again. */
static PySendResult
coro_answered(CoroObj *coro, PySendResult outcome, PyObject **result)
{
    for (;;) {
        if (outcome == PYGEN_NEXT) {
            coro->state = CORO_SUSPENDED;
            return PYGEN_NEXT;
        }
        coro_end_wait(coro);
        coro_step step = outcome == PYGEN_ERROR ? coro->failed : coro->step;
        coro->failed = NULL;
        if (UNLIKELY(step == NULL)) {
            coro_end(coro);
            return outcome;
        }
        Py_CLEAR(*result);
        int status = step(coro, result);
        if (status == CORO_AWAIT) {
            outcome = coro_ask(coro, Py_None, result);
            continue;
        }
        if (status == CORO_YIELD) {
            *result = Py_NewRef(Py_None);
            coro->state = CORO_SUSPENDED;
            return PYGEN_NEXT;
        }
        if (UNLIKELY(coro->unwait != NULL)) {
            coro_end_wait(coro); /* the step has failed when all was ready for a wait */
        }
        coro_end(coro);
        return status == CORO_RETURN ? PYGEN_RETURN : PYGEN_ERROR;
    }
}

static int
coro_check(CoroObj *coro)
{
    if (UNLIKELY(coro->state == CORO_RUNNING)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (UNLIKELY(coro->state == CORO_CLOSED)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    return 0;
}

static PySendResult
coro_send(PyObject *self, PyObject *value, PyObject **result)
{
    CoroObj *coro = (CoroObj *)self;
    *result = NULL;
    if (coro_check(coro) < 0) {
        return PYGEN_ERROR;
    }
    if (UNLIKELY(value != Py_None && coro->state == CORO_CREATED)) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    coro->state = CORO_RUNNING;
    /* At the start and after a turn of the loop there is nothing to ask: the next step comes at once. */
    PySendResult outcome = PYGEN_RETURN;
    if (coro->awaiting != NULL) {
        outcome = coro_ask(coro, value, result);
    }
    return coro_answered(coro, outcome, result);
}

/* The three outcomes as a method returns them. */
static PyObject *
coro_outcome(PySendResult outcome, PyObject *result, int explicit)
{
    if (outcome != PYGEN_RETURN) {
        return result;
    }
    if (result == Py_None && !explicit) {
        Py_DECREF(result); /* NULL with nothing set stands for StopIteration(None) */
        return NULL;
    }
    if (result == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    else {
        (void)set_stop_iteration(result);
    }
    Py_DECREF(result);
    return NULL;
}

/* ---- results for `await` ----

   The interpreter gets a result that is not None by a StopIteration, which it takes apart at once.  To make and
   to free one is most of what a short coroutine costs, so one is kept.  It has the result until the coroutine is
   let go, which the interpreter does next, if nobody else has the coroutine.  From 3.14 on a caller of next() may have
   it without a reference of its own, and keep the exception with its traceback: none is kept there. */

#define KEEPS_STOP (PY_VERSION_HEX < 0x030E0000)

#if KEEPS_STOP
/* As good as new, but for its value? */
static int
stop_is_plain(PyStopIterationObject *stop)
{
    PyObject *args = stop->args;
    return Py_REFCNT(stop) == 1 && args != NULL && Py_REFCNT(args) == 1 && PyTuple_GET_SIZE(args) == 1 &&
           stop->dict == NULL && stop->notes == NULL && stop->traceback == NULL && stop->context == NULL &&
           stop->cause == NULL && !stop->suppress_context;
}

static void
stop_set_value(PyStopIterationObject *stop, PyObject *value)
{
    PyObject *before = stop->value, *item = PyTuple_GET_ITEM(stop->args, 0);
    stop->value = Py_NewRef(value);
    PyTuple_SET_ITEM(stop->args, 0, Py_NewRef(value));
    Py_XDECREF(before);
    Py_DECREF(item);
}

static void
coro_set_stop(CoroObj *coro, PyObject *value)
{
    ctask_state *st = coro->st;
    PyStopIterationObject *stop = (PyStopIterationObject *)st->stop_iteration;
    if (UNLIKELY(Py_REFCNT(coro) != 1)) {
        (void)set_stop_iteration(value);
        return;
    }
    if (LIKELY(stop != NULL && stop_is_plain(stop))) {
        Py_INCREF(stop); /* letting go of what it had may run anything */
        stop_set_value(stop, value);
        if (UNLIKELY(!PyObject_GC_IsTracked(stop->args))) {
            PyObject_GC_Track(stop->args); /* a collection has found nothing in it that it had to follow */
        }
    }
    else {
        stop = new_stop_iteration(value);
        if (stop == NULL) {
            return;
        }
        Py_XSETREF(st->stop_iteration, Py_NewRef(stop));
    }
    PyErr_SetRaisedException((PyObject *)stop);
}

/* The result is not ours any more. */
static inline void
coro_release_stop(ctask_state *st)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)st->stop_iteration;
    if (stop == NULL || stop->value == Py_None) {
        return;
    }
    if (LIKELY(stop_is_plain(stop))) {
        stop_set_value(stop, Py_None);
    }
    else {
        Py_CLEAR(st->stop_iteration); /* somebody has it */
    }
}
#endif

static PyObject *
coro_iternext(PyObject *self)
{
    PyObject *result;
    PySendResult outcome = coro_send(self, Py_None, &result);
#if KEEPS_STOP
    if (outcome == PYGEN_RETURN && result != Py_None) {
        coro_set_stop((CoroObj *)self, result);
        Py_CLEAR(result);
        return NULL;
    }
#endif
    return coro_outcome(outcome, result, 0);
}

static PyObject *
Coro_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult outcome = coro_send(self, value, &result);
    return coro_outcome(outcome, result, 1);
}

static int coro_close(CoroObj *coro);

/* awaiting.close(), if it has that. */
static int
coro_close_awaiting(CoroObj *coro)
{
    PyObject *awaiting = coro->awaiting;
    if (awaiting == NULL || future_is_exact(awaiting)) {
        return 0;
    }
    if (Py_IS_TYPE(awaiting, coro->st->CoroType)) {
        if (Py_EnterRecursiveCall("")) {
            return -1;
        }
        int status = coro_close((CoroObj *)awaiting);
        Py_LeaveRecursiveCall();
        return status;
    }
    PyObject *method;
    if (PyObject_GetOptionalAttr(awaiting, coro->st->str.close, &method) <= 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *res = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static PySendResult coro_raise(CoroObj *coro, PyObject *const *args, Py_ssize_t nargs, PyObject **result);

/* awaiting.throw(*args), an exception being set afterwards unless that has an answer. */
static PySendResult
coro_throw_into(CoroObj *coro, PyObject *const *args, Py_ssize_t nargs, PyObject **result)
{
    PyObject *method;
    if (PyErr_GivenExceptionMatches(args[0], PyExc_GeneratorExit)) {
        if (coro_close_awaiting(coro) == 0) {
            (void)future_throw_arguments(args, nargs);
        }
        return PYGEN_ERROR;
    }
    if (Py_IS_TYPE(coro->awaiting, coro->st->CoroType)) {
        if (Py_EnterRecursiveCall("")) {
            return PYGEN_ERROR;
        }
        PySendResult outcome = coro_raise((CoroObj *)coro->awaiting, args, nargs, result);
        Py_LeaveRecursiveCall();
        return outcome;
    }
    if (PyObject_GetOptionalAttr(coro->awaiting, coro->st->str.throw, &method) < 0) {
        return PYGEN_ERROR;
    }
    if (method == NULL) {
        (void)future_throw_arguments(args, nargs);
        return PYGEN_ERROR;
    }
    *result = PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_DECREF(method);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    return _PyGen_FetchStopIterationValue(result) == 0 ? PYGEN_RETURN : PYGEN_ERROR;
}

/* throw(*args) */
static PySendResult
coro_raise(CoroObj *coro, PyObject *const *args, Py_ssize_t nargs, PyObject **result)
{
    coro_state before = coro->state;
    PySendResult outcome = PYGEN_ERROR;
    *result = NULL;
    if (coro_check(coro) < 0) {
        return PYGEN_ERROR;
    }
    coro->state = CORO_RUNNING; /* a warning about the arguments may run anything */
    if (nargs >= 1 && coro->awaiting != NULL && !future_is_exact(coro->awaiting)) {
        outcome = coro_throw_into(coro, args, nargs, result);
    }
    else if (future_throw_arguments(args, nargs) < 0) {
        coro->state = before; /* a mistake of the caller's */
        return PYGEN_ERROR;
    }
    else if (before == CORO_CREATED) {
        coro_end(coro);
        return PYGEN_ERROR;
    }
    return coro_answered(coro, outcome, result);
}

static PyObject *
Coro_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result;
    PySendResult outcome = coro_raise((CoroObj *)self, args, nargs, &result);
    return coro_outcome(outcome, result, 1);
}

/* close(): the coroutine ends where it waits, as by GeneratorExit. */
static int
coro_close(CoroObj *coro)
{
    if (coro->state == CORO_RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (coro->state != CORO_SUSPENDED) {
        coro_end(coro);
        return 0;
    }
    PyObject *result = NULL;
    coro->state = CORO_RUNNING;
    if (coro_close_awaiting(coro) == 0) {
        PyErr_SetNone(PyExc_GeneratorExit);
    }
    switch (coro_answered(coro, PYGEN_ERROR, &result)) {
    case PYGEN_NEXT:
        Py_DECREF(result);
        PyErr_SetString(PyExc_RuntimeError, "coroutine ignored GeneratorExit");
        return -1;
    case PYGEN_RETURN:
        Py_DECREF(result);
        return 0;
    default:
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit) && !PyErr_ExceptionMatches(PyExc_StopIteration)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
}

static PyObject *
Coro_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return coro_close((CoroObj *)self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
coro_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object %s at %p>", ((CoroObj *)self)->name, self);
}

static PyObject *
Coro_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((CoroObj *)self)->name);
}

static PyObject *
Coro_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    const char *name = ((CoroObj *)self)->name, *dot = strrchr(name, '.');
    return PyUnicode_FromString(dot == NULL ? name : dot + 1);
}

/* For isinstance(), and so for inspect.iscoroutine(): who finds out whether something is to be awaited by the
   type of asyncio's coroutines must not miss ours. */
static PyObject *
Coro_get_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef(&PyCoro_Type);
}

static PyObject *
Coro_get_running(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((CoroObj *)self)->state == CORO_RUNNING);
}

static PyObject *
Coro_get_suspended(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((CoroObj *)self)->state == CORO_SUSPENDED);
}

/* As inspect.getcoroutinestate() says it, which asks for it from 3.15 on. */
static PyObject *
Coro_get_state(PyObject *self, void *Py_UNUSED(closure))
{
    static const char *const names[] = {
        [CORO_CREATED] = "CORO_CREATED",
        [CORO_SUSPENDED] = "CORO_SUSPENDED",
        [CORO_RUNNING] = "CORO_RUNNING",
        [CORO_CLOSED] = "CORO_CLOSED",
    };
    return PyUnicode_FromString(names[((CoroObj *)self)->state]);
}

static PyObject *
Coro_get_await(PyObject *self, void *Py_UNUSED(closure))
{
    return coroframe_awaited((CoroObj *)self);
}

static PyObject *
Coro_get_frame(PyObject *self, void *Py_UNUSED(closure))
{
    return coroframe_of((CoroObj *)self);
}

static PyObject *
Coro_get_code(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *function = ((CoroObj *)self)->function;
    return function == NULL ? Py_NewRef(Py_None) : PyObject_GetAttrString(function, "__code__");
}

static PyObject *
Coro_get_origin(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

/* ---- life ---- */

static int
coro_traverse(PyObject *self, visitproc visit, void *arg)
{
    CoroObj *coro = (CoroObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(coro->owner);
    Py_VISIT(coro->arg);
    Py_VISIT(coro->waiter);
    Py_VISIT(coro->subject);
    Py_VISIT(coro->awaiting);
    Py_VISIT(coro->function);
    return 0;
}

static int
coro_clear(PyObject *self)
{
    CoroObj *coro = (CoroObj *)self;
    coro->failed = NULL;
    coro_end_wait(coro);
    if (coro->state != CORO_CREATED) {
        coro_end(coro);
    }
    return 0;
}

static void coro_warn(CoroObj *coro);

/* One that is let go while it waits is closed first, as a coroutine in Python. */
static void
coro_finalize(PyObject *self)
{
    CoroObj *coro = (CoroObj *)self;
    coro->finalized = 1;
    if (coro->state == CORO_CREATED) {
        coro_warn(coro); /* it ends in a cycle */
    }
    if (coro->state != CORO_SUSPENDED) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (coro_close(coro) < 0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_SetRaisedException(raised);
}

static __attribute__((noinline)) void
coro_warn(CoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", coro->name) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_SetRaisedException(raised);
}

static inline void
coro_free(CoroObj *coro)
{
    PyObject *self = (PyObject *)coro;
    ctask_state *st = coro->st;
    Py_CLEAR(coro->function);
    freelist_give(&st->coro.free_coros, self, coro->finalized);
#if KEEPS_STOP
    coro_release_stop(st);
#endif
}

static void
coro_dealloc(PyObject *self)
{
    CoroObj *coro = (CoroObj *)self;
    if (UNLIKELY(coro->state == CORO_SUSPENDED) && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (LIKELY(coro->state == CORO_CLOSED)) {
        coro_free(coro);
        return;
    }
    /* What it was to wait for may be the next of many. */
    Py_TRASHCAN_BEGIN(self, coro_dealloc);
    if (coro->state == CORO_CREATED && !coro->finalized) {
        coro_warn(coro);
    }
    coro->state = CORO_RUNNING;
    (void)coro_clear(self);
    coro_free(coro);
    Py_TRASHCAN_END;
}

/* For `await`, where __await__() and a Task ask nothing. */
static PyObject *
coro_begin_await(PyObject *self)
{
    if (UNLIKELY(((CoroObj *)self)->state == CORO_SUSPENDED)) {
        refuse_second_await();
        return NULL;
    }
    return Py_NewRef(self);
}

static PyMethodDef Coro_methods[] = {
    {"send", Coro_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))Coro_throw, METH_FASTCALL, NULL},
    {"close", Coro_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Coro_getset[] = {
    {"__name__", Coro_get_name, NULL, NULL, NULL},
    {"__qualname__", Coro_get_qualname, NULL, NULL, NULL},
    {"__class__", Coro_get_class, NULL, NULL, NULL},
    {"cr_running", Coro_get_running, NULL, NULL, NULL},
    {"cr_suspended", Coro_get_suspended, NULL, NULL, NULL},
    {"cr_state", Coro_get_state, NULL, NULL, NULL},
    {"cr_await", Coro_get_await, NULL, NULL, NULL},
    {"cr_frame", Coro_get_frame, NULL, NULL, NULL},
    {"cr_code", Coro_get_code, NULL, NULL, NULL},
    {"cr_origin", Coro_get_origin, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Coro_slots[] = {
    {Py_tp_dealloc, coro_dealloc},
    {Py_tp_finalize, coro_finalize},
    {Py_tp_traverse, coro_traverse},
    {Py_tp_clear, coro_clear},
    {Py_tp_repr, coro_repr},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, coro_send},
    {Py_tp_methods, Coro_methods},
    {Py_tp_getset, Coro_getset},
    {0, NULL},
};

static PyType_Spec Coro_spec = {
    .name = "ctask.Coro",
    .basicsize = sizeof(CoroObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Coro_slots,
};

PyDoc_STRVAR(coro_owner_doc,
"_coro_owner($module, coroutine, /)\n--\n\n"
"Return the object whose method a coroutine in C is, a Lock or a Queue; None if it is a function's, or is not in C.");

static PyObject *
coro_owner(PyObject *module, PyObject *obj)
{
    ctask_state *st = PyModule_GetState(module);
    PyObject *owner = Py_IS_TYPE(obj, st->CoroType) ? ((CoroObj *)obj)->owner : NULL;
    return Py_NewRef(owner == NULL ? Py_None : owner);
}

static PyMethodDef coro_functions[] = {
    {"_coro_owner", coro_owner, METH_O, coro_owner_doc},
    {NULL, NULL, 0, NULL},
};

PART int
coro_setup(PyObject *module, ctask_state *st)
{
    st->tasks.coro_name = offsetof(CoroObj, name);
    st->tasks.coro_awaiting = offsetof(CoroObj, awaiting);
    if (PyModule_AddFunctions(module, coro_functions) < 0) {
        return -1;
    }
    if (add_type(module, NULL, &st->CoroType, &Coro_spec, NULL) < 0) {
        return -1;
    }
    /* After the type is ready, so that no __next__ and no __iter__ appear: a coroutine is no Iterator. */
    st->CoroType->tp_iternext = coro_iternext;
    st->CoroType->tp_iter = PyObject_SelfIter;
    st->CoroType->tp_as_async->am_await = coro_begin_await;
    return 0;
}
