/* What is asked of any future and told to it: one of ours, asyncio's, another loop's, or a look-alike.

   Ours are looked into, the others are called by their methods, which may do anything. */

#ifndef CTASK_FUTURES_H
#define CTASK_FUTURES_H

#include "tasks/tasks.h"

/* fut.done() and fut.cancelled(): 1, 0, or -1 with an exception. */

static inline int
future_is_done(ctask_state *st, PyObject *fut)
{
    return LIKELY(future_is_exact(fut)) ? ((FutureObj *)fut)->state != FUTURE_PENDING
                                        : call_predicate(fut, st->str.done);
}

static inline int
future_is_cancelled(ctask_state *st, PyObject *fut)
{
    return LIKELY(future_is_exact(fut)) ? ((FutureObj *)fut)->state == FUTURE_CANCELLED
                                        : call_predicate(fut, st->str.cancelled);
}

/* fut.exception(): owned; None if there is none. */
static inline PyObject *
future_exception(ctask_state *st, PyObject *obj)
{
    FutureObj *fut = (FutureObj *)obj;
    if (LIKELY(future_is_exact(obj) && fut->state == FUTURE_FINISHED)) {
        fut->log_traceback = 0;
        return Py_NewRef(fut->exception == NULL ? Py_None : fut->exception);
    }
    return PyObject_CallMethodNoArgs(obj, st->str.exception);
}

/* fut.result() of one that has no exception; owned. */
static inline PyObject *
future_result(ctask_state *st, PyObject *obj)
{
    FutureObj *fut = (FutureObj *)obj;
    if (LIKELY(future_is_exact(obj) && fut->state == FUTURE_FINISHED && fut->exception == NULL)) {
        fut->log_traceback = 0;
        return Py_NewRef(fut->result);
    }
    return PyObject_CallMethodNoArgs(obj, st->str.result);
}

/* fut.set_result(value) unless it is done: 1 if this did it, 0 if it was, -1 with an exception. */
static inline int
future_wake(ctask_state *st, PyObject *fut, PyObject *value)
{
    int done = future_is_done(st, fut);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    if (LIKELY(future_is_exact(fut))) {
        return future_set_result((FutureObj *)fut, st, value) < 0 ? -1 : 1;
    }
    PyObject *res = PyObject_CallMethodOneArg(fut, st->str.set_result, value);
    Py_XDECREF(res);
    return res == NULL ? -1 : 1;
}

/* fut.cancel() of one that nobody waits for any more; -1 with an exception. */
static inline int
future_withdraw(ctask_state *st, PyObject *fut)
{
    if (LIKELY(future_is_exact(fut))) {
        return future_cancel((FutureObj *)fut, st, Py_None) < 0 ? -1 : 0;
    }
    PyObject *res = PyObject_CallMethodNoArgs(fut, st->str.cancel);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

#endif
