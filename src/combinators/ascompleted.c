/* as_completed(): the results of many awaitables, in the order in which they come.

   One callback in C serves all futures (done.h), and what is yielded are coroutines without a frame (coro.h).
   From 3.13 on the iterator derives from asyncio's _AsCompletedIterator and has its attributes.  Before, there is a
   generator, which takes what it yields from the same object here (ctask/_ascompleted.py).

   What is done waits in an array, in place of asyncio's queue.  If somebody asks for that queue, `_done`, one is made, and
   asyncio's own method takes from it.  Where no loop runs, and for mistakes, asyncio's function does it all. */

#include "combinators/combinators.h"
#include "coro/coro.h"
#include "tasks/done.h"
#include "combinators/ensure.h"
#include "tasks/futures.h"
#include "base/seen.h"
#include "coro/standin.h"
#include "sync/waiters.h"

#include <structmember.h>

#define ASCOMPLETED_CLASS (PY_VERSION_HEX >= 0x030D0000)
/* A wait that was cancelled does not count: iteration goes on with another. */

#if ASCOMPLETED_CLASS
#define COMPLETION_NAME "_AsCompletedIterator._handle_completion"
#define TIMEOUT_NAME "_handle_timeout"
#define WAIT_NAME "_AsCompletedIterator._wait_for_one"
#else
#define COMPLETION_NAME "as_completed.<locals>._on_completion"
#define TIMEOUT_NAME "_on_timeout"
#define WAIT_NAME "as_completed.<locals>._wait_for_one"
#endif

typedef struct {
    PyObject_HEAD
    ctask_state *st;     // borrowed from the type's module
    PyObject *todo;      // owned; the set of the futures that are not done
    DoneObj *done;       // owned; their callback, NULL as soon as there are none
    PyObject *timer;     // owned; NULL without a timeout
    PyObject *task;      // owned; who waits, for the call graph, or NULL
    PyObject *loop;      // owned; what it is bound to since somebody waited, or NULL
    PyObject *queue;     // owned; `_done`, NULL until somebody asks for it: then the items are there
    PyObject **items; // owned, each too; the futures that are done, NULL in place of one that came too late
    Py_ssize_t head; // the first item that was not taken
    Py_ssize_t tail; // after the last
    Py_ssize_t size; // of the memory
    Py_ssize_t left; // how many more are to be yielded
    waiter_list waiters; // the coroutines that wait for an item
} AsCompletedObj;

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

static int
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

/* What the timer calls: a timeout for each that is not done. */
static PyObject *
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

static PyMethodDef timed_out_def = {TIMEOUT_NAME, ascompleted_timed_out, METH_NOARGS, NULL};

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
    if (UNLIKELY(coro->waiter != NULL && one_withdraw(coro) < 0)) {
        PyObject *error = PyErr_GetRaisedException();
        if (error == raised) {
            Py_DECREF(raised);
        }
        else {
            PyException_SetContext(error, raised);
        }
        raised = error;
    }
#if ASCOMPLETED_CLASS /* not in 3.13.0; the generator of earlier ones never did */
    AsCompletedObj *all = (AsCompletedObj *)coro->owner;
    all->left += LIKELY(all->left < PY_SSIZE_T_MAX);
#endif
    PyErr_SetRaisedException(raised);
    return CORO_ERROR;
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

/* ---- as_completed() ---- */

