/* Semaphore and BoundedSemaphore: a number of places, given out in the order in which they are asked for.

   release() gives its place to the first who waits, so `value` counts the places that nobody was promised.
   asyncio's rules of who wakes whom when a wait is cancelled have changed within 3.11 and 3.12: the later ones
   hold here. */

#include "coro/coro.h"
#include "sync/sync.h"

typedef struct {
    SYNC_FIELDS
    char bounded;         // a BoundedSemaphore
    char has_value;       // `_value` was set
    char has_bound;       // `_bound_value` was set
    Py_ssize_t value;
    Py_ssize_t bound;
    PyObject *value_obj;  // owned; what is no int of this size, left to asyncio's methods, or NULL
    PyObject *bound_obj;  // owned; the same
} SemaphoreObj;

static void semaphore_dealloc(PyObject *self);

/* ---- overrides ---- */

static sync_methods
semaphore_methods(ctask_state *st)
{
    return (sync_methods){
        .names = {st->str._get_loop, st->str._wake_up_next, st->str.locked, st->str.acquire, st->str.release},
        .n_internals = 3,
        .n = 5,
    };
}

static PyObject *
semaphore_stock(SemaphoreObj *sem)
{
    return sem->bounded ? sem->st->stock_BoundedSemaphore : sem->st->stock_Semaphore;
}

static int
semaphore_look(SyncObj *sync)
{
    ctask_state *st = sync->st;
    sync_methods methods = semaphore_methods(st);
    SemaphoreObj *sem = (SemaphoreObj *)sync;
    return sem->bounded ? sync_look(sync, SYNC_BOUNDED, &methods, st->BoundedType, st->stock_BoundedSemaphore)
                        : sync_look(sync, SYNC_SEMAPHORE, &methods, st->SemaphoreType, st->stock_Semaphore);
}

static int
semaphore_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, semaphore_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    sync_methods methods = semaphore_methods(((SyncObj *)self)->st);
    return sync_setattro(self, name, value, &methods);
}

/* ---- acquire and release ---- */

/* 1 if who comes now has to wait, 0 if not, -1 with an exception. */
static inline int
semaphore_is_locked(SemaphoreObj *sem)
{
    if (sem->value == 0) {
        return 1;
    }
    if (LIKELY(waiters_are_none(&sem->waiters))) {
        return 0;
    }
    int free = waiters_all_cancelled(&sem->waiters, sem->st);
    return free < 0 ? -1 : !free;
}

/* Give one place to the first who waits: 1, 0 if nobody does, -1 with an exception. */
static int
semaphore_wake_next(SemaphoreObj *sem)
{
    if (waiters_are_none(&sem->waiters)) {
        return 0;
    }
    sem->value--;
    Py_ssize_t woken = waiters_wake(&sem->waiters, sem->st, 1, Py_True);
    if (woken == 0) {
        sem->value++;
    }
    return (int)woken;
}

/* Places may have become free while those who wait had to let others pass. */
static int
semaphore_wake_more(SemaphoreObj *sem)
{
    int woken = 1;
    while (woken > 0 && sem->value > 0) {
        woken = semaphore_wake_next(sem);
    }
    return woken < 0 ? -1 : 0;
}

static int
semaphore_cancelled(SemaphoreObj *sem, PyObject *fut)
{
    ctask_state *st = sem->st;
    int chosen = future_is_cancelled(st, fut);
    if (chosen == 0) {
        chosen = future_is_done(st, fut);
        if (chosen > 0) {
            sem->value++; /* the place that it was given, and will not take */
        }
    }
    return chosen < 0 ? -1 : 0;
}

static int
semaphore_acquire_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    SemaphoreObj *sem = (SemaphoreObj *)coro->owner;
    int was_cancelled = PyErr_ExceptionMatches(coro->st->CancelledError);
    PyObject *raised = PyErr_GetRaisedException();
    int status = was_cancelled ? semaphore_cancelled(sem, coro->waiter) : 0;
    return sync_reraise(raised, status < 0 ? -1 : semaphore_wake_more(sem));
}

static int
semaphore_acquire_woken(CoroObj *coro, PyObject **result)
{
    if (UNLIKELY(semaphore_wake_more((SemaphoreObj *)coro->owner) < 0)) {
        return CORO_ERROR;
    }
    *result = Py_NewRef(Py_True);
    return CORO_RETURN;
}

