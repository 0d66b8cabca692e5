/* Queue, PriorityQueue and LifoQueue: items, and the tasks that wait for one or for room.

   Here are the methods: put(), get(), join() are steps of a coroutine, what is per item is C (queues_items.h), and the
   rest (shutdown(), reprs, the hooks _init(), _put() and _get()) is inherited.  What they work on is in queues_core.c.

   asyncio's own methods run instead wherever a class or an instance has another of the methods or attributes that
   they use; one with hooks of its own only has these called. */

#include "coro/coro.h"
#include "sync/queues_core.h"
#include "sync/queues_items.h"
#include "sync/sync.h"
#include "tasks/futures.h"

/* ---- waiting ---- */

static int
queues_append_waiter(ctask_state *st, PyObject *waiters, PyObject *waiter)
{
    PyObject *res = LIKELY(Py_IS_TYPE(waiters, (PyTypeObject *)st->deque))
                        ? call_descriptor(st->deque_append, waiters, waiter)
                        : PyObject_CallMethodOneArg(waiters, st->str.append, waiter);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
queues_remove_waiter(ctask_state *st, PyObject *waiters, PyObject *waiter)
{
    PyObject *res = PyObject_CallMethodOneArg(waiters, st->str.remove, waiter);
    Py_XDECREF(res);
    if (res == NULL && !PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* self._get_loop().create_future() */
static PyObject *
queues_new_future(QueueObj *q)
{
    ctask_state *st = q->st;
    PyObject *loop = bind_loop(st, (PyObject *)q, &q->loop);
    if (UNLIKELY(loop == NULL)) {
        return NULL;
    }
    PyObject *fut = loop_new_future(st, loop);
    Py_DECREF(loop);
    return fut;
}

/* full() and empty(), of a queue that may have changed its class while somebody waited. */

static int
queues_ask_full(QueueObj *q)
{
    return queues_cast((PyObject *)q) != NULL ? queues_full(q) : call_predicate((PyObject *)q, q->st->str.full);
}

static int
queues_ask_empty(QueueObj *q)
{
    return queues_cast((PyObject *)q) != NULL ? queues_empty(q)
                                              : call_predicate((PyObject *)q, q->st->str.empty);
}

/* One who waited gives up; if he was called already, the next has his turn.  Returns -1 with an exception. */
static int
queues_withdraw(CoroObj *coro, PyObject **waiters, int (*nothing_to_do)(QueueObj *))
{
    QueueObj *q = (QueueObj *)coro->owner;
    ctask_state *st = q->st;
    PyObject *waiter = coro->waiter;
    if (future_withdraw(st, waiter) < 0) {
        return -1;
    }
    if (*waiters != NULL) {
        PyObject *deque = Py_NewRef(*waiters);
        int status = queues_remove_waiter(st, deque, waiter);
        Py_DECREF(deque);
        if (status < 0) {
            return -1;
        }
    }
    int nothing = nothing_to_do(q);
    if (nothing != 0) {
        return nothing < 0 ? -1 : 0;
    }
    int cancelled = future_is_cancelled(st, waiter);
    if (cancelled != 0 || *waiters == NULL) {
        return cancelled < 0 ? -1 : 0;
    }
    if (LIKELY(queues_cast((PyObject *)q) != NULL)) {
        return queues_wake_next(q, *waiters);
    }
    PyObject *deque = Py_NewRef(*waiters);
    PyObject *res = PyObject_CallMethodOneArg((PyObject *)q, st->str._wakeup_next, deque);
    Py_DECREF(deque);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* asyncio's `except:` clause: what went wrong in it has the exception as its context, else that goes on. */
static int
queues_failed(CoroObj *coro, PyObject **waiters, int (*nothing_to_do)(QueueObj *))
{
    PyObject *raised = PyErr_GetRaisedException();
    return sync_reraise(raised, queues_withdraw(coro, waiters, nothing_to_do));
}

static int
queues_put_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    return queues_failed(coro, &((QueueObj *)coro->owner)->putters, queues_ask_full);
}

static int
queues_get_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    return queues_failed(coro, &((QueueObj *)coro->owner)->getters, queues_ask_empty);
}

/* For a step: wait among `waiters`, then call `next`. */
static __attribute__((noinline)) int
queues_wait(CoroObj *coro, QueueObj *q, PyObject **waiters, coro_step next, coro_step failed)
{
    ctask_state *st = q->st;
    PyObject *fut = queues_new_future(q);
    if (UNLIKELY(fut == NULL)) {
        return CORO_ERROR;
    }
    Py_XSETREF(coro->waiter, fut);
    PyObject *deque = queues_waiters(q, waiters);
    if (UNLIKELY(deque == NULL)) {
        return CORO_ERROR;
    }
    int status = queues_append_waiter(st, deque, fut);
    Py_DECREF(deque);
    if (UNLIKELY(status < 0)) {
        return CORO_ERROR;
    }
    status = coro_await(coro, Py_NewRef(fut), next);
    if (UNLIKELY(status < 0)) {
        return failed(coro, NULL);
    }
    coro->failed = failed;
    return status;
}

/* asyncio's own coroutine from here on. */
static __attribute__((noinline)) int
queues_go_on_as_stock(CoroObj *coro, PyObject *stock, PyObject *arg)
{
    PyObject *stack[] = {coro->owner, arg};
    return coro_await(coro, PyObject_Vectorcall(stock, stack, arg == NULL ? 1 : 2, NULL), NULL);
}

static int
queues_put_step(CoroObj *coro, PyObject **result)
{
    QueueObj *q = queues_cast(coro->owner);
    if (UNLIKELY(q == NULL)) {
        return queues_go_on_as_stock(coro, coro->st->stock_queue_put, coro->arg);
    }
    int full = queues_full(q);
    if (full != 0) {
        if (full < 0) {
            return CORO_ERROR;
        }
        if (UNLIKELY(q->is_shutdown)) {
            return queues_refuse(q);
        }
        return queues_wait(coro, q, &q->putters, queues_put_step, queues_put_failed);
    }
    if (UNLIKELY(q->is_shutdown)) {
        return queues_refuse(q);
    }
    if (UNLIKELY(queues_put(q, coro->arg) < 0)) {
        return CORO_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

static int
queues_get_step(CoroObj *coro, PyObject **result)
{
    QueueObj *q = queues_cast(coro->owner);
    if (UNLIKELY(q == NULL)) {
        return queues_go_on_as_stock(coro, coro->st->stock_queue_get, NULL);
    }
    int empty = queues_empty(q);
    if (empty != 0) {
        if (empty < 0) {
            return CORO_ERROR;
        }
        if (UNLIKELY(q->is_shutdown)) {
            return queues_refuse(q);
        }
        return queues_wait(coro, q, &q->getters, queues_get_step, queues_get_failed);
    }
    *result = queues_get(q);
    return LIKELY(*result != NULL) ? CORO_RETURN : CORO_ERROR;
}

static int
queues_joined(CoroObj *Py_UNUSED(coro), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return CORO_RETURN;
}

static int
queues_join_step(CoroObj *coro, PyObject **result)
{
    QueueObj *q = queues_cast(coro->owner);
    if (UNLIKELY(q == NULL)) {
        return queues_go_on_as_stock(coro, coro->st->stock_queue_join, NULL);
    }
    if (q->unfinished <= 0) {
        return queues_joined(coro, result);
    }
    PyObject *event = q->finished == NULL ? queues_make_finished(q) : Py_NewRef(q->finished);
    if (event == NULL) {
        return CORO_ERROR;
    }
    PyObject *wait = PyObject_CallMethodNoArgs(event, q->st->str.wait);
    Py_DECREF(event);
    return coro_await(coro, wait, queues_joined);
}

/* ---- the methods that return coroutines ---- */

static PyObject *
Queue_put(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
          PyObject *stock)
{
    if (UNLIKELY(nargs != 2 || kwnames != NULL || queues_cast(self) == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, queues_put_step, "Queue.put", 0, args[1]);
}

static PyObject *
Queue_get(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
          PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL || queues_cast(self) == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, queues_get_step, "Queue.get", 0, NULL);
}

static PyObject *
Queue_join(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL || queues_cast(self) == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, queues_join_step, "Queue.join", 0, NULL);
}

/* ---- the other methods ---- */

static PyObject *
Queue_put_nowait(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 2 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    if (UNLIKELY(q->is_shutdown)) {
        (void)queues_refuse(q);
        return NULL;
    }
    int full = queues_full(q);
    if (UNLIKELY(full != 0)) {
        if (full > 0) {
            (void)queues_raise(q->st->QueueFull);
        }
        return NULL;
    }
    return queues_put(q, args[1]) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Queue_get_nowait(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    int empty = queues_empty(q);
    if (UNLIKELY(empty != 0)) {
        if (empty > 0) {
            (void)(q->is_shutdown ? queues_refuse(q) : queues_raise(q->st->QueueEmpty));
        }
        return NULL;
    }
    return queues_get(q);
}

PyDoc_STRVAR(queues_task_done_doc,
"task_done($self)\n--\n\n"
"One of the items that were taken out is dealt with; join() returns when all are.\n\n"
"Raises ValueError if called more often than items were put.  (asyncio.Queue.task_done)");

static PyObject *
Queue_task_done(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    if (UNLIKELY(q->unfinished <= 0)) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return NULL;
    }
    if (--q->unfinished == 0 && queues_set_finished(q, 1) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Queue_qsize(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    Py_ssize_t length = queues_length(q);
    return length < 0 ? NULL : PyLong_FromSsize_t(length);
}

static PyObject *
Queue_empty(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    int empty = queues_empty(q);
    return empty < 0 ? NULL : PyBool_FromLong(empty);
}

PyDoc_STRVAR(queues_full_doc,
"full($self)\n--\n\n"
"Return True if there are `maxsize` items in the queue; never if that is 0.  (asyncio.Queue.full)");

static PyObject *
Queue_full(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames, PyObject *stock)
{
    QueueObj *q = queues_cast(self);
    if (UNLIKELY(q == NULL || nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    int full = queues_full(q);
    return full < 0 ? NULL : PyBool_FromLong(full);
}

PART int
queues_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"put", Queue_put},
        {"get", Queue_get},
        {"join", Queue_join},
        {"put_nowait", Queue_put_nowait},
        {"get_nowait", Queue_get_nowait},
        {"task_done", Queue_task_done},
        {"qsize", Queue_qsize},
        {"empty", Queue_empty},
        {"full", Queue_full},
    };
    const struct {
        PyObject **slot;
        PyObject *type;
        const char *name;
    } stock[] = {
        {&st->stock_queue_put, st->stock_Queue, "put"},
        {&st->stock_queue_get, st->stock_Queue, "get"},
        {&st->stock_queue_join, st->stock_Queue, "join"},
        {&st->deque_append, st->deque, "append"},
        {&st->deque_popleft, st->deque, "popleft"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(stock); i++) {
        *stock[i].slot = PyObject_GetAttrString(stock[i].type, stock[i].name);
        if (*stock[i].slot == NULL) {
            return -1;
        }
    }
    return queues_add_type(module, st, methods, Py_ARRAY_LENGTH(methods));
}
