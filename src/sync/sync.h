/* sync/: the classes of asyncio.locks and asyncio.queues, each a core (coro/).  They wait for futures and wake them,
   and need no loop of ours for that.

   What the synchronisation primitives share: lock.c, event.c, semaphore.c and condition.c are the classes.

   Each class is a C core over asyncio's own class (ctask/_locks.py): what is not C is inherited.  A core fills
   asyncio's attributes from its fields, so inherited methods work on them; they are called where a method that
   asyncio's code would call on the object is overridden. */

#ifndef CTASK_SYNC_H
#define CTASK_SYNC_H

#include "coro/core.h"
#include "loop/loops.h"
#include "sync/waiters.h"

/* What is overridden. */
enum {
    SYNC_INTERNALS = 1, // private methods: asyncio's own code is to be run
    SYNC_PUBLIC = 2, // acquire(), release(), ...: only what calls them on the object is asyncio's
    SYNC_INSTANCE = 4, // decided by an attribute of the instance, whatever its type
};

#define SYNC_FIELDS                                                              \
    CORE_HEAD                                                                    \
    PyObject *loop; /* owned; NULL until somebody waits */                       \
    waiter_list waiters;                                                         \
    unsigned int type_version; /* tp_version_tag for which `overridden` holds */ \
    char overridden; /* SYNC_... */                                              \
    char ready; /* __init__ was called */

typedef struct {
    SYNC_FIELDS
} SyncObj;

/* The methods of a class that count, private ones first. */
typedef struct {
    PyObject *names[7]; // borrowed from the module's state
    size_t n_internals;
    size_t n;
} sync_methods;

/* lock.c */

#define LOCK_UNSET 2

typedef struct {
    SYNC_FIELDS
    char locked; // 0, 1, or LOCK_UNSET before __init__
    uint64_t holder; // the serial of the task that took it, 0 if that is not known
} LockObj;

PART void lock_dealloc(PyObject *self);
PART int lock_look(SyncObj *sync);
PART int lock_release(LockObj *lock);
/* An exception is set, with which a wait for the lock has ended: who is next may have it. */
PART void lock_pass_on(LockObj *lock);
/* What __aenter__() and __aexit__() return. */
PART PyObject *lock_enter_new(ctask_state *st, LockObj *lock);
PART PyObject *lock_exit_new(ctask_state *st, LockObj *lock);
PART int lock_setup(PyObject *module, ctask_state *st);

/* event.c */

PART int event_setup(PyObject *module, ctask_state *st);

/* semaphore.c */

PART int semaphore_setup(PyObject *module, ctask_state *st);

/* queues.c */

PART int queues_setup(PyObject *module, ctask_state *st);

/* condition.c */

PART int condition_setup(PyObject *module, ctask_state *st);

/* sync.c */

/* For a class with these for its tp_new, its tp_dealloc, ...: `size` is that of its structure. */
PART SyncObj *sync_new(PyTypeObject *type, destructor dealloc, size_t size);
/* Find out what is overridden, against the class `core` and asyncio's, `stock`; returns it. */
PART int sync_look(SyncObj *sync, sync_kind kind, const sync_methods *methods, PyTypeObject *core,
                   PyObject *stock);
PART int sync_setattro(PyObject *self, PyObject *name, PyObject *value, const sync_methods *methods);
/* For a step: wait in the list of `sync` and then call `next`, or `failed` with the exception set.  `unwait` takes
   the coroutine off the list. */
PART int sync_wait(CoroObj *coro, SyncObj *sync, coro_step next, coro_step failed, void (*unwait)(CoroObj *));
/* The two halves of sync_wait(): make the future, which is coro->waiter then, and wait for it. */
PART int sync_future(CoroObj *coro, SyncObj *sync);
PART int sync_suspend(CoroObj *coro, SyncObj *sync, coro_step next, coro_step failed,
                      void (*unwait)(CoroObj *));
/* `unwait` if the list is that of the coroutine's owner. */
PART void sync_unwait(CoroObj *coro);
/* The end of what asyncio has in an `except:` clause: goes on with `raised` (stolen), or if status is below 0 with the
   exception that is set, which came meanwhile.  Returns CORO_ERROR. */
PART int sync_reraise(PyObject *raised, int status);
PART int sync_visit(PyObject *self, visitproc visit, void *arg);
PART int sync_drop(PyObject *self);
PART PyObject *Sync_get_waiters(PyObject *self, void *closure);
PART int Sync_set_waiters(PyObject *self, PyObject *value, void *closure);

/* What is overridden; `look` is the class's. */
static inline int
sync_overridden(SyncObj *sync, int (*look)(SyncObj *))
{
    if (UNLIKELY(sync->type_version == 0 || sync->type_version != Py_TYPE(sync)->tp_version_tag)) {
        return look(sync);
    }
    return sync->overridden;
}

/* An int that may be counted up; 0 and no exception if it is not one. */
static inline int
sync_size(PyObject *obj, Py_ssize_t *n)
{
    if (!PyLong_CheckExact(obj)) {
        return 0;
    }
    *n = PyLong_AsSsize_t(obj);
    if (UNLIKELY(*n == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0;
    }
    return *n < PY_SSIZE_T_MAX / 2 && *n > PY_SSIZE_T_MIN / 2;
}

/* The lock is the running task's. */
static inline void
lock_hold(LockObj *lock)
{
    lock->locked = 1;
    lock->holder = loops_running_task(lock->st);
}

/* 1 if the lock was free and is ours now, 0 if we have to wait, -1 with an exception. */
static inline int
lock_take(LockObj *lock)
{
    if (lock->locked) {
        return 0;
    }
    if (UNLIKELY(!waiters_are_none(&lock->waiters))) {
        int free = waiters_all_cancelled(&lock->waiters, lock->st);
        if (free <= 0) {
            return free;
        }
    }
    lock_hold(lock);
    return 1;
}

#endif
