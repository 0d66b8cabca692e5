/* The items of a queue, and who is woken when one comes or goes. */

#ifndef CTASK_QUEUES_ITEMS_H
#define CTASK_QUEUES_ITEMS_H

#include "sync/queueobj.h"
#include "tasks/futures.h"

/* ---- deques ---- */

/* A method in C of the type of `self`, which is exact: the function that its descriptor would call. */
static inline PyObject *
call_descriptor(PyObject *descriptor, PyObject *self, PyObject *arg)
{
    if (LIKELY(Py_IS_TYPE(descriptor, &PyMethodDescr_Type))) {
        PyMethodDef *def = ((PyMethodDescrObject *)descriptor)->d_method;
        if (LIKELY(def->ml_flags == (arg == NULL ? METH_NOARGS : METH_O))) {
            return def->ml_meth(self, arg);
        }
    }
    PyObject *stack[] = {self, arg};
    return PyObject_Vectorcall(descriptor, stack, arg == NULL ? 1 : 2, NULL);
}

/* For `_getters` and `_putters`, where Python code may have put anything that has a deque's methods. */

static inline PyObject *
queues_new_deque(ctask_state *st)
{
    return PyObject_CallNoArgs(st->deque);
}

/* One of the two, made when it is first needed; a collection may have it made meanwhile. */
static inline PyObject *
queues_waiters(QueueObj *q, PyObject **waiters)
{
    return LIKELY(*waiters != NULL) ? Py_NewRef(*waiters) : keep_first(waiters, queues_new_deque(q->st));
}

static __attribute__((noinline, unused)) int
queues_wake_next_of(ctask_state *st, PyObject *waiters)
{
    int status = 0;
    Py_ssize_t n;
    Py_INCREF(waiters);
    while (status == 0 && (n = PyObject_Size(waiters)) != 0) {
        PyObject *waiter = NULL;
        if (n > 0) {
            waiter = LIKELY(Py_IS_TYPE(waiters, (PyTypeObject *)st->deque))
                         ? call_descriptor(st->deque_popleft, waiters, NULL)
                         : PyObject_CallMethodNoArgs(waiters, st->str.popleft);
        }
        status = waiter == NULL ? -1 : future_wake(st, waiter, Py_None);
        Py_XDECREF(waiter);
    }
    Py_DECREF(waiters);
    return status < 0 ? -1 : 0;
}

/* _wakeup_next(): the first of `waiters` (which may be NULL) that is not done. */
static inline int
queues_wake_next(QueueObj *q, PyObject *waiters)
{
    if (waiters == NULL || (Py_IS_TYPE(waiters, (PyTypeObject *)q->st->deque) &&
                            Py_TYPE(waiters)->tp_as_sequence->sq_length(waiters) == 0)) {
        return 0;
    }
    return queues_wake_next_of(q->st, waiters);
}

/* ---- the event of join() ---- */

static __attribute__((noinline, unused)) PyObject *
queues_make_finished(QueueObj *q)
{
    PyObject *event = PyObject_CallMethodNoArgs(q->st->locks_module, q->st->str.Event);
    if (event != NULL && q->is_finished) {
        PyObject *res = PyObject_CallMethodNoArgs(event, q->st->str.set);
        if (res == NULL) {
            Py_CLEAR(event);
        }
        Py_XDECREF(res);
    }
    return keep_first(&q->finished, event);
}

