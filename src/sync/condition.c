/* Condition: wait() gives the lock up until somebody notifies, and takes it again before it goes on.

   asyncio's condition has the lock's locked(), acquire() and release() for attributes of its own.  What is here
   works on a Lock of ours; with any other lock, and where one of these attributes was set, asyncio's own
   methods run. */

#include "coro/coro.h"
#include "sync/sync.h"

enum { CONDITION_LOCKED, CONDITION_ACQUIRE, CONDITION_RELEASE, CONDITION_EXPORTS };

typedef struct {
    SYNC_FIELDS
    PyObject *lock;                       // owned; `_lock`, NULL before __init__
    LockObj *inner; // owned; whose methods these are, NULL if it is no Lock of ours.  Stays
    // as it is once set: coroutines wait in its list
    PyObject *exports[CONDITION_EXPORTS]; // owned; bound methods, each NULL until somebody asks for it
} ConditionObj;

static void condition_dealloc(PyObject *self);

/* ---- overrides ---- */

static sync_methods
condition_methods(ctask_state *st)
{
    return (sync_methods){
        .names = {st->str._get_loop,
                  st->str.locked,
                  st->str.acquire,
                  st->str.release,
                  st->sync.condition_has_notify ? st->str._notify : st->str._get_loop,
                  st->str.wait,
                  st->str.notify},
        .n_internals = 5,
        .n = 7,
    };
}

static int
condition_look(SyncObj *sync)
{
    sync_methods methods = condition_methods(sync->st);
    return sync_look(sync, SYNC_CONDITION, &methods, sync->st->ConditionType, sync->st->stock_Condition);
}

static int
condition_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, condition_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    sync_methods methods = condition_methods(((SyncObj *)self)->st);
    return sync_setattro(self, name, value, &methods);
}

/* The same of the condition and its lock: what asyncio's code would call on either. */
static inline int
condition_overridden(ConditionObj *cond)
{
    int overridden = sync_overridden((SyncObj *)cond, condition_look);
    if (UNLIKELY(cond->inner == NULL)) {
        return SYNC_INTERNALS | SYNC_PUBLIC;
    }
    if (UNLIKELY(sync_overridden((SyncObj *)cond->inner, lock_look))) {
        overridden |= SYNC_INTERNALS | SYNC_PUBLIC;
    }
    return overridden;
}

/* ---- wait ---- */

/* wait() ends: with True, or with the exception that came last while it waited for the lock (coro->arg), or else with
   the one that ended the wait to be notified (coro->subject). */
static int
condition_end(CoroObj *coro, PyObject **result)
{
    ConditionObj *cond = (ConditionObj *)coro->owner;
    PyObject *raised = coro->arg, *handled = coro->subject;
    coro->arg = coro->subject = NULL;
    if (raised == NULL) {
        raised = handled;
    }
    else if (handled != NULL) {
        Py_DECREF(handled);
    }
    else { // raised anew: it comes while what its caller handles is handled
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
        raised = PyErr_GetRaisedException();
    }
    if (LIKELY(raised == NULL)) {
        *result = Py_NewRef(Py_True);
        return CORO_RETURN;
    }
    /* It may have been notified: another one is, instead. */
    return sync_reraise(raised, waiters_wake(&cond->waiters, coro->st, 1, Py_False) < 0 ? -1 : 0);
}

/* An exception is set, which came while it waited for the lock: it is what wait() ends with.  One that did before is
   forgotten, and no context of it. */
static void
condition_keep(CoroObj *coro)
{
    if (coro->subject != NULL) {
        raised_while(Py_NewRef(coro->subject));
    }
    Py_XSETREF(coro->arg, PyErr_GetRaisedException());
}

static void
condition_unwait_lock(CoroObj *coro)
{
    waiters_remove(&((ConditionObj *)coro->owner)->inner->waiters, coro);
}

static int condition_relock(CoroObj *coro, PyObject **result);

static int
condition_relocked(CoroObj *coro, PyObject **result)
{
    lock_hold(((ConditionObj *)coro->owner)->inner);
    return condition_end(coro, result);
}

/* Cancelled while it waits for the lock: it goes on waiting, and is cancelled then. */
static int
condition_relock_failed(CoroObj *coro, PyObject **result)
{
    ctask_state *st = coro->st;
    int was_cancelled = PyErr_ExceptionMatches(st->CancelledError);
    if (was_cancelled) {
        lock_pass_on(((ConditionObj *)coro->owner)->inner);
        was_cancelled = PyErr_ExceptionMatches(st->CancelledError);
    }
    condition_keep(coro);
    return was_cancelled ? condition_relock(coro, result) : condition_end(coro, result);
}

static int
condition_relock(CoroObj *coro, PyObject **result)
{
    LockObj *lock = ((ConditionObj *)coro->owner)->inner;
    int taken = lock_take(lock);
    if (taken == 0) {
        if (LIKELY(sync_future(coro, (SyncObj *)lock) == 0)) {
            taken = sync_suspend(
                coro, (SyncObj *)lock, condition_relocked, condition_relock_failed, condition_unwait_lock);
        }
        else {
            taken = -1;
        }
        if (LIKELY(taken == CORO_AWAIT)) {
            return CORO_AWAIT;
        }
    }
    if (UNLIKELY(taken < 0)) {
        condition_keep(coro);
    }
    return condition_end(coro, result);
}

