/* sleep(): one turn of the loop, or a timer.

   asyncio's is a coroutine in Python over a generator; this one has no frame (coro.h).  A delay that is neither
   int nor float is left to asyncio's own. */

#include "combinators/combinators.h"
#include "coro/coro.h"
#include "coro/standin.h"

#include <math.h>

static int
sleep_rested(CoroObj *coro, PyObject **result)
{
    *result = Py_NewRef(coro->arg == NULL ? Py_None : coro->arg);
    return CORO_RETURN;
}

static int
sleep_turn(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    coro->step = sleep_rested;
    return CORO_YIELD;
}

/* _set_result_unless_cancelled(future, result): what the timer calls. */
static PyObject *
sleep_wake(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !future_is_exact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_wake() takes a ctask.Future and a result");
        return NULL;
    }
    FutureObj *fut = (FutureObj *)args[0];
    if (fut->state != FUTURE_CANCELLED && future_set_result(fut, state_of(args[0]), args[1]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static void
sleep_unwait(CoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *timer = coro->waiter;
    coro->waiter = NULL;
    if (timer != NULL && handle_cancel(timer, coro->st) < 0) {
        PyErr_WriteUnraisable(timer);
    }
    Py_XDECREF(timer);
    PyErr_SetRaisedException(raised);
}

/* The delay is in `waiter`, where the timer will be. */
static int
sleep_timer(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    ctask_state *st = coro->st;
    PyObject *delay = coro->waiter;
    coro->waiter = NULL;
    PyObject *loop = running_loop(st);
    PyObject *fut = loop == NULL ? NULL : loop_new_future(st, loop);
    int status = CORO_ERROR;
    if (fut != NULL) {
        /* In debug mode, and on other loops, the callback is the one that asyncio's reports would show. */
        PyObject *wake = loop_plain(loop) != NULL && future_is_exact(fut) ? st->sleep_wake : st->stock_wake;
        PyObject *stack[] = {loop, delay, wake, fut, coro->arg == NULL ? Py_None : coro->arg};
        coro->waiter = PyObject_VectorcallMethod(st->str.call_later, stack, 5, NULL);
        if (coro->waiter != NULL) {
            coro->unwait = sleep_unwait;
            status = coro_await(coro, Py_NewRef(fut), NULL);
        }
    }
    Py_XDECREF(fut);
    Py_XDECREF(loop);
    Py_DECREF(delay);
    return status;
}

/* Up to 3.12 asyncio's own never ends. */
static int
sleep_nan(CoroObj *Py_UNUSED(coro), PyObject **Py_UNUSED(result))
{
    PyErr_SetString(PyExc_ValueError, "Invalid delay: NaN (not a number)");
    return CORO_ERROR;
}

/* sleep(delay, result=None) */
static PyObject *
sleep_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames, PyObject *stock)
{
    PyObject *result = NULL;
    if (nargs == 2) {
        result = args[1];
    }
    else if (kwnames != NULL && nargs == 1 && PyTuple_GET_SIZE(kwnames) == 1 &&
             PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.result) == 0) {
        result = args[1];
        kwnames = NULL;
    }
    if (LIKELY(kwnames == NULL && (nargs == 1 || nargs == 2))) {
        PyObject *delay = args[0];
        double seconds = NAN;
        if (PyFloat_CheckExact(delay)) {
            seconds = PyFloat_AS_DOUBLE(delay);
            if (UNLIKELY(isnan(seconds))) {
                return coro_new(st, NULL, sleep_nan, "sleep", 0, NULL);
            }
        }
        else if (PyLong_CheckExact(delay)) {
            seconds = PyLong_AsDouble(delay);
            if (UNLIKELY(seconds == -1.0 && PyErr_Occurred())) {
                PyErr_Clear();
                seconds = NAN;
            }
        }
        if (seconds <= 0) {
            return coro_new(st, NULL, sleep_turn, "sleep", 0, result);
        }
        if (seconds > 0) {
            CoroObj *coro = (CoroObj *)coro_new(st, NULL, sleep_timer, "sleep", 0, result);
            if (coro != NULL) {
                coro->waiter = Py_NewRef(delay);
            }
            return (PyObject *)coro;
        }
    }
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

static PyMethodDef sleep_wake_def = {"_wake", (PyCFunction)(void (*)(void))sleep_wake, METH_FASTCALL, NULL};

PART int
sleep_setup(PyObject *module, ctask_state *st)
{
    /* Bound to nothing: nobody would break the cycle if the module's own state held a function of the module. */
    st->sleep_wake = PyCFunction_New(&sleep_wake_def, NULL);
    return st->sleep_wake == NULL ? -1 : standin_function(st, module, st->stock_sleep, "sleep", sleep_call);
}
