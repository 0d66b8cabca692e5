/* Queue, PriorityQueue and LifoQueue: items, and the tasks that wait for one or for room.

   A C core over asyncio's own classes (ctask/_queues.py), whose attributes it holds: put(), get(), join() are steps
   of a coroutine, what is per item is C, and the rest (shutdown(), reprs, the hooks _init(), _put() and _get()) is
   inherited.  Items and waiters are in the deques and lists that Python code sees.  The deques of those who wait,
   and the event that join() waits for, are made when they are first needed.

   asyncio's own methods run instead wherever a class or an instance has another of the methods or attributes that
   they use; one with hooks of its own only has these called. */

#include "coro/core.h"
#include "coro/coro.h"
#include "tasks/futures.h"

#include <math.h>

#define QUEUE_SHUTDOWN (PY_VERSION_HEX >= 0x030D0000)

/* How items are put and taken: asyncio's three ways in C, or by calling the hooks. */
typedef enum { QUEUE_FIFO, QUEUE_LIFO, QUEUE_PRIORITY, QUEUE_HOOKS } queues_kind;

typedef struct {
    CORE_HEAD
    PyObject *loop;            // owned; what it is bound to, or NULL
    PyObject *maxsize;         // owned; as it was given, NULL before __init__
    PyObject *items;           // owned; `_queue`, NULL before _init()
    PyObject *getters;         // owned; deque, NULL until one waits or somebody asks for it
    PyObject *putters;         // owned; the same
    PyObject *finished;        // owned; the event of join(), NULL until it is needed
    Py_ssize_t limit;          // maxsize as a count of items; 0: none, -1: asyncio's own methods have to ask
    Py_ssize_t unfinished;
    unsigned int type_version; // tp_version_tag for which `overridden` and `kind` hold, 0: look anew
    unsigned char kind;
    char overridden;           // asyncio's own methods are to be called
    char replaced;             // a method was set on the instance
    char is_shutdown;
    unsigned char is_finished;          // the event's state, unless others can change that:
    char finished_shown;       // it was given out
} QueueObj;

static void queues_dealloc(PyObject *self);

/* ---- overrides ---- */

/* What asyncio's code calls on the queue itself.  The hooks are looked at apart. */
#define QUEUE_VIRTUAL(X) \
    X(_get_loop)         \
    X(_wakeup_next)      \
    X(empty)             \
    X(full)              \
    X(get_nowait)        \
    X(put_nowait)        \
    X(qsize)

/* The attributes, which a class could define otherwise. */
#if QUEUE_SHUTDOWN
#define QUEUE_SHUTDOWN_ATTRIBUTES(X) X(_is_shutdown)
#else
#define QUEUE_SHUTDOWN_ATTRIBUTES(X)
#endif
#define QUEUE_ATTRIBUTES(X)      \
    QUEUE_SHUTDOWN_ATTRIBUTES(X) \
    X(_finished)                 \
    X(_getters)                  \
    X(_loop)                     \
    X(_maxsize)                  \
    X(_putters)                  \
    X(_queue)                    \
    X(_unfinished_tasks)

/* asyncio's own class of this kind. */
static PyTypeObject *
queues_stock(ctask_state *st, queues_kind kind)
{
    PyObject *const stock[] = {st->stock_Queue, st->stock_LifoQueue, st->stock_PriorityQueue};
    return (PyTypeObject *)stock[kind];
}

/* Whose way are the hooks _put() and _get() of this class? */
static queues_kind
queues_kind_of(ctask_state *st, PyTypeObject *type)
{
    PyObject *const hooks[] = {st->str._put, st->str._get};
    for (queues_kind kind = QUEUE_FIFO; kind < QUEUE_HOOKS; kind++) {
        PyTypeObject *stock = queues_stock(st, kind);
        if (!standin_overrides(type, stock, (PyObject *)stock, hooks, Py_ARRAY_LENGTH(hooks))) {
            return kind;
        }
    }
    return QUEUE_HOOKS;
}

/* The kind of a class that was seen to override nothing, _init() included; else QUEUE_HOOKS. */
static inline queues_kind
queues_kind_known(ctask_state *st, PyTypeObject *type)
{
    queues_kind kind = QUEUE_FIFO;
    while (kind < QUEUE_HOOKS &&
           (type->tp_version_tag == 0 || st->sync.plain_queues[kind] != type->tp_version_tag)) {
        kind++;
    }
    return kind;
}