/* The futures of all that is in `fs`, each once, as a list. */
static PyObject *
ascompleted_futures(ctask_state *st, PyObject *fs, PyObject *loop)
{
    PyObject *given = PySequence_Tuple(fs), *futures = PyList_New(0);
    if (given == NULL || futures == NULL) {
        goto failed;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(given);
    int by_address = n < INT32_MAX;
    for (Py_ssize_t i = 0; by_address && i < n; i++) {
        by_address = is_told_by_address(PyTuple_GET_ITEM(given, i));
    }
    if (UNLIKELY(!by_address)) {
        PyObject *set = PySet_New(given);
        Py_SETREF(given, set == NULL ? NULL : PySequence_Tuple(set));
        Py_XDECREF(set);
        if (given == NULL) {
            goto failed;
        }
        n = PyTuple_GET_SIZE(given);
    }
    seen_table seen;
    if (seen_open(&seen, by_address ? (size_t)n : 0) < 0) {
        PyErr_NoMemory();
        goto failed;
    }
    PyObject **items = &PyTuple_GET_ITEM(given, 0);
    int status = 0;
    for (Py_ssize_t i = 0; i < n && status == 0; i++) {
        if (by_address && seen_before(&seen, (void *const *)items, (size_t)i) >= 0) {
            continue;
        }
        PyObject *fut = ensure_future(st, items[i], loop);
        status = fut == NULL ? -1 : PyList_Append(futures, fut);
        Py_XDECREF(fut);
    }
    seen_close(&seen);
    if (status < 0) {
        goto failed;
    }
    Py_DECREF(given);
    return futures;
failed:
    Py_XDECREF(given);
    Py_XDECREF(futures);
    return NULL;
}

static int
ascompleted_watch(AsCompletedObj *all, PyObject *futures)
{
    ctask_state *st = all->st;
    PyObject *context = context_copy(&st->base.contexts);
    DoneObj *done = context == NULL ? NULL
                                    : done_new(st, ascompleted_one_done, COMPLETION_NAME, (PyObject *)all);
    int status = done == NULL ? -1 : 0;
    if (status == 0) {
        all->done = (DoneObj *)Py_NewRef(done);
        done->silent = 1;
    }
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(futures); i++) {
        PyObject *fut = Py_NewRef(PyList_GET_ITEM(futures, i));
        if (UNLIKELY(!future_is_exact(fut))) {
            done->silent = 0;
        }
        status = done_add(done, fut, context);
        if (status == 0 && all->task != NULL) {
            status = awaited_by_add(st, fut, (TaskObj *)all->task);
        }
        Py_DECREF(fut);
    }
    Py_XDECREF(done);
    Py_XDECREF(context);
    return status;
}

/* loop.call_later(timeout, ...) */
static int
ascompleted_limit(AsCompletedObj *all, PyObject *loop, PyObject *timeout)
{
    PyObject *callback = PyCFunction_New(&timed_out_def, (PyObject *)all);
    if (callback == NULL) {
        return -1;
    }
    PyObject *stack[] = {loop, timeout, callback};
    all->timer = PyObject_VectorcallMethod(all->st->str.call_later, stack, 3, NULL);
    Py_DECREF(callback);
    if (all->timer == NULL) {
        return -1;
    }
    if (all->done != NULL && Py_TYPE(all->timer)->tp_dealloc != timer_dealloc) {
        all->done->silent = 0;
    }
    return 0;
}

static int
ascompleted_begin(AsCompletedObj *all, PyObject *fs, PyObject *timeout, PyObject *loop)
{
    ctask_state *st = all->st;
#if FUTURE_CALL_GRAPH
    all->task = task_for_call_graph(st, loop);
    if (all->task == NULL && PyErr_Occurred()) {
        return -1;
    }
#endif
    PyObject *futures = ascompleted_futures(st, fs, loop);
    if (futures == NULL) {
        return -1;
    }
    int status = -1;
    all->todo = PySet_New(futures);
    if (all->todo == NULL) {
        goto finally;
    }
    Py_ssize_t n = PySet_GET_SIZE(all->todo);
    if (UNLIKELY(n != PyList_GET_SIZE(futures))) {
        Py_SETREF(futures, PySequence_List(all->todo));
        if (futures == NULL) {
            return -1;
        }
    }
    if (n > 0) {
        all->items = PyMem_New(PyObject *, (size_t)n);
        if (all->items == NULL) {
            PyErr_NoMemory();
            goto finally;
        }
        all->size = n;
        if (ascompleted_watch(all, futures) < 0 ||
            (is_set(timeout) && ascompleted_limit(all, loop, timeout) < 0)) {
            goto finally;
        }
    }
    all->left = n;
    status = 0;
finally:
    Py_DECREF(futures);
    return status;
}

static PyObject *
ascompleted_new(ctask_state *st, PyObject *fs, PyObject *timeout, PyObject *loop)
{
    AsCompletedObj *all = (AsCompletedObj *)st->AsCompletedType->tp_alloc(st->AsCompletedType, 0);
    if (all == NULL) {
        return NULL;
    }
    all->st = st;
    waiters_init(&all->waiters);
    all->waiters.kind = WAITERS_DEQUE;
    if (ascompleted_begin(all, fs, timeout, loop) < 0) {
        Py_CLEAR(all);
    }
    return (PyObject *)all;
}

