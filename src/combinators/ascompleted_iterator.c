/* The iterator of as_completed(): what is done and waits to be taken, and those who wait for the next.

   What it yields are coroutines without a frame (coro.h).  From 3.13 on it derives from asyncio's _AsCompletedIterator
   and has its attributes.  Before, it is what a generator yields from (ctask/_ascompleted.py).

   What is done waits in an array, in place of asyncio's queue.  If somebody asks for that queue, `_done`, one is made,
   and asyncio's own method takes from it. */

#include "combinators/ascompleted_iterator.h"
#include "combinators/ensure.h"
#include "coro/coro.h"
#include "coro/standin.h"
#include "sync/sync.h"
#include "tasks/futures.h"

#include <structmember.h>

/* ---- the items ---- */

static __attribute__((noinline)) int
ascompleted_grow(AsCompletedObj *all)
{
    Py_ssize_t size = all->size * 2 + 8;
    PyObject **items = PyMem_Resize(all->items, PyObject *, (size_t)size);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    all->items = items;
    all->size = size;
    return 0;
}

/* _done.put_nowait(item); NULL stands for None. */
static int
ascompleted_put(AsCompletedObj *all, PyObject *item)
{
    ctask_state *st = all->st;
    if (UNLIKELY(all->queue != NULL)) {
        PyObject *queue = Py_NewRef(all->queue);
        PyObject *res = PyObject_CallMethodOneArg(queue, st->str.put_nowait, item == NULL ? Py_None : item);
        Py_DECREF(queue);
        Py_XDECREF(res);
        return res == NULL ? -1 : 0;
    }
    if (UNLIKELY(all->tail == all->size) && ascompleted_grow(all) < 0) {
        return -1;
    }
    all->items[all->tail++] = Py_XNewRef(item);
    return waiters_wake(&all->waiters, st, 1, Py_None) < 0 ? -1 : 0;
}

/* The first item, NULL for None; there is one.  Owned. */
static inline PyObject *
ascompleted_take(AsCompletedObj *all)
{
    PyObject *item = all->items[all->head++];
    if (all->head == all->tail) {
        all->head = all->tail = 0;
    }
    return item;
}

/* ---- what happens ---- */

PART int
ascompleted_one_done(DoneObj *done, PyObject *fut)
{
    AsCompletedObj *all = (AsCompletedObj *)done->owner;
    if (all == NULL || all->todo == NULL || PySet_GET_SIZE(all->todo) == 0) {
        return 0; /* the timeout was first */
    }
    Py_INCREF(all);
    PyObject *todo = Py_NewRef(all->todo);
    int status = PySet_Discard(todo, fut);
    if (UNLIKELY(status == 0)) {
        PyErr_SetObject(PyExc_KeyError, fut);
        status = -1;
    }
    if (status > 0 && all->task != NULL && awaited_by_discard(all->st, fut, (TaskObj *)all->task) < 0) {
        status = -1;
    }
    if (status > 0) {
        status = ascompleted_put(all, fut);
    }
    if (PySet_GET_SIZE(todo) == 0) {
        Py_CLEAR(all->done);
        if (status == 0 && UNLIKELY(all->timer != NULL)) {
            PyObject *timer = Py_NewRef(all->timer);
            status = handle_cancel(timer, all->st);
            Py_DECREF(timer);
        }
    }
    Py_DECREF(todo);
    Py_DECREF(all);
    return status;
}

PART PyObject *
ascompleted_timed_out(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AsCompletedObj *all = (AsCompletedObj *)self;
    PyObject *todo = Py_XNewRef(all->todo);
    PyObject *futures = todo == NULL ? PyTuple_New(0) : PySequence_Tuple(todo);
    int status = futures == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyTuple_GET_SIZE(futures); i++) {
        PyObject *fut = PyTuple_GET_ITEM(futures, i);
        DoneObj *done = all->done;
        if (done != NULL) {
            Py_INCREF(done);
            status = done_remove(done, fut);
            Py_DECREF(done);
        }
        if (status == 0 && all->task != NULL) {
            status = awaited_by_discard(all->st, fut, (TaskObj *)all->task);
        }
        if (status == 0) {
            status = ascompleted_put(all, NULL);
        }
    }
    if (status == 0 && todo != NULL) {
        status = PySet_Clear(todo);
        Py_CLEAR(all->done);
    }
    Py_XDECREF(futures);
    Py_XDECREF(todo);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- waiting for one ---- */