static int
semaphore_enter_woken(CoroObj *coro, PyObject **result)
{
    if (UNLIKELY(semaphore_wake_more((SemaphoreObj *)coro->owner) < 0)) {
        return CORO_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

static inline int
semaphore_take(CoroObj *coro, PyObject **result, PyObject *value, coro_step woken)
{
    SemaphoreObj *sem = (SemaphoreObj *)coro->owner;
    int locked = semaphore_is_locked(sem);
    if (locked > 0) {
        return sync_wait(coro, (SyncObj *)sem, woken, semaphore_acquire_failed, sync_unwait);
    }
    if (UNLIKELY(locked < 0)) {
        return CORO_ERROR;
    }
    sem->value--;
    *result = Py_NewRef(value);
    return CORO_RETURN;
}

static int
semaphore_acquire_start(CoroObj *coro, PyObject **result)
{
    return semaphore_take(coro, result, Py_True, semaphore_acquire_woken);
}

static int
semaphore_enter_start(CoroObj *coro, PyObject **result)
{
    return semaphore_take(coro, result, Py_None, semaphore_enter_woken);
}

static int
semaphore_release(SemaphoreObj *sem)
{
    if (sem->bounded && UNLIKELY(sem->value >= sem->bound)) {
        PyErr_SetString(PyExc_ValueError, "BoundedSemaphore released too many times");
        return -1;
    }
    sem->value++;
    return semaphore_wake_next(sem) < 0 ? -1 : 0;
}

static int
semaphore_exit_start(CoroObj *coro, PyObject **result)
{
    if (semaphore_release((SemaphoreObj *)coro->owner) < 0) {
        return CORO_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

/* ---- methods ---- */

static PyObject *
Semaphore_acquire(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, semaphore_look) & SYNC_INTERNALS || kwnames != NULL ||
                 nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, semaphore_acquire_start, "Semaphore.acquire", 0, NULL);
}

static PyObject *
Semaphore_enter(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, semaphore_look) || kwnames != NULL || nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, semaphore_enter_start, "_ContextManagerMixin.__aenter__", 0, NULL);
}

static PyObject *
Semaphore_exit(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, semaphore_look) || kwnames != NULL || nargs != 4)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, semaphore_exit_start, "_ContextManagerMixin.__aexit__", 0, NULL);
}

static PyObject *
Semaphore_release(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL ||
                 sync_overridden((SyncObj *)self, semaphore_look) & SYNC_INTERNALS)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    SemaphoreObj *sem = (SemaphoreObj *)self;
    return semaphore_release(sem) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Semaphore_locked(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject *stock)
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    if (UNLIKELY(nargs != 1 || kwnames != NULL || !sem->ready || sem->value_obj != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    int locked = semaphore_is_locked(sem);
    return locked < 0 ? NULL : PyBool_FromLong(locked);
}

/* ---- attributes ---- */

static PyObject *
semaphore_get(const char *name, char has, Py_ssize_t n, PyObject *obj)
{
    if (!has) {
        PyErr_SetString(PyExc_AttributeError, name);
        return NULL;
    }
    return obj != NULL ? Py_NewRef(obj) : PyLong_FromSsize_t(n);
}

static void
semaphore_set(SemaphoreObj *sem, PyObject *value, char *has, Py_ssize_t *n, PyObject **obj)
{
    Py_ssize_t size = 0;
    PyObject *before = *obj;
    *has = value != NULL;
    if (value == NULL || sync_size(value, &size)) {
        *n = size;
        *obj = NULL;
    }
    else {
        sem->overridden = SYNC_INSTANCE;
        sem->type_version = 0;
        *obj = Py_NewRef(value);
    }
    Py_XDECREF(before);
}

static PyObject *
Semaphore_get_value(PyObject *self, void *Py_UNUSED(closure))
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    return semaphore_get("_value", sem->has_value, sem->value, sem->value_obj);
}

static int
Semaphore_set_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    semaphore_set(sem, value, &sem->has_value, &sem->value, &sem->value_obj);
    return 0;
}

static PyObject *
BoundedSemaphore_get_bound_value(PyObject *self, void *Py_UNUSED(closure))
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    return semaphore_get("_bound_value", sem->has_bound, sem->bound, sem->bound_obj);
}

static int
BoundedSemaphore_set_bound_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    semaphore_set(sem, value, &sem->has_bound, &sem->bound, &sem->bound_obj);
    return 0;
}

/* ---- life ---- */

