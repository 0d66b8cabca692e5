/* wait(): until some of many futures, or all, are done.

   A coroutine without a frame (coro.h), and one callback in C for all the futures (done.h).  What is neither a
   list, a tuple nor a set of futures, and mistakes, are left to asyncio's own coroutine, which ours returns or
   waits for. */

#include "combinators/combinators.h"
#include "coro/coro.h"
#include "tasks/done.h"
#include "combinators/ensure.h"
#include "base/seen.h"
#include "coro/standin.h"

enum { ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION }; // DoneObj.flag

/* ---- callbacks ---- */

static int
wait_cancel_timer(ctask_state *st, PyObject *timer)
{
    return timer == NULL ? 0 : handle_cancel(timer, st);
}

/* asyncio's _release_waiter(): also what a timer calls. */
static int
release_waiter(DoneObj *done, PyObject *waiter)
{
    return future_wake(done->st, waiter, Py_None) < 0 ? -1 : 0;
}

/* Does this one end the wait? */
static int
is_enough(DoneObj *done, PyObject *fut)
{
    if (--done->n <= 0 || done->flag == FIRST_COMPLETED) {
        return 1;
    }
    if (done->flag != FIRST_EXCEPTION) {
        return 0;
    }
    int cancelled = future_is_cancelled(done->st, fut);
    if (cancelled != 0) {
        return cancelled < 0 ? -1 : 0;
    }
    PyObject *exc = future_exception(done->st, fut);
    Py_XDECREF(exc);
    return exc == NULL ? -1 : exc != Py_None;
}

static int
one_completed(DoneObj *done, PyObject *fut)
{
    int enough = is_enough(done, fut);
    if (enough < 0) {
        return -1;
    }
    if (enough && done->owner != NULL) {
        PyObject *waiter = Py_NewRef(done->owner), *timer = Py_XNewRef(done->other);
        int status = wait_cancel_timer(done->st, timer);
        if (status == 0) {
            status = release_waiter(done, waiter);
        }
        Py_XDECREF(timer);
        Py_DECREF(waiter);
        if (status < 0) {
            return -1;
        }
    }
    return done->task == NULL ? 0 : awaited_by_discard(done->st, fut, (TaskObj *)done->task);
}

/* ---- steps ---- */

/* What asyncio does in `finally`.  `coro->arg` is a tuple of the futures, `coro->waiter` their callback. */
static int
wait_tidy(CoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    DoneObj *done = (DoneObj *)coro->waiter;
    PyObject *futures = coro->arg;
    int status = wait_cancel_timer(coro->st, done->other);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(futures) && status == 0; i++) {
        PyObject *fut = PyTuple_GET_ITEM(futures, i);
        status = done_remove(done, fut);
        if (status == 0 && done->task != NULL) {
            status = awaited_by_discard(coro->st, fut, (TaskObj *)done->task);
        }
    }
    if (raised != NULL && status == 0) {
        PyErr_SetRaisedException(raised);
    }
    else if (raised != NULL) {
        raised_while(raised);
    }
    return status;
}

static int
wait_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    (void)wait_tidy(coro);
    return CORO_ERROR;
}

static int
wait_ended(CoroObj *coro, PyObject **result)
{
    if (wait_tidy(coro) < 0) {
        return CORO_ERROR;
    }
    PyObject *futures = coro->arg;
    PyObject *done = PySet_New(NULL), *pending = PySet_New(NULL);
    int status = done == NULL || pending == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(futures) && status == 0; i++) {
        PyObject *fut = PyTuple_GET_ITEM(futures, i);
        int is_done = future_is_done(coro->st, fut);
        status = is_done < 0 ? -1 : PySet_Add(is_done ? done : pending, fut);
    }
    if (status == 0) {
        *result = PyTuple_Pack(2, done, pending);
    }
    Py_XDECREF(done);
    Py_XDECREF(pending);
    return *result == NULL ? CORO_ERROR : CORO_RETURN;
}

/* asyncio's own coroutine does it, from the start. */
static int
wait_stock(CoroObj *coro)
{
    ctask_state *st = coro->st;
    PyObject *stack[] = {coro->arg, coro->waiter == NULL ? Py_None : coro->waiter, coro->owner};
    return coro_await(coro, PyObject_Vectorcall(st->stock_wait, stack, 1, st->wait_kwnames), NULL);
}

/* The futures without duplicates, as a tuple; None if they are not all futures by type. */
static PyObject *
wait_futures(ctask_state *st, PyObject *given)
{
    PyObject *all = PySequence_Tuple(given);
    if (all == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(all);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *fut = PyTuple_GET_ITEM(all, i);
        if (!future_is_exact(fut) && (!PyObject_TypeCheck(fut, (PyTypeObject *)st->stock_Future) ||
                                      Py_TYPE(fut)->tp_hash != PyBaseObject_Type.tp_hash)) {
            n = 0;
        }
    }
    if (n == 0 || n >= INT32_MAX) {
        Py_DECREF(all);
        return Py_NewRef(Py_None);
    }
    if (PyAnySet_Check(given)) {
        return all;
    }
    seen_table seen;
    if (seen_open(&seen, (size_t)n) < 0) {
        Py_DECREF(all);
        return PyErr_NoMemory();
    }
    PyObject **items = &PyTuple_GET_ITEM(all, 0);
    int duplicates = 0;
    for (Py_ssize_t i = 0; i < n && !duplicates; i++) {
        duplicates = seen_before(&seen, (void *const *)items, (size_t)i) >= 0;
    }
    seen_close(&seen);
    if (duplicates) {
        PyObject *set = PySet_New(all);
        Py_SETREF(all, set == NULL ? NULL : PySequence_Tuple(set));
        Py_XDECREF(set);
    }
    return all;
}