static void
one_unwait(CoroObj *coro)
{
    waiters_remove(&((AsCompletedObj *)coro->owner)->waiters, coro);
}

/* The wait has ended with the exception that is set.  If there was something for it, the next has his turn. */
static int
one_withdraw(CoroObj *coro)
{
    AsCompletedObj *all = (AsCompletedObj *)coro->owner;
    ctask_state *st = coro->st;
    PyObject *waiter = coro->waiter;
    if (future_withdraw(st, waiter) < 0) {
        return -1;
    }
    int cancelled = future_is_cancelled(st, waiter);
    if (cancelled != 0) {
        return cancelled < 0 ? -1 : 0;
    }
    if (LIKELY(all->queue == NULL)) {
        return all->head == all->tail || waiters_wake(&all->waiters, st, 1, Py_None) >= 0 ? 0 : -1;
    }
    PyObject *queue = Py_NewRef(all->queue), *getters = NULL, *res = NULL;
    int empty = call_predicate(queue, st->str.empty);
    if (empty == 0 && (getters = PyObject_GetAttr(queue, st->str._getters)) != NULL) {
        res = PyObject_CallMethodOneArg(queue, st->str._wakeup_next, getters);
    }
    Py_XDECREF(res);
    Py_XDECREF(getters);
    Py_DECREF(queue);
    return empty > 0 || res != NULL ? 0 : -1;
}

static int
one_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    PyObject *raised = PyErr_GetRaisedException();
    int status = coro->waiter == NULL ? 0 : one_withdraw(coro);
#if ASCOMPLETED_CLASS
    /* A wait that was cancelled does not count: iteration goes on with another.  Not in 3.13.0; the generator of
       earlier versions never did. */
    AsCompletedObj *all = (AsCompletedObj *)coro->owner;
    all->left += LIKELY(all->left < PY_SSIZE_T_MAX);
#endif
    return sync_reraise(raised, status);
}

/* The loop that runs, to which the first who waits binds it; asyncio's error is about its queue. */
static PyObject *
ascompleted_bind(AsCompletedObj *all)
{
    PyObject *running = running_loop_or_null(all->st);
    if (LIKELY(running != NULL && (all->loop == running || all->loop == NULL))) {
        if (all->loop == NULL) {
            all->loop = Py_NewRef(running);
        }
        return running;
    }
    Py_XDECREF(running);
    PyObject *queue = PyObject_CallNoArgs(all->st->stock_Queue);
    PyObject *loop = queue == NULL ? NULL : bind_loop(all->st, queue, &all->loop);
    Py_XDECREF(queue);
    return loop;
}

/* For a step: wait until there is an item, then do `again`. */
static int
one_wait(CoroObj *coro, AsCompletedObj *all, coro_step again)
{
    ctask_state *st = coro->st;
    Py_CLEAR(coro->waiter);
    PyObject *loop = ascompleted_bind(all);
    PyObject *fut = loop == NULL ? NULL : loop_new_future(st, loop);
    Py_XDECREF(loop);
    if (UNLIKELY(fut == NULL)) {
        return one_failed(coro, NULL);
    }
    coro->waiter = fut;
    if (UNLIKELY(!future_is_exact(fut)) && all->done != NULL) {
        all->done->silent = 0;
    }
    if (UNLIKELY(waiters_add(&all->waiters, coro) < 0)) {
        return one_failed(coro, NULL);
    }
    if (UNLIKELY(coro_await(coro, Py_NewRef(fut), again) < 0)) {
        PyObject *raised = PyErr_GetRaisedException();
        one_unwait(coro);
        PyErr_SetRaisedException(raised);
        return one_failed(coro, NULL);
    }
    coro->unwait = one_unwait;
    coro->failed = one_failed;
    return CORO_AWAIT;
}