/* The ordinary case here; asyncio's own __init__ fills the same attributes, or refuses the value. */
static int
Semaphore___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    SemaphoreObj *sem = (SemaphoreObj *)self;
    Py_ssize_t n = PyTuple_GET_SIZE(args), size = 1;
    PyObject *value = n == 1 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (n > 1 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) ||
        (value != NULL && !sync_size(value, &size)) || size < 0) {
        if (core_init_stock(self, args, kwargs, semaphore_stock(sem)) < 0) {
            return -1;
        }
        sem->ready = 1;
        return 0;
    }
    if (waiters_set(&sem->waiters, sem->st, Py_None) < 0) {
        return -1;
    }
    sem->value = sem->bound = size;
    sem->has_value = sem->has_bound = 1;
    Py_CLEAR(sem->value_obj);
    Py_CLEAR(sem->bound_obj);
    sem->ready = 1;
    return 0;
}

static PyObject *
Semaphore___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return (PyObject *)sync_new(type, semaphore_dealloc, sizeof(SemaphoreObj));
}

static PyObject *
BoundedSemaphore___new__(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *self = Semaphore___new__(type, args, kwargs);
    if (self != NULL && core_is(self, semaphore_dealloc)) {
        ((SemaphoreObj *)self)->bounded = 1;
    }
    return self;
}

static int
semaphore_visit(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((SemaphoreObj *)self)->value_obj);
    Py_VISIT(((SemaphoreObj *)self)->bound_obj);
    return sync_visit(self, visit, arg);
}

static int
semaphore_drop(PyObject *self)
{
    Py_CLEAR(((SemaphoreObj *)self)->value_obj);
    Py_CLEAR(((SemaphoreObj *)self)->bound_obj);
    return sync_drop(self);
}

CORE_LIFE(static, semaphore)

static PyGetSetDef Semaphore_getset[] = {
    {"_waiters", Sync_get_waiters, Sync_set_waiters, NULL, NULL},
    {"_value", Semaphore_get_value, Semaphore_set_value, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef BoundedSemaphore_getset[] = {
    {"_bound_value", BoundedSemaphore_get_bound_value, BoundedSemaphore_set_bound_value, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Semaphore_members[] = {
    {"_loop", T_OBJECT, offsetof(SemaphoreObj, loop), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Semaphore_slots[] = {
    {Py_tp_new, Semaphore___new__},
    {Py_tp_init, Semaphore___init__},
    {Py_tp_dealloc, semaphore_dealloc},
    {Py_tp_traverse, semaphore_traverse},
    {Py_tp_clear, semaphore_clear},
    {Py_tp_setattro, semaphore_setattro},
    {Py_tp_members, Semaphore_members},
    {Py_tp_getset, Semaphore_getset},
    {0, NULL},
};

static PyType_Slot BoundedSemaphore_slots[] = {
    {Py_tp_new, BoundedSemaphore___new__},
    {Py_tp_init, Semaphore___init__},
    {Py_tp_dealloc, semaphore_dealloc},
    {Py_tp_traverse, semaphore_traverse},
    {Py_tp_clear, semaphore_clear},
    {Py_tp_getset, BoundedSemaphore_getset},
    {0, NULL},
};

static PyType_Spec Semaphore_spec = {
    .name = "ctask._ctask.Semaphore",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Semaphore_slots,
};

static PyType_Spec BoundedSemaphore_spec = {
    .name = "ctask._ctask.BoundedSemaphore",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = BoundedSemaphore_slots,
};

PART int
semaphore_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"acquire", Semaphore_acquire},
        {"__aenter__", Semaphore_enter},
        {"__aexit__", Semaphore_exit},
        {"locked", Semaphore_locked},
        {"release", Semaphore_release},
    };
    static const core_method bounded_methods[] = {
        {"release", Semaphore_release},
    };
    if (core_add(module,
                 st,
                 "Semaphore",
                 &st->SemaphoreType,
                 &Semaphore_spec,
                 NULL,
                 st->stock_Semaphore,
                 methods,
                 Py_ARRAY_LENGTH(methods)) < 0) {
        return -1;
    }
    return core_add(module,
                    st,
                    "BoundedSemaphore",
                    &st->BoundedType,
                    &BoundedSemaphore_spec,
                    st->SemaphoreType,
                    st->stock_BoundedSemaphore,
                    bounded_methods,
                    Py_ARRAY_LENGTH(bounded_methods));
}