/* 1 if asyncio's check of the first argument would pass, 0 if not, -1 with an exception. */
static int
ascompleted_takes(ctask_state *st, PyObject *fs)
{
    if (LIKELY(PyList_CheckExact(fs) || PyTuple_CheckExact(fs) || PyAnySet_CheckExact(fs) ||
               PyDict_CheckExact(fs))) {
        return 1;
    }
#if ASCOMPLETED_CLASS
    PyObject *const checks[] = {st->isawaitable};
#else
    PyObject *const checks[] = {st->isfuture, st->iscoroutine};
#endif
    for (size_t i = 0; i < Py_ARRAY_LENGTH(checks); i++) {
        PyObject *res = PyObject_CallOneArg(checks[i], fs);
        int refused = res == NULL ? -1 : PyObject_IsTrue(res);
        Py_XDECREF(res);
        if (refused != 0) {
            return refused < 0 ? -1 : 0;
        }
    }
    return 1;
}

/* The iterator; asyncio's own where no loop runs, and for an argument that it refuses. */
static PyObject *
ascompleted_start(ctask_state *st, PyObject *fs, PyObject *timeout)
{
    int takes = ascompleted_takes(st, fs);
    if (takes < 0) {
        return NULL;
    }
    PyObject *loop = takes ? running_loop_or_null(st) : NULL;
    if (UNLIKELY(loop == NULL)) {
        PyObject *stack[] = {fs, timeout};
        return PyObject_Vectorcall(st->stock_as_completed, stack, 1, st->timeout_kwnames);
    }
    PyObject *all = ascompleted_new(st, fs, timeout, loop);
    Py_DECREF(loop);
    return all;
}

#if ASCOMPLETED_CLASS

/* as_completed(fs, *, timeout=None) */
static PyObject *
ascompleted_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject *stock)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (UNLIKELY(nargs != 1 || nkw > 1 ||
                 (nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.timeout) != 0))) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return ascompleted_start(st, args[0], nkw == 0 ? Py_None : args[1]);
}

#else

/* _completions(fs, timeout): what the generator yields from. */
static PyObject *
ascompleted_completions(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_completions() takes the awaitables and a timeout");
        return NULL;
    }
    return ascompleted_start(PyModule_GetState(module), args[0], args[1]);
}

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

static PyMethodDef ascompleted_functions[] = {
    {"_completions", (PyCFunction)(void (*)(void))ascompleted_completions, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *
ascompleted_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames, PyObject *Py_UNUSED(stock))
{
    PyObject *generator = standin_python(&st->as_completed_generator, "ctask._ascompleted", "as_completed");
    return generator == NULL ? NULL : PyObject_Vectorcall(generator, args, (size_t)nargs, kwnames);
}

/* asyncio's inner function, for those who look at the coroutines' code; never called. */
static PyObject *
ascompleted_inner_function(ctask_state *st)
{
    PyObject *function = NULL;
    PyObject *code = PyObject_GetAttrString(st->stock_as_completed, "__code__");
    PyObject *globals = PyObject_GetAttrString(st->stock_as_completed, "__globals__");
    PyObject *constants = code == NULL ? NULL : PyObject_GetAttrString(code, "co_consts");
    for (Py_ssize_t i = 0; globals != NULL && constants != NULL && i < PyTuple_GET_SIZE(constants); i++) {
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
        PyObject *res = PyObject_CallMethodOneArg(queue, st->str.put_nowait, PyList_GET_ITEM(items, i));
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
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

static int
ascompleted_setup_version(PyObject *module, ctask_state *st)
{
    st->stock_wait_for_one = PyObject_GetAttrString(st->stock_AsCompletedIterator, "_wait_for_one");
    st->stock_anext = PyObject_GetAttrString(st->stock_AsCompletedIterator, "__anext__");
    if (st->stock_wait_for_one == NULL || st->stock_anext == NULL ||
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

static int
ascompleted_setup_version(PyObject *module, ctask_state *st)
{
    st->stock_wait_for_one = ascompleted_inner_function(st);
    if (st->stock_wait_for_one == NULL && PyErr_Occurred()) {
        return -1;
    }
    return PyModule_AddFunctions(module, ascompleted_functions) < 0
               ? -1
               : add_type(module, NULL, &st->AsCompletedType, &AsCompleted_spec, NULL);
}

#endif

PART int
ascompleted_setup(PyObject *module, ctask_state *st)
{
    st->timeout_kwnames = PyTuple_Pack(1, st->str.timeout);
    if (st->timeout_kwnames == NULL || ascompleted_setup_version(module, st) < 0) {
        return -1;
    }
    return standin_function(st, module, st->stock_as_completed, "as_completed", ascompleted_call);
}