#if ASCOMPLETED_CLASS
/* asyncio's own coroutine, which takes from the queue that somebody has seen. */
static int
one_stock(CoroObj *coro, int resolve)
{
    PyObject *stack[] = {coro->owner, resolve ? Py_True : Py_False};
    return coro_await(coro, PyObject_Vectorcall(coro->st->stock_wait_for_one, stack, 2, NULL), NULL);
}
#endif

static inline int
one_step(CoroObj *coro, PyObject **result, coro_step again, int resolve)
{
    AsCompletedObj *all = (AsCompletedObj *)coro->owner;
#if ASCOMPLETED_CLASS
    if (UNLIKELY(all->queue != NULL)) {
        return one_stock(coro, resolve);
    }
#endif
    if (all->head == all->tail) {
        return one_wait(coro, all, again);
    }
    PyObject *item = ascompleted_take(all);
    if (UNLIKELY(item == NULL)) {
        PyErr_SetNone(PyExc_TimeoutError);
        return CORO_ERROR;
    }
    if (resolve) {
        *result = future_result(coro->st, item);
        Py_DECREF(item);
    }
    else {
        *result = item;
    }
    return *result == NULL ? CORO_ERROR : CORO_RETURN;
}

/* _wait_for_one(resolve=True): the result of the next. */
static int
one_result(CoroObj *coro, PyObject **result)
{
    return one_step(coro, result, one_result, 1);
}

static PyObject *
ascompleted_next(PyObject *self)
{
    AsCompletedObj *all = (AsCompletedObj *)self;
    ctask_state *st = all->st;
    if (all->left <= 0) {
        return NULL;
    }
    CoroObj *coro = (CoroObj *)coro_new(st, self, one_result, WAIT_NAME, 0, NULL);
    if (LIKELY(coro != NULL)) {
        all->left--;
        coro->function = Py_XNewRef(st->stock_wait_for_one);
    }
    return (PyObject *)coro;
}

#if ASCOMPLETED_CLASS

/* _wait_for_one(): the next itself. */
static int
one_future(CoroObj *coro, PyObject **result)
{
    return one_step(coro, result, one_future, 0);
}

static int
anext_step(CoroObj *coro, PyObject **result)
{
    AsCompletedObj *all = (AsCompletedObj *)coro->owner;
    if (UNLIKELY(all->left <= 0)) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return CORO_ERROR;
    }
    all->left--;
    return one_future(coro, result);
}

static PyObject *
ascompleted_anext(PyObject *self)
{
    ctask_state *st = ((AsCompletedObj *)self)->st;
    CoroObj *coro = (CoroObj *)coro_new(st, self, anext_step, "_AsCompletedIterator.__anext__", 0, NULL);
    if (LIKELY(coro != NULL)) {
        coro->function = Py_NewRef(st->stock_anext);
    }
    return (PyObject *)coro;
}

static PyObject *
AsCompleted_anext(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return ascompleted_anext(self);
}

#endif

/* ---- asyncio's attributes ---- */

#if ASCOMPLETED_CLASS

/* What is done and was not taken, as Python code sees it. */
static PyObject *
ascompleted_items(AsCompletedObj *all)
{
    PyObject *items = PyList_New(all->tail - all->head);
    if (items != NULL && UNLIKELY(PyList_GET_SIZE(items) != all->tail - all->head)) {
        Py_DECREF(items); /* a collection has ended somebody who took one */
        return ascompleted_items(all);
    }
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = all->items[all->head + i];
        PyList_SET_ITEM(items, i, Py_NewRef(item == NULL ? Py_None : item));
    }
    return items;
}