/* Returns 1 if asyncio's own methods are to be called. */
static __attribute__((noinline)) int
queues_look(QueueObj *q)
{
    ctask_state *st = q->st;
    PyTypeObject *type = Py_TYPE(q);
    queues_kind kind = queues_kind_known(st, type);
    q->overridden = 0;
    if (kind == QUEUE_HOOKS) {
#define X(name) st->str.name,
        PyObject *names[] = {QUEUE_VIRTUAL(X) QUEUE_ATTRIBUTES(X)};
#undef X
        q->overridden = (char)standin_overrides(
            type, st->QueueType, st->stock_Queue, names, Py_ARRAY_LENGTH(names));
        kind = queues_kind_of(st, type);
        if (!q->overridden && kind != QUEUE_HOOKS &&
            !standin_overrides(type, queues_stock(st, kind), st->stock_Queue, &st->str._init, 1)) {
            st->sync.plain_queues[kind] = type->tp_version_tag;
        }
    }
    /* After the look at the class, which its metaclass might have a say in. */
    if (q->replaced || q->limit < 0 || q->items == NULL || q->maxsize == NULL) {
        return 1;
    }
    int as_expected = kind == QUEUE_FIFO ? Py_IS_TYPE(q->items, (PyTypeObject *)st->deque)
                                         : PyList_CheckExact(q->items);
    q->kind = as_expected ? kind : QUEUE_HOOKS;
    q->type_version = type->tp_version_tag;
    return q->overridden;
}

static int queues_setattro(PyObject *self, PyObject *name, PyObject *value);

/* The queue if it is as expected, else NULL.  `self` has the core. */
static inline QueueObj *
queues_cast(PyObject *self)
{
    QueueObj *q = (QueueObj *)self;
    if (UNLIKELY(Py_TYPE(self)->tp_setattro != queues_setattro)) {
        return NULL;
    }
    if (UNLIKELY(q->type_version == 0 || q->type_version != Py_TYPE(self)->tp_version_tag)) {
        return queues_look(q) ? NULL : q;
    }
    return q->overridden ? NULL : q;
}

static int
queues_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, queues_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    QueueObj *q = (QueueObj *)self;
    ctask_state *st = q->st;
    int status = PyObject_GenericSetAttr(self, name, value);
#define X(virtual) st->str.virtual,
    PyObject *names[] = {QUEUE_VIRTUAL(X) st->str._get, st->str._init, st->str._put};
#undef X
    if (UNLIKELY(standin_is_one_of(name, names, Py_ARRAY_LENGTH(names)))) {
        q->replaced = 1;
        q->type_version = 0;
    }
    return status;
}

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

static PyObject *
queues_new_deque(ctask_state *st)
{
    return PyObject_CallNoArgs(st->deque);
}

/* One of the two, made when it is first needed; a collection may have it made meanwhile. */
static PyObject *
queues_waiters(QueueObj *q, PyObject **waiters)
{
    return LIKELY(*waiters != NULL) ? Py_NewRef(*waiters) : keep_first(waiters, queues_new_deque(q->st));
}

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

static __attribute__((noinline)) int
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

static __attribute__((noinline)) PyObject *
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

static __attribute__((noinline)) int
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

static __attribute__((noinline)) int
queues_raise(PyObject *type)
{
    PyErr_SetNone(type);
    return -1;
}

static int
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

/* ---- waiting ---- */

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
    if (UNLIKELY(queues_withdraw(coro, waiters, nothing_to_do) < 0)) {
        PyObject *exc = PyErr_GetRaisedException();
        if (exc != raised) {
            PyException_SetContext(exc, raised);
            raised = exc;
        }
        else {
            Py_DECREF(exc);
        }
    }
    PyErr_SetRaisedException(raised);
    return CORO_ERROR;
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

/* ---- attributes ---- */

static PyObject *
queues_attribute_error(const char *name)
{
    PyErr_SetString(PyExc_AttributeError, name);
    return NULL;
}

