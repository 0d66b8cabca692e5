/* What locks, events, semaphores and conditions share: the loop that they belong to, what a subclass overrides,
   and how to wait. */

#include "coro/coro.h"
#include "sync/sync.h"

/* ---- overrides ---- */

PART int
sync_look(SyncObj *sync, sync_kind kind, const sync_methods *methods, PyTypeObject *core, PyObject *stock)
{
    ctask_state *st = sync->st;
    PyTypeObject *type = Py_TYPE(sync);
    if (!sync->ready || sync->overridden & SYNC_INSTANCE) {
        return SYNC_INTERNALS | SYNC_PUBLIC;
    }
    if (st->sync.types[kind].version == 0 || st->sync.types[kind].version != type->tp_version_tag) {
        size_t n = methods->n_internals;
        int overridden = 0;
        if (standin_overrides(type, core, stock, methods->names, n)) {
            overridden |= SYNC_INTERNALS;
        }
        if (standin_overrides(type, core, stock, methods->names + n, methods->n - n)) {
            overridden |= SYNC_PUBLIC;
        }
        st->sync.types[kind].overridden = (char)overridden;
        st->sync.types[kind].version = type->tp_version_tag;
    }
    sync->overridden = st->sync.types[kind].overridden;
    sync->type_version = type->tp_version_tag;
    return sync->overridden;
}

PART int
sync_setattro(PyObject *self, PyObject *name, PyObject *value, const sync_methods *methods)
{
    SyncObj *sync = (SyncObj *)self;
    int status = PyObject_GenericSetAttr(self, name, value);
    if (UNLIKELY(standin_is_one_of(name, methods->names, methods->n))) {
        sync->overridden = SYNC_INSTANCE;
        sync->type_version = 0;
    }
    return status;
}

/* ---- waiting ---- */

PART int
sync_future(CoroObj *coro, SyncObj *sync)
{
    sync->waiters.kind = WAITERS_DEQUE; /* also if nobody comes to wait */
    PyObject *loop = bind_loop(sync->st, (PyObject *)sync, &sync->loop);
    if (UNLIKELY(loop == NULL)) {
        return -1;
    }
    PyObject *fut = loop_new_future(coro->st, loop);
    Py_DECREF(loop);
    if (UNLIKELY(fut == NULL)) {
        return -1;
    }
    Py_XSETREF(coro->waiter, fut);
    return 0;
}

PART int
sync_suspend(CoroObj *coro, SyncObj *sync, coro_step next, coro_step failed, void (*unwait)(CoroObj *))
{
    if (UNLIKELY(waiters_add(&sync->waiters, coro) < 0)) {
        return CORO_ERROR;
    }
    if (UNLIKELY(coro_await(coro, Py_NewRef(coro->waiter), next) == CORO_ERROR)) {
        PyObject *raised = PyErr_GetRaisedException();
        unwait(coro);
        PyErr_SetRaisedException(raised);
        return CORO_ERROR;
    }
    coro->failed = failed;
    coro->unwait = unwait;
    return CORO_AWAIT;
}

PART int
sync_wait(CoroObj *coro, SyncObj *sync, coro_step next, coro_step failed, void (*unwait)(CoroObj *))
{
    return sync_future(coro, sync) < 0 ? CORO_ERROR : sync_suspend(coro, sync, next, failed, unwait);
}

PART void
sync_unwait(CoroObj *coro)
{
    waiters_remove(&((SyncObj *)coro->owner)->waiters, coro);
}

PART int
sync_reraise(PyObject *raised, int status)
{
    if (UNLIKELY(status < 0)) {
        raised_while(raised);
    }
    else {
        PyErr_SetRaisedException(raised);
    }
    return CORO_ERROR;
}

/* ---- attributes ---- */

PART PyObject *
Sync_get_waiters(PyObject *self, void *Py_UNUSED(closure))
{
    return waiters_show(&((SyncObj *)self)->waiters, ((SyncObj *)self)->st);
}

PART int
Sync_set_waiters(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return waiters_set(&((SyncObj *)self)->waiters, ((SyncObj *)self)->st, value);
}

/* ---- life ---- */

/* NULL with an exception; without a core if the class cannot have it: sync->st is not to be looked at then. */
PART SyncObj *
sync_new(PyTypeObject *type, destructor dealloc, size_t size)
{
    SyncObj *sync = (SyncObj *)core_new(type, dealloc, size);
    if (sync != NULL && core_is((PyObject *)sync, dealloc)) {
        waiters_init(&sync->waiters);
    }
    return sync;
}

PART int
sync_visit(PyObject *self, visitproc visit, void *arg)
{
    SyncObj *sync = (SyncObj *)self;
    Py_VISIT(sync->loop);
    return waiters_traverse(&sync->waiters, visit, arg);
}

PART int
sync_drop(PyObject *self)
{
    SyncObj *sync = (SyncObj *)self;
    waiters_clear(&sync->waiters);
    Py_CLEAR(sync->waiters.shown);
    Py_CLEAR(sync->loop);
    return 0;
}
