/* Lock: one at a time, in the order in which they came.

   Free and with nobody before it, acquire() takes the lock at its first step; else it waits in the list.
   release() wakes the first of the list, which takes the lock when it runs: until then nobody else does. */

#include "coro/coro.h"
#include "sync/sync.h"

/* ---- overrides ---- */

static sync_methods
lock_methods(ctask_state *st)
{
    return (sync_methods){
        .names = {st->str._get_loop, st->str._wake_up_first, st->str.acquire, st->str.release},
        .n_internals = 2,
        .n = 4,
    };
}

PART int
lock_look(SyncObj *sync)
{
    sync_methods methods = lock_methods(sync->st);
    return sync_look(sync, SYNC_LOCK, &methods, sync->st->LockType, sync->st->stock_Lock);
}

static int
lock_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, lock_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    sync_methods methods = lock_methods(((SyncObj *)self)->st);
    return sync_setattro(self, name, value, &methods);
}

/* ---- acquire and release ---- */

PART void
lock_pass_on(LockObj *lock)
{
    if (!lock->locked && PyErr_ExceptionMatches(lock->st->CancelledError)) {
        PyObject *raised = PyErr_GetRaisedException();
        (void)sync_reraise(raised, waiters_wake_first(&lock->waiters, lock->st));
    }
}

/* Cancelled while it waited; perhaps after release() had chosen it. */
static int
lock_acquire_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    lock_pass_on((LockObj *)coro->owner);
    return CORO_ERROR;
}

static int
lock_acquire_woken(CoroObj *coro, PyObject **result)
{
    lock_hold((LockObj *)coro->owner);
    *result = Py_NewRef(Py_True);
    return CORO_RETURN;
}

static int
lock_acquire_start(CoroObj *coro, PyObject **result)
{
    LockObj *lock = (LockObj *)coro->owner;
    int taken = lock_take(lock);
    if (taken == 0) {
        return sync_wait(coro, (SyncObj *)lock, lock_acquire_woken, lock_acquire_failed, sync_unwait);
    }
    *result = taken > 0 ? Py_NewRef(Py_True) : NULL;
    return taken;
}

static int
lock_enter_woken(CoroObj *coro, PyObject **result)
{
    lock_hold((LockObj *)coro->owner);
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

static int
lock_enter_start(CoroObj *coro, PyObject **result)
{
    LockObj *lock = (LockObj *)coro->owner;
    int taken = lock_take(lock);
    if (taken == 0) {
        return sync_wait(coro, (SyncObj *)lock, lock_enter_woken, lock_acquire_failed, sync_unwait);
    }
    *result = taken > 0 ? Py_NewRef(Py_None) : NULL;
    return taken;
}

PART int
lock_release(LockObj *lock)
{
    if (UNLIKELY(!lock->locked)) {
        PyErr_SetString(PyExc_RuntimeError, "Lock is not acquired.");
        return -1;
    }
    lock->locked = 0;
    return waiters_wake_first(&lock->waiters, lock->st);
}

static int
lock_exit_start(CoroObj *coro, PyObject **result)
{
    if (lock_release((LockObj *)coro->owner) < 0) {
        return CORO_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

PART PyObject *
lock_enter_new(ctask_state *st, LockObj *lock)
{
    return coro_new(st, (PyObject *)lock, lock_enter_start, "_ContextManagerMixin.__aenter__", 0, NULL);
}

PART PyObject *
lock_exit_new(ctask_state *st, LockObj *lock)
{
    return coro_new(st, (PyObject *)lock, lock_exit_start, "_ContextManagerMixin.__aexit__", 0, NULL);
}

/* ---- methods ---- */

static PyObject *
Lock_acquire(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, lock_look) & SYNC_INTERNALS || kwnames != NULL ||
                 nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, lock_acquire_start, "Lock.acquire", 0, NULL);
}

static PyObject *
Lock_enter(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, lock_look) || kwnames != NULL || nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return lock_enter_new(st, (LockObj *)self);
}