static int
ascompleted_fill_queue(AsCompletedObj *all, PyObject *queue)
{
    ctask_state *st = all->st;
    int status = all->loop == NULL ? 0 : PyObject_SetAttr(queue, st->str._loop, all->loop);
    PyObject *items = status < 0 ? NULL : ascompleted_items(all);
    if (items == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i)); /* the collector shows the list to anybody */
        PyObject *res = PyObject_CallMethodOneArg(queue, st->str.put_nowait, item);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
        Py_DECREF(item);
    }
    Py_DECREF(items);
    waiter_list *waiters = &all->waiters;
    while (waiters->list.next != waiters->pending) {
        /* Those who were called are not among the getters of a queue any more. */
        waiters_remove(waiters, list_entry(waiters->list.next, CoroObj, node));
    }
    PyObject *getters = status < 0 ? NULL : waiters_show(waiters, st);
    if (getters != NULL) {
        status = PyObject_SetAttr(queue, st->str._getters, getters);
        Py_DECREF(getters);
    }
    return getters == NULL ? -1 : status;
}

/* `_done`: from now on the queue has what is done, and its getters are who waits. */
static PyObject *
AsCompleted_get_done(PyObject *self, void *Py_UNUSED(closure))
{
    AsCompletedObj *all = (AsCompletedObj *)self;
    while (all->queue == NULL) {
        Py_ssize_t head = all->head, tail = all->tail;
        PyObject *queue = PyObject_CallNoArgs(all->st->stock_Queue);
        int status = queue == NULL ? -1 : ascompleted_fill_queue(all, queue);
        /* asyncio's queue may have been replaced by what asks for another, or takes an item. */
        if (status == 0 && all->queue == NULL && all->head == head && all->tail == tail) {
            all->queue = Py_NewRef(queue);
            if (all->done != NULL) {
                all->done->silent = 0;
            }
            while (all->head < all->tail) {
                Py_XDECREF(ascompleted_take(all));
            }
        }
        PyObject *raised = PyErr_GetRaisedException(); /* without memory a deque that ends would clear it */
        Py_XDECREF(queue);
        PyErr_SetRaisedException(raised);
        if (status < 0) {
            return NULL;
        }
    }
    return Py_NewRef(all->queue);
}

static PyObject *
AsCompleted_get_timer(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *timer = ((AsCompletedObj *)self)->timer;
    return Py_NewRef(timer == NULL ? Py_None : timer);
}