static int
condition_wait_failed(CoroObj *coro, PyObject **result)
{
    coro->subject = PyErr_GetRaisedException();
    return condition_relock(coro, result);
}

static int
condition_wait_start(CoroObj *coro, PyObject **result)
{
    ConditionObj *cond = (ConditionObj *)coro->owner;
    LockObj *lock = cond->inner;
    if (UNLIKELY(!lock->locked)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot wait on un-acquired lock");
        return CORO_ERROR;
    }
    if (sync_future(coro, (SyncObj *)cond) < 0 || lock_release(lock) < 0) {
        return CORO_ERROR;
    }
    int status = sync_suspend(coro, (SyncObj *)cond, condition_relock, condition_wait_failed, sync_unwait);
    return LIKELY(status == CORO_AWAIT) ? CORO_AWAIT : condition_wait_failed(coro, result);
}

static PyObject *
Condition_wait(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *stock)
{
    if (UNLIKELY(condition_overridden((ConditionObj *)self) & SYNC_INTERNALS || kwnames != NULL ||
                 nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, condition_wait_start, "Condition.wait", 0, NULL);
}

/* wait_for(predicate); the predicate is coro->arg. */
static int
condition_wait_for_step(CoroObj *coro, PyObject **result)
{
    ctask_state *st = coro->st;
    PyObject *answer = PyObject_CallNoArgs(coro->arg);
    int is_true = answer == NULL ? -1 : PyObject_IsTrue(answer);
    if (is_true > 0) {
        *result = answer;
        return CORO_RETURN;
    }
    Py_XDECREF(answer);
    if (is_true < 0) {
        return CORO_ERROR;
    }
    PyObject *waiting = condition_overridden((ConditionObj *)coro->owner)
                            ? PyObject_CallMethodNoArgs(coro->owner, st->str.wait)
                            : coro_new(st, coro->owner, condition_wait_start, "Condition.wait", 0, NULL);
    return coro_await(coro, waiting, condition_wait_for_step);
}

static PyObject *
Condition_wait_for(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    if (UNLIKELY(kwnames != NULL || nargs != 2)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, condition_wait_for_step, "Condition.wait_for", 0, args[1]);
}

/* ---- async with ---- */

/* `async with` on the condition is that on its lock. */
static PyObject *
Condition_enter(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                PyObject *stock)
{
    ConditionObj *cond = (ConditionObj *)self;
    if (UNLIKELY(condition_overridden(cond) & SYNC_INTERNALS || kwnames != NULL || nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return lock_enter_new(st, cond->inner);
}

static PyObject *
Condition_exit(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *stock)
{
    ConditionObj *cond = (ConditionObj *)self;
    if (UNLIKELY(condition_overridden(cond) & SYNC_INTERNALS || kwnames != NULL || nargs != 4)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return lock_exit_new(st, cond->inner);
}

/* ---- notify ---- */

static int
condition_check(ConditionObj *cond)
{
    if (UNLIKELY(!cond->inner->locked)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot notify on un-acquired lock");
        return -1;
    }
    return 0;
}

static PyObject *
Condition_notify(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 PyObject *stock)
{
    ConditionObj *cond = (ConditionObj *)self;
    Py_ssize_t n = 1;
    if (UNLIKELY(nargs > 2 || kwnames != NULL || condition_overridden(cond) & SYNC_INTERNALS ||
                 (nargs == 2 && !sync_size(args[1], &n)))) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    if (condition_check(cond) < 0 || waiters_wake(&cond->waiters, st, n, Py_False) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Condition_notify_all(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames, PyObject *stock)
{
    ConditionObj *cond = (ConditionObj *)self;
    if (UNLIKELY(nargs != 1 || kwnames != NULL || condition_overridden(cond))) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    if (condition_check(cond) < 0 || waiters_wake(&cond->waiters, st, PY_SSIZE_T_MAX, Py_False) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- attributes ---- */

/* locked, acquire, release: the lock's. */
static PyObject *
Condition_get_export(PyObject *self, void *closure)
{
    ConditionObj *cond = (ConditionObj *)self;
    Py_ssize_t i = (Py_ssize_t)closure;
    PyObject *names[] = {cond->st->str.locked, cond->st->str.acquire, cond->st->str.release};
    if (cond->exports[i] == NULL) {
        if (cond->inner == NULL) {
            PyErr_SetObject(PyExc_AttributeError, names[i]);
            return NULL;
        }
        PyObject *inner = Py_NewRef((PyObject *)cond->inner);
        PyObject *method = PyObject_GetAttr(inner, names[i]);
        Py_DECREF(inner);
        if (method != NULL) {
            Py_XSETREF(cond->exports[i], Py_NewRef(method));
        }
        return method;
    }
    return Py_NewRef(cond->exports[i]);
}

/* condition_setattro() has seen it: from now on asyncio's methods run. */
static int
Condition_set_export(PyObject *self, PyObject *value, void *closure)
{
    ConditionObj *cond = (ConditionObj *)self;
    Py_XSETREF(cond->exports[(Py_ssize_t)closure], Py_XNewRef(value));
    return 0;
}

/* ---- life ---- */

/* asyncio's __init__ sets all attributes, so that its own methods run from then on: for locks that are not ours,
   and for subclasses with other methods. */
static int
Condition___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"lock", NULL};
    ConditionObj *cond = (ConditionObj *)self;
    ctask_state *st = cond->st;
    PyObject *lock = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Condition", keywords, &lock)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, st->stock_Condition);
    }
    if (cond->inner != NULL) {
        return core_init_stock(self, args, kwargs, st->stock_Condition);
    }
    if (lock == Py_None) {
        PyObject *class = standin_python(&st->lock_class, "ctask._locks", "Lock");
        lock = class == NULL ? NULL : PyObject_CallNoArgs(class);
        if (lock == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(lock);
    }
    int is_ours = core_is(lock, lock_dealloc);
    if ((is_ours && core_check(lock) < 0) || waiters_set(&cond->waiters, st, NULL) < 0) {
        Py_DECREF(lock);
        return -1;
    }
    cond->waiters.kind = WAITERS_DEQUE;
    cond->ready = 1;
    /* Making the lock, or letting go of what was there, may have called __init__() as well. */
    if (is_ours && cond->inner == NULL && !sync_overridden((SyncObj *)lock, lock_look) &&
        !(sync_overridden((SyncObj *)cond, condition_look) & SYNC_INTERNALS)) {
        cond->inner = (LockObj *)Py_NewRef(lock);
        Py_XSETREF(cond->lock, lock);
        return 0;
    }
    PyObject *one = PyTuple_Pack(1, lock);
    int status = one == NULL ? -1 : core_init_stock(self, one, NULL, st->stock_Condition);
    Py_XDECREF(one);
    Py_DECREF(lock);
    return status;
}

static PyObject *
Condition___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return (PyObject *)sync_new(type, condition_dealloc, sizeof(ConditionObj));
}

static int
condition_visit(PyObject *self, visitproc visit, void *arg)
{
    ConditionObj *cond = (ConditionObj *)self;
    Py_VISIT(cond->lock);
    Py_VISIT(cond->inner);
    for (int i = 0; i < CONDITION_EXPORTS; i++) {
        Py_VISIT(cond->exports[i]);
    }
    return sync_visit(self, visit, arg);
}

/* Not `inner`, in whose list coroutines may still be; it lets go of what it refers to itself. */
static int
condition_drop(PyObject *self)
{
    ConditionObj *cond = (ConditionObj *)self;
    Py_CLEAR(cond->lock);
    for (int i = 0; i < CONDITION_EXPORTS; i++) {
        Py_CLEAR(cond->exports[i]);
    }
    return sync_drop(self);
}

CORE_COLLECTED(condition)

static void
condition_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)condition_clear(self);
    if (core_is(self, condition_dealloc)) {
        Py_CLEAR(((ConditionObj *)self)->inner);
    }
    core_free(self);
}

static PyGetSetDef Condition_getset[] = {
    {"_waiters", Sync_get_waiters, Sync_set_waiters, NULL, NULL},
    {"locked", Condition_get_export, Condition_set_export, NULL, (void *)CONDITION_LOCKED},
    {"acquire", Condition_get_export, Condition_set_export, NULL, (void *)CONDITION_ACQUIRE},
    {"release", Condition_get_export, Condition_set_export, NULL, (void *)CONDITION_RELEASE},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Condition_members[] = {
    {"_loop", T_OBJECT, offsetof(ConditionObj, loop), 0, NULL},
    {"_lock", T_OBJECT_EX, offsetof(ConditionObj, lock), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Condition_slots[] = {
    {Py_tp_new, Condition___new__},
    {Py_tp_init, Condition___init__},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_setattro, condition_setattro},
    {Py_tp_members, Condition_members},
    {Py_tp_getset, Condition_getset},
    {0, NULL},
};

static PyType_Spec Condition_spec = {
    .name = "ctask._ctask.Condition",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Condition_slots,
};

PART int
condition_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"wait", Condition_wait},
        {"wait_for", Condition_wait_for},
        {"__aenter__", Condition_enter},
        {"__aexit__", Condition_exit},
        {"notify", Condition_notify},
        {"notify_all", Condition_notify_all},
    };
    st->sync.condition_has_notify = (char)PyObject_HasAttr(st->stock_Condition, st->str._notify);
    return core_add(module,
                    st,
                    "Condition",
                    &st->ConditionType,
                    &Condition_spec,
                    NULL,
                    st->stock_Condition,
                    methods,
                    Py_ARRAY_LENGTH(methods));
}