static __attribute__((noinline, unused)) int
queues_call_finished(QueueObj *q, PyObject *method)
{
    PyObject *event = Py_NewRef(q->finished);
    PyObject *res = PyObject_CallMethodNoArgs(event, method);
    Py_DECREF(event);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* _finished.set() or .clear() */
static inline int
queues_set_finished(QueueObj *q, int value)
{
    int before = q->is_finished;
    q->is_finished = (char)value;
    if (LIKELY(q->finished == NULL || (before == value && !q->finished_shown))) {
        return 0;
    }
    return queues_call_finished(q, value ? q->st->str.set : q->st->str.clear);
}

/* ---- items ---- */

/* qsize() of a queue as expected */
static inline Py_ssize_t
queues_length(QueueObj *q)
{
    if (LIKELY(q->kind == QUEUE_FIFO)) {
        return Py_TYPE(q->items)->tp_as_sequence->sq_length(q->items);
    }
    if (q->kind != QUEUE_HOOKS) {
        return PyList_GET_SIZE(q->items);
    }
    PyObject *items = Py_NewRef(q->items);
    Py_ssize_t length = PyObject_Size(items);
    Py_DECREF(items);
    return length;
}

/* empty(); -1 with an exception */
static inline int
queues_empty(QueueObj *q)
{
    if (UNLIKELY(q->kind == QUEUE_HOOKS)) {
        PyObject *items = Py_NewRef(q->items);
        int is_true = PyObject_IsTrue(items);
        Py_DECREF(items);
        return is_true < 0 ? -1 : !is_true;
    }
    return queues_length(q) == 0;
}

/* full(); -1 with an exception */
static inline int
queues_full(QueueObj *q)
{
    if (q->limit == 0) {
        return 0;
    }
    Py_ssize_t length = queues_length(q);
    return length < 0 ? -1 : length >= q->limit;
}

/* _put() */
static inline int
queues_add(QueueObj *q, PyObject *item)
{
    ctask_state *st = q->st;
    if (UNLIKELY(q->kind == QUEUE_HOOKS)) {
        PyObject *res = PyObject_CallMethodOneArg((PyObject *)q, st->str._put, item);
        Py_XDECREF(res);
        return res == NULL ? -1 : 0;
    }
    PyObject *items = q->items;
    if (q->kind == QUEUE_LIFO) {
        return PyList_Append(items, item);
    }
    /* A comparison, or an item that a deque with a limit lets go, may be anybody's. */
    Py_INCREF(items);
    PyObject *res;
    if (LIKELY(q->kind == QUEUE_FIFO)) {
        res = call_descriptor(st->deque_append, items, item);
    }
    else {
        PyObject *stack[] = {items, item};
        res = call_vector(st->heappush, stack, 2);
    }
    Py_DECREF(items);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* _get() of a queue that is not empty */
static inline PyObject *
queues_take(QueueObj *q)
{
    ctask_state *st = q->st;
    PyObject *items = q->items;
    if (LIKELY(q->kind == QUEUE_FIFO)) {
        return call_descriptor(st->deque_popleft, items, NULL);
    }
    if (q->kind == QUEUE_LIFO) {
        Py_ssize_t last = PyList_GET_SIZE(items) - 1;
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, last));
        if (PyList_SetSlice(items, last, last + 1, NULL) < 0) {
            Py_CLEAR(item);
        }
        return item;
    }
    if (q->kind == QUEUE_PRIORITY) {
        Py_INCREF(items);
        PyObject *item = call_vector(st->heappop, &items, 1);
        Py_DECREF(items);
        return item;
    }
    return PyObject_CallMethodNoArgs((PyObject *)q, st->str._get);
}

static __attribute__((noinline, unused)) int
queues_raise(PyObject *type)
{
    PyErr_SetNone(type);
    return -1;
}

static inline int
queues_refuse(QueueObj *q)
{
#if QUEUE_SHUTDOWN
    return queues_raise(q->st->QueueShutDown);
#else
    return queues_raise(q->st->QueueFull); /* never */
#endif
}

/* put_nowait() of a queue that is neither full nor shut down */
static inline int
queues_put(QueueObj *q, PyObject *item)
{
    if (queues_add(q, item) < 0) {
        return -1;
    }
    q->unfinished += LIKELY(q->unfinished < PY_SSIZE_T_MAX);
    if (queues_set_finished(q, 0) < 0) {
        return -1;
    }
    return queues_wake_next(q, q->getters);
}

/* get_nowait() of a queue that is not empty */
static inline PyObject *
queues_get(QueueObj *q)
{
    PyObject *item = queues_take(q);
    if (LIKELY(item != NULL) && UNLIKELY(queues_wake_next(q, q->putters) < 0)) {
        Py_CLEAR(item);
    }
    return item;
}

#endif