static PyGetSetDef AsCompleted_getset[] = {
    {"_done", AsCompleted_get_done, NULL, NULL, NULL},
    {"_timeout_handle", AsCompleted_get_timer, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef AsCompleted_methods[] = {
    {TIMEOUT_NAME, ascompleted_timed_out, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef AsCompleted_members[] = {
    {"_todo", T_OBJECT_EX, offsetof(AsCompletedObj, todo), READONLY, NULL},
    {"_todo_left", T_PYSSIZET, offsetof(AsCompletedObj, left), 0, NULL},
#if FUTURE_CALL_GRAPH
    {"_cur_task", T_OBJECT, offsetof(AsCompletedObj, task), READONLY, NULL},
#endif
    {NULL, 0, 0, 0, NULL},
};

#else

/* The generator hands on what is sent to it, which means nothing. */
static PyObject *
AsCompleted_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    PyObject *coro = ascompleted_next(self);
    if (coro == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return coro;
}

static PyMethodDef AsCompleted_methods[] = {
    {"send", AsCompleted_send, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* asyncio's inner function, for those who look at the coroutines' code; never called. */
static PyObject *
ascompleted_inner_function(ctask_state *st)
{
    PyObject *function = NULL;
    PyObject *code = PyObject_GetAttrString(st->stock_as_completed, "__code__");
    PyObject *globals = code == NULL ? NULL : PyObject_GetAttrString(st->stock_as_completed, "__globals__");
    PyObject *constants = globals == NULL ? NULL : PyObject_GetAttrString(code, "co_consts");
    int known = constants != NULL && PyTuple_Check(constants) && PyDict_Check(globals);
    for (Py_ssize_t i = 0; known && i < PyTuple_GET_SIZE(constants); i++) {
        PyObject *inner = PyTuple_GET_ITEM(constants, i);
        if (PyCode_Check(inner) &&
            PyUnicode_CompareWithASCIIString(((PyCodeObject *)inner)->co_name, "_wait_for_one") == 0) {
            Py_XSETREF(function, PyFunction_New(inner, globals));
        }
    }
    Py_XDECREF(constants);
    Py_XDECREF(globals);
    Py_XDECREF(code);
    return function;
}

#endif

/* ---- life ---- */

static int
ascompleted_traverse(PyObject *self, visitproc visit, void *arg)
{
    AsCompletedObj *all = (AsCompletedObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(all->todo);
    Py_VISIT(all->done);
    Py_VISIT(all->timer);
    Py_VISIT(all->task);
    Py_VISIT(all->loop);
    Py_VISIT(all->queue);
    for (Py_ssize_t i = all->head; i < all->tail; i++) {
        Py_VISIT(all->items[i]);
    }
#if ASCOMPLETED_CLASS
    FUTURE_VISIT_DICT(self);
#endif
    return waiters_traverse(&all->waiters, visit, arg);
}

static int
ascompleted_clear(PyObject *self)
{
    AsCompletedObj *all = (AsCompletedObj *)self;
    Py_CLEAR(all->todo);
    Py_CLEAR(all->done);
    Py_CLEAR(all->timer);
    Py_CLEAR(all->task);
    Py_CLEAR(all->loop);
    Py_CLEAR(all->queue);
    while (all->head < all->tail) {
        Py_XDECREF(ascompleted_take(all));
    }
    waiters_clear(&all->waiters);
    Py_CLEAR(all->waiters.shown);
#if ASCOMPLETED_CLASS
    FUTURE_CLEAR_DICT(self);
#endif
    return 0;
}

static void
ascompleted_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, ascompleted_dealloc); /* an attribute may be the next of many */
#if ASCOMPLETED_CLASS
    clear_weakrefs(self, type);
#endif
    (void)ascompleted_clear(self);
    PyMem_Free(((AsCompletedObj *)self)->items);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

PyDoc_STRVAR(AsCompleted_doc,
"What as_completed() returns, and up to 3.12 what its generator yields from.");

static PyType_Slot AsCompleted_slots[] = {
    {Py_tp_doc, (void *)AsCompleted_doc},
    {Py_tp_dealloc, ascompleted_dealloc},
    {Py_tp_traverse, ascompleted_traverse},
    {Py_tp_clear, ascompleted_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ascompleted_next},
    {Py_tp_methods, AsCompleted_methods},
#if ASCOMPLETED_CLASS
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, ascompleted_anext},
    {Py_tp_members, AsCompleted_members},
    {Py_tp_getset, AsCompleted_getset},
#endif
    {0, NULL},
};

/* Not immutable, as asyncio's class, its base, is not. */
static PyType_Spec AsCompleted_spec = {
    .name = "ctask._AsCompletedIterator",
    .basicsize = sizeof(AsCompletedObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = AsCompleted_slots,
};

#if ASCOMPLETED_CLASS

PART int
ascompleted_add_type(PyObject *module, ctask_state *st)
{
    PyObject *stock = st->stock_AsCompletedIterator;
    if ((st->stock_wait_for_one = PyObject_GetAttrString(stock, "_wait_for_one")) == NULL ||
        (st->stock_anext = PyObject_GetAttrString(stock, "__anext__")) == NULL ||
        add_type(module, NULL, &st->AsCompletedType, &AsCompleted_spec, st->stock_AsCompletedIterator) < 0 ||
        standin_method(st, st->AsCompletedType, st->stock_AsCompletedIterator, "__anext__", AsCompleted_anext) <
            0) {
        return -1;
    }
    /* `async for` need not go by that method's name. */
    st->AsCompletedType->tp_as_async->am_anext = ascompleted_anext;
    return 0;
}

#else

PART int
ascompleted_add_type(PyObject *module, ctask_state *st)
{
    st->stock_wait_for_one = ascompleted_inner_function(st);
    if (st->stock_wait_for_one == NULL && PyErr_Occurred()) {
        return -1;
    }
    return add_type(module, NULL, &st->AsCompletedType, &AsCompleted_spec, NULL);
}

#endif
