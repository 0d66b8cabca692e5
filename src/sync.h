/* What the synchronisation primitives share: lock.c, event.c, semaphore.c and condition.c are the classes.

   Each class is a C core over asyncio's own class (ctask/_locks.py): what is not C is inherited.  A core fills
   asyncio's attributes from its fields, so inherited methods work on them; they are called where a method that
   asyncio's code would call on the object is overridden. */

#ifndef CTASK_SYNC_H
#define CTASK_SYNC_H

#include "standin.h"
#include "waiters.h"

#include <structmember.h>

/* What is overridden. */
enum {
    SYNC_INTERNALS = 1, // private methods: asyncio's own code is to be run
    SYNC_PUBLIC = 2,    // acquire(), release(), ...: only what calls them on the object is asyncio's
    SYNC_INSTANCE = 4,  // decided by an attribute of the instance, whatever its type
};

#define SYNC_FIELDS                                                              \
    PyObject_HEAD                                                                \
    ctask_state *st;           /* borrowed from the type's module */             \
    PyObject *loop;            /* owned; NULL until somebody waits */            \
    waiter_list waiters;                                                         \
    unsigned int type_version; /* tp_version_tag for which `overridden` holds */ \
    char overridden;           /* SYNC_... */                                    \
    char ready;                /* __init__ was called */

typedef struct {
    SYNC_FIELDS
} SyncObj;

/* The methods of a class that count, private ones first. */
typedef struct {
    PyObject *names[6]; // borrowed from the module's state
    size_t n_internals;
    size_t n;
} sync_methods;

/* lock.c */

#define LOCK_UNSET 2

typedef struct {
    SYNC_FIELDS
    char locked; // 0, 1, or LOCK_UNSET before __init__
} LockObj;

PART int lock_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int lock_look(SyncObj *sync);
PART int lock_setup(PyObject *module, ctask_state *st);

/* event.c */

PART int event_setup(PyObject *module, ctask_state *st);

/* semaphore.c */

PART int semaphore_setup(PyObject *module, ctask_state *st);

/* sync.c */

PART int sync_setup(PyObject *module, ctask_state *st);
PART PyObject *sync_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
/* stock.__init__(self, *args, **kwargs) */
PART int sync_init_stock(PyObject *self, PyObject *args, PyObject *kwargs, PyObject *stock);
/* Find out what is overridden, against the class `core` and asyncio's, `stock`; returns it. */
PART int sync_look(SyncObj *sync, sync_kind kind, const sync_methods *methods, PyTypeObject *core,
                   PyObject *stock);
PART int sync_setattro(PyObject *self, PyObject *name, PyObject *value, const sync_methods *methods);
/* For a step: wait in the list of `sync` and then call `next`, or `failed` with the exception set.  `unwait` takes
   the coroutine off the list. */
PART int sync_wait(CoroObj *coro, SyncObj *sync, coro_step next, coro_step failed, void (*unwait)(CoroObj *));
/* `unwait` if the list is that of the coroutine's owner. */
PART void sync_unwait(CoroObj *coro);
/* An exception is set: it came while `raised` (stolen) was, which becomes its context. */
PART void sync_set_context(PyObject *raised);
PART int sync_traverse(PyObject *self, visitproc visit, void *arg);
PART int sync_clear(PyObject *self);
PART void sync_dealloc(PyObject *self);
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

#endif
