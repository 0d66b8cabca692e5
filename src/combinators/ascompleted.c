/* as_completed(): the results of many awaitables, in the order in which they come.

   One callback in C serves all futures (done.h).  What is returned, and what happens then, is in
   ascompleted_iterator.c.  Where no loop runs, and for mistakes, asyncio's function does it all. */

#include "base/seen.h"
#include "combinators/ascompleted_iterator.h"
#include "combinators/combinators.h"
#include "combinators/ensure.h"
#include "coro/standin.h"

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

static PyMethodDef timed_out_def = {TIMEOUT_NAME, ascompleted_timed_out, METH_NOARGS, NULL};

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

#endif

PART int
ascompleted_setup(PyObject *module, ctask_state *st)
{
    st->timeout_kwnames = PyTuple_Pack(1, st->str.timeout);
    if (st->timeout_kwnames == NULL || ascompleted_add_type(module, st) < 0) {
        return -1;
    }
#if !ASCOMPLETED_CLASS
    if (PyModule_AddFunctions(module, ascompleted_functions) < 0) {
        return -1;
    }
#endif
    return standin_function(st, module, st->stock_as_completed, "as_completed", ascompleted_call);
}