/* The callback of a wait for `n` futures, with its timer and the task for the call graph. */
static DoneObj *
wait_callback(ctask_state *st, PyObject *loop, PyObject *timeout, Py_ssize_t n)
{
    PyObject *waiter = loop_new_future(st, loop);
    DoneObj *done = waiter == NULL ? NULL
                                   : done_new(st, one_completed, "_wait.<locals>._on_completion", waiter);
    Py_XDECREF(waiter);
    if (done == NULL) {
        return NULL;
    }
    done->n = n;
    done->silent = future_is_exact(waiter);
    if (is_set(timeout)) {
        /* In debug mode, and on other loops, the callback is the one that asyncio's reports would show. */
        PyObject *release = loop_plain(loop) != NULL ? st->wait_release : st->stock_release_waiter;
        PyObject *stack[] = {loop, timeout, release, waiter};
        done->other = PyObject_VectorcallMethod(st->str.call_later, stack, 4, NULL);
        if (done->other == NULL) {
            Py_DECREF(done);
            return NULL;
        }
        done->silent = done->silent && Py_TYPE(done->other)->tp_dealloc == timer_dealloc;
    }
#if FUTURE_CALL_GRAPH
    done->task = task_for_call_graph(st, loop);
    if (done->task == NULL && PyErr_Occurred()) {
        Py_CLEAR(done);
    }
#endif
    return done;
}

static int
wait_begin(CoroObj *coro, DoneObj *done, PyObject *futures)
{
    ctask_state *st = coro->st;
    PyObject *context = context_copy(&st->base.contexts);
    int status = context == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(futures) && status == 0; i++) {
        PyObject *fut = PyTuple_GET_ITEM(futures, i);
        if (UNLIKELY(!future_is_exact(fut))) {
            done->silent = 0;
        }
        status = done_add(done, fut, context);
        if (status == 0 && done->task != NULL) {
            status = awaited_by_add(st, fut, (TaskObj *)done->task);
        }
    }
    Py_XDECREF(context);
    return status;
}

/* Before it: `arg` is what was given, `owner` return_when, which stays for who looks at what is waited for, `waiter` the
   timeout or NULL. */
static int
wait_start(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    ctask_state *st = coro->st;
    int mode = -1;
    if (PyUnicode_CompareWithASCIIString(coro->owner, "ALL_COMPLETED") == 0) {
        mode = ALL_COMPLETED;
    }
    else if (PyUnicode_CompareWithASCIIString(coro->owner, "FIRST_COMPLETED") == 0) {
        mode = FIRST_COMPLETED;
    }
    else if (PyUnicode_CompareWithASCIIString(coro->owner, "FIRST_EXCEPTION") == 0) {
        mode = FIRST_EXCEPTION;
    }
    if (UNLIKELY(mode < 0)) {
        return wait_stock(coro);
    }
    PyObject *futures = wait_futures(st, coro->arg);
    if (UNLIKELY(futures == NULL)) {
        return CORO_ERROR;
    }
    if (UNLIKELY(futures == Py_None)) {
        Py_DECREF(futures);
        return wait_stock(coro);
    }
    PyObject *loop = running_loop(st);
    DoneObj *done = loop == NULL ? NULL : wait_callback(st, loop, coro->waiter, PyTuple_GET_SIZE(futures));
    Py_XDECREF(loop);
    if (done == NULL) {
        Py_DECREF(futures);
        return CORO_ERROR;
    }
    done->flag = (char)mode;
    PyObject *given = coro->arg, *timeout = coro->waiter;
    coro->arg = futures;
    coro->waiter = (PyObject *)done;
    Py_DECREF(given);
    Py_XDECREF(timeout);
    if (wait_begin(coro, done, futures) < 0) {
        return CORO_ERROR;
    }
    if (coro_await(coro, Py_NewRef(done->owner), wait_ended) < 0) {
        return wait_failed(coro, NULL);
    }
    coro->failed = wait_failed;
    return CORO_AWAIT;
}

/* ---- wait() ---- */

/* wait(fs, *, timeout=None, return_when=ALL_COMPLETED) */
static PyObject *
wait_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames, PyObject *stock)
{
    PyObject *timeout = NULL, *return_when = st->wait_all;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    int known = nargs == 1 && (PyList_CheckExact(args[0]) || PyTuple_CheckExact(args[0]) ||
                               PySet_CheckExact(args[0]) || PyFrozenSet_CheckExact(args[0]));
    for (Py_ssize_t i = 0; i < nkw && known; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_Compare(name, st->str.timeout) == 0) {
            timeout = args[nargs + i];
        }
        else if (PyUnicode_Compare(name, st->str.return_when) == 0 && PyUnicode_CheckExact(args[nargs + i])) {
            return_when = args[nargs + i];
        }
        else {
            known = 0;
        }
    }
    if (UNLIKELY(!known)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    CoroObj *coro = (CoroObj *)coro_new(st, return_when, wait_start, "wait", 0, args[0]);
    if (coro != NULL) {
        coro->waiter = Py_XNewRef(timeout);
    }
    return (PyObject *)coro;
}

PART int
wait_setup(PyObject *module, ctask_state *st)
{
    st->wait_release = (PyObject *)done_new(st, release_waiter, "_release_waiter", NULL);
    st->wait_all = PyUnicode_InternFromString("ALL_COMPLETED");
    st->wait_kwnames = PyTuple_Pack(2, st->str.timeout, st->str.return_when);
    if (st->wait_release == NULL || st->wait_all == NULL || st->wait_kwnames == NULL) {
        return -1;
    }
    return standin_function(st, module, st->stock_wait, "wait", wait_call);
}
