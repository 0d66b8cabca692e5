/* wait_for(): a Timeout around one await.

   From 3.12 on asyncio's is `async with timeout(...): return await fut`; this is the same without a frame.  What
   happens once the timer has struck is asyncio's Timeout.__aexit__(), as in timeout.c.  A timeout of 0 and less,
   other kinds of awaitables, and 3.11, whose wait_for() runs a task of its own, are left to asyncio's function. */

#include "combinators/combinators.h"
#include "combinators/timeout.h"
#include "coro/standin.h"

#if PY_VERSION_HEX >= 0x030C0000

/* The wait has ended, with or without an exception: leave the timeout, which is coro->owner.  If it has struck and
   there is an exception, waitfor_failed() comes next. */
static void
waitfor_unwait(CoroObj *coro)
{
    TimeoutObj *timeout = (TimeoutObj *)coro->owner;
    ctask_state *st = coro->st;
    PyObject *raised = PyErr_GetRaisedException();
    int status = timeout_leave(timeout);
    if (UNLIKELY(status > 0 && raised == NULL && timeout->state == st->timeout_expiring)) {
        Py_XSETREF(timeout->state, Py_NewRef(st->timeout_expired));
        PyObject *task = PyObject_GetAttr((PyObject *)timeout, st->str._task);
        PyObject *res = task == NULL ? NULL : PyObject_CallMethodNoArgs(task, st->str.uncancel);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
        Py_XDECREF(task);
    }
    if (UNLIKELY(status < 0)) {
        PyErr_WriteUnraisable((PyObject *)timeout);
    }
    PyErr_SetRaisedException(raised);
}

/* __aexit__() has nothing against it: the exception goes on. */
static int
waitfor_raise(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    PyErr_SetRaisedException(Py_NewRef(coro->waiter));
    return CORO_ERROR;
}

/* __aexit__() has raised, TimeoutError mostly: while the exception was handled, in `async with`. */
static int
waitfor_raise_other(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    raised_while(Py_NewRef(coro->waiter));
    return CORO_ERROR;
}

static int
waitfor_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    ctask_state *st = coro->st;
    if (LIKELY(((TimeoutObj *)coro->owner)->state != st->timeout_expiring)) {
        return CORO_ERROR;
    }
    PyObject *raised = coro->waiter = PyErr_GetRaisedException();
    PyObject *stack[] = {coro->owner, (PyObject *)Py_TYPE(raised), raised, Py_None};
    coro->failed = waitfor_raise_other;
    return coro_await(coro, PyObject_Vectorcall(st->stock_timeout_aexit, stack, 4, NULL), waitfor_raise);
}

/* The timeout is in `waiter` until it starts. */
static int
waitfor_start(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    ctask_state *st = coro->st;
    PyObject *delay = coro->waiter, *fut = coro->arg;
    coro->waiter = coro->arg = NULL;
    PyObject *loop = running_loop(st);
    int status = -1;
    if (loop != NULL) {
        coro->owner = timeout_new(st, timeout_deadline(st, loop, delay));
        status = coro->owner == NULL ? -1 : timeout_enter((TimeoutObj *)coro->owner, loop);
        Py_DECREF(loop);
    }
    if (UNLIKELY(status > 0)) {
        /* Outside of a task, or Timeout has been tampered with. */
        PyObject *stack[] = {fut, delay};
        status = coro_await(coro, PyObject_Vectorcall(st->stock_wait_for, stack, 2, NULL), NULL);
    }
    else if (LIKELY(status == 0)) {
        coro->unwait = waitfor_unwait;
        coro->failed = waitfor_failed;
        status = coro_await(coro, Py_NewRef(fut), NULL);
        if (UNLIKELY(status == CORO_ERROR)) {
            coro->unwait = NULL;
            waitfor_unwait(coro);
        }
    }
    Py_DECREF(delay);
    Py_DECREF(fut);
    return status;
}

/* None, or a number above 0. */
static inline int
is_limit(PyObject *timeout)
{
    if (PyFloat_CheckExact(timeout)) {
        return !(PyFloat_AS_DOUBLE(timeout) <= 0);
    }
    if (PyLong_CheckExact(timeout)) {
        int overflow;
        return PyLong_AsLongAndOverflow(timeout, &overflow) > 0 || overflow > 0;
    }
    return timeout == Py_None;
}

/* Is it one of those that `await` asks no questions of?  The rest, and mistakes, are asyncio's. */
static int
waitfor_takes(ctask_state *st, PyObject *fut)
{
    if (future_is_exact(fut) || Py_IS_TYPE(fut, st->CoroType) ||
        PyObject_TypeCheck(fut, (PyTypeObject *)st->stock_Future)) {
        return 1;
    }
    return PyCoro_CheckExact(fut);
}

/* wait_for(fut, timeout) */
static PyObject *
waitfor_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, PyObject *stock)
{
    if (LIKELY((nargs == 2 && kwnames == NULL) ||
               (nargs == 1 && kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 &&
                PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.timeout) == 0))) {
        PyObject *fut = args[0], *timeout = args[1];
        if (LIKELY(is_limit(timeout) && waitfor_takes(st, fut))) {
            CoroObj *coro = (CoroObj *)coro_new(st, NULL, waitfor_start, "wait_for", 0, fut);
            if (coro != NULL) {
                coro->waiter = Py_NewRef(timeout);
            }
            return (PyObject *)coro;
        }
    }
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

PART int
waitfor_setup(PyObject *module, ctask_state *st)
{
    return standin_function(st, module, st->stock_wait_for, "wait_for", waitfor_call);
}

#else

PART int
waitfor_setup(PyObject *module, ctask_state *st)
{
    return PyModule_AddObjectRef(module, "wait_for", st->stock_wait_for);
}

#endif