static int
queues_cannot_delete(const char *name)
{
    PyErr_Format(PyExc_AttributeError, "cannot delete %s", name);
    return -1;
}

/* `_getters` and `_putters`: the closure is the field's offset. */

static PyObject *
Queue_get_waiters(PyObject *self, void *offset)
{
    QueueObj *q = (QueueObj *)self;
    PyObject **waiters = (PyObject **)((char *)self + (size_t)offset);
    if (*waiters == NULL && q->maxsize == NULL) {
        return queues_attribute_error(waiters == &q->getters ? "_getters" : "_putters");
    }
    return queues_waiters(q, waiters);
}

static int
Queue_set_waiters(PyObject *self, PyObject *value, void *offset)
{
    PyObject **waiters = (PyObject **)((char *)self + (size_t)offset);
    if (value == NULL) {
        return queues_cannot_delete("waiters");
    }
    Py_XSETREF(*waiters, Py_NewRef(value));
    return 0;
}

static PyObject *
Queue_get_items(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *items = ((QueueObj *)self)->items;
    return items == NULL ? queues_attribute_error("_queue") : Py_NewRef(items);
}

/* Steals `items`.  What is under way may know the queue's kind already: by the hooks any items will do. */
static void
queues_set_items(QueueObj *q, PyObject *items)
{
    q->type_version = 0;
    q->kind = QUEUE_HOOKS;
    Py_XSETREF(q->items, items);
}

static int
Queue_set_items(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    queues_set_items((QueueObj *)self, Py_XNewRef(value));
    return 0;
}

static PyObject *
Queue_get_maxsize(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *maxsize = ((QueueObj *)self)->maxsize;
    return maxsize == NULL ? queues_attribute_error("_maxsize") : Py_NewRef(maxsize);
}

/* Whether a queue of n items is full is whether n >= maxsize, but never if that is 0 or less. */
static Py_ssize_t
queues_limit(PyObject *maxsize)
{
    if (PyFloat_CheckExact(maxsize)) {
        double limit = ceil(PyFloat_AS_DOUBLE(maxsize));
        return limit > 0 && limit < (double)PY_SSIZE_T_MAX ? (Py_ssize_t)limit : 0;
    }
    if (!PyLong_CheckExact(maxsize) && !PyBool_Check(maxsize)) {
        return -1;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(maxsize);
    if (UNLIKELY(limit == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0; /* there are never that many; below zero means none as well */
    }
    return limit > 0 ? limit : 0;
}

static int
Queue_set_maxsize(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (value == NULL) {
        return queues_cannot_delete("_maxsize");
    }
    q->limit = queues_limit(value);
    q->type_version = 0;
    Py_XSETREF(q->maxsize, Py_NewRef(value));
    return 0;
}

static PyObject *
Queue_get_finished(PyObject *self, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (q->finished == NULL && q->maxsize == NULL) {
        return queues_attribute_error("_finished");
    }
    q->finished_shown = 1;
    return q->finished == NULL ? queues_make_finished(q) : Py_NewRef(q->finished);
}

static int
Queue_set_finished(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (value == NULL) {
        return queues_cannot_delete("_finished");
    }
    q->finished_shown = 1;
    Py_XSETREF(q->finished, Py_NewRef(value));
    return 0;
}

#if QUEUE_SHUTDOWN
static PyObject *
Queue_get_is_shutdown(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((QueueObj *)self)->is_shutdown);
}

static int
Queue_set_is_shutdown(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        return queues_cannot_delete("_is_shutdown");
    }
    int is_true = PyObject_IsTrue(value);
    if (is_true < 0) {
        return -1;
    }
    ((QueueObj *)self)->is_shutdown = (char)is_true;
    return 0;
}
#endif