static PyObject *
Lock_exit(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
          PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, lock_look) || kwnames != NULL || nargs != 4)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return lock_exit_new(st, (LockObj *)self);
}

static PyObject *
Lock_release(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL ||
                 sync_overridden((SyncObj *)self, lock_look) & SYNC_INTERNALS)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return lock_release((LockObj *)self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Lock_get_locked(PyObject *self, void *Py_UNUSED(closure))
{
    LockObj *lock = (LockObj *)self;
    if (lock->locked == LOCK_UNSET) {
        PyErr_SetString(PyExc_AttributeError, "_locked");
        return NULL;
    }
    return PyBool_FromLong(lock->locked);
}

static int
Lock_set_locked(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    int locked = value == NULL ? LOCK_UNSET : PyObject_IsTrue(value);
    if (locked < 0 && value != NULL) {
        return -1;
    }
    ((LockObj *)self)->locked = (char)locked;
    ((LockObj *)self)->holder = 0;
    return 0;
}

static PyObject *
Lock_locked(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return Lock_get_locked(self, NULL);
}

static int
Lock___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    LockObj *lock = (LockObj *)self;
    if (PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        return core_init_stock(self, args, kwargs, lock->st->stock_Lock);
    }
    if (waiters_set(&lock->waiters, lock->st, Py_None) < 0) {
        return -1;
    }
    lock->locked = 0;
    lock->ready = 1;
    return 0;
}

static PyObject *
Lock___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    SyncObj *self = sync_new(type, lock_dealloc, sizeof(LockObj));
    if (self != NULL && core_is((PyObject *)self, lock_dealloc)) {
        ((LockObj *)self)->locked = LOCK_UNSET;
    }
    return (PyObject *)self;
}

static int
lock_visit(PyObject *self, visitproc visit, void *arg)
{
    return sync_visit(self, visit, arg);
}

static int
lock_drop(PyObject *self)
{
    return sync_drop(self);
}

CORE_LIFE(PART, lock)

static PyGetSetDef Lock_getset[] = {
    {"_waiters", Sync_get_waiters, Sync_set_waiters, NULL, NULL},
    {"_locked", Lock_get_locked, Lock_set_locked, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Lock_members[] = {
    {"_loop", T_OBJECT, offsetof(LockObj, loop), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Lock_slots[] = {
    {Py_tp_new, Lock___new__},
    {Py_tp_init, Lock___init__},
    {Py_tp_dealloc, lock_dealloc},
    {Py_tp_traverse, lock_traverse},
    {Py_tp_clear, lock_clear},
    {Py_tp_setattro, lock_setattro},
    {Py_tp_members, Lock_members},
    {Py_tp_getset, Lock_getset},
    {0, NULL},
};

static PyType_Spec Lock_spec = {
    .name = "ctask._ctask.Lock",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Lock_slots,
};

PyDoc_STRVAR(lock_holder_doc,
"_lock_holder($module, lock, /)\n--\n\n"
"Return the number of the task that has the lock, 0 if that is not known; None if nobody has it, or it is not ctask's.");

static PyObject *
lock_holder(PyObject *Py_UNUSED(module), PyObject *obj)
{
    if (!core_is(obj, lock_dealloc) || ((LockObj *)obj)->locked != 1) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(((LockObj *)obj)->holder);
}

static PyMethodDef lock_functions[] = {
    {"_lock_holder", lock_holder, METH_O, lock_holder_doc},
    {NULL, NULL, 0, NULL},
};

PART int
lock_setup(PyObject *module, ctask_state *st)
{
    if (PyModule_AddFunctions(module, lock_functions) < 0) {
        return -1;
    }
    static const core_method methods[] = {
        {"acquire", Lock_acquire},
        {"__aenter__", Lock_enter},
        {"__aexit__", Lock_exit},
        {"locked", Lock_locked},
        {"release", Lock_release},
    };
    return core_add(
        module, st, "Lock", &st->LockType, &Lock_spec, NULL, st->stock_Lock, methods, Py_ARRAY_LENGTH(methods));
}