static PyGetSetDef Queue_getset[] = {
    {"_getters", Queue_get_waiters, Queue_set_waiters, NULL, (void *)offsetof(QueueObj, getters)},
    {"_putters", Queue_get_waiters, Queue_set_waiters, NULL, (void *)offsetof(QueueObj, putters)},
    {"_queue", Queue_get_items, Queue_set_items, NULL, NULL},
    {"_maxsize", Queue_get_maxsize, Queue_set_maxsize, NULL, NULL},
    {"_finished", Queue_get_finished, Queue_set_finished, NULL, NULL},
#if QUEUE_SHUTDOWN
    {"_is_shutdown", Queue_get_is_shutdown, Queue_set_is_shutdown, NULL, NULL},
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Queue_members[] = {
    {"_loop", T_OBJECT, offsetof(QueueObj, loop), 0, NULL},
    {"_unfinished_tasks", T_PYSSIZET, offsetof(QueueObj, unfinished), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

static PyObject *
Queue___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = core_new(type, queues_dealloc, sizeof(QueueObj));
    if (self != NULL && core_is(self, queues_dealloc)) {
        ((QueueObj *)self)->is_finished = 1;
    }
    return self;
}

/* _init(maxsize): what holds the items is made here unless the class has a way of its own. */
static int
queues_make_items(QueueObj *q, PyObject *maxsize)
{
    ctask_state *st = q->st;
    queues_kind kind = queues_kind_known(st, Py_TYPE(q));
    if (kind != QUEUE_HOOKS && !q->replaced && Py_TYPE(q)->tp_setattro == queues_setattro) {
        PyObject *items = kind == QUEUE_FIFO ? queues_new_deque(st) : PyList_New(0);
        if (items == NULL) {
            return -1;
        }
        queues_set_items(q, items);
        return 0;
    }
    PyObject *res = PyObject_CallMethodOneArg((PyObject *)q, st->str._init, maxsize);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
Queue___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"maxsize", NULL};
    QueueObj *q = (QueueObj *)self;
    PyObject *maxsize = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Queue", keywords, &maxsize)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, q->st->stock_Queue);
    }
    maxsize = maxsize == NULL ? PyLong_FromLong(0) : Py_NewRef(maxsize);
    PyObject *before[] = {q->maxsize, q->getters, q->putters, q->finished};
    q->maxsize = Py_NewRef(maxsize);
    q->limit = queues_limit(maxsize);
    q->getters = q->putters = q->finished = NULL;
    q->is_finished = 1;
    q->finished_shown = 0;
    q->unfinished = 0;
    q->is_shutdown = 0;
    q->type_version = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(before); i++) {
        Py_XDECREF(before[i]);
    }
    int status = queues_make_items(q, maxsize);
    Py_DECREF(maxsize);
    return status;
}

static int
queues_visit(PyObject *self, visitproc visit, void *arg)
{
    QueueObj *q = (QueueObj *)self;
    Py_VISIT(q->loop);
    Py_VISIT(q->maxsize);
    Py_VISIT(q->items);
    Py_VISIT(q->getters);
    Py_VISIT(q->putters);
    Py_VISIT(q->finished);
    return 0;
}

static int
queues_drop(PyObject *self)
{
    QueueObj *q = (QueueObj *)self;
    q->type_version = 0; /* look anew: it has no items */
    Py_CLEAR(q->loop);
    Py_CLEAR(q->maxsize);
    Py_CLEAR(q->items);
    Py_CLEAR(q->getters);
    Py_CLEAR(q->putters);
    Py_CLEAR(q->finished);
    return 0;
}

CORE_LIFE(static, queues)

static PyType_Slot Queue_slots[] = {
    {Py_tp_new, Queue___new__},
    {Py_tp_init, Queue___init__},
    {Py_tp_dealloc, queues_dealloc},
    {Py_tp_traverse, queues_traverse},
    {Py_tp_clear, queues_clear},
    {Py_tp_setattro, queues_setattro},
    {Py_tp_members, Queue_members},
    {Py_tp_getset, Queue_getset},
    {0, NULL},
};

static PyType_Spec Queue_spec = {
    .name = "ctask._ctask.Queue",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Queue_slots,
};

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
    if (core_add(module,
                 st,
                 "Queue",
                 &st->QueueType,
                 &Queue_spec,
                 NULL,
                 st->stock_Queue,
                 methods,
                 Py_ARRAY_LENGTH(methods)) < 0) {
        return -1;
    }
    /* For the class in Python, which is generic, too. */
    PyObject *subscript = PyDict_GetItemString(((PyTypeObject *)st->stock_Queue)->tp_dict, "__class_getitem__");
    return subscript == NULL
               ? 0
               : PyObject_SetAttrString((PyObject *)st->QueueType, "__class_getitem__", subscript);
}
