/* What wait_for() takes from Timeout (timeout.c). */

#ifndef CTASK_TIMEOUT_H
#define CTASK_TIMEOUT_H

#include "coro/core.h"
#include "coro/coro.h"

typedef struct {
    CORE_HEAD
    PyObject *state; // owned; a member of asyncio.timeouts._State; NULL until __init__
    PyObject *handler; // owned; the timer's handle, or None; NULL until __init__
    PyObject *task; // owned; the task that entered, or None; NULL until __init__
    PyObject *when; // owned; as given, or None; NULL until __init__
    PyObject *cancelling; // owned; task.cancelling() on entering, NULL before
    char touched; // an attribute was set from Python: asyncio's methods take over
} TimeoutObj;

/* A Timeout that was not entered; `when` (stolen) is its deadline or None, NULL is passed on. */
PART PyObject *timeout_new(ctask_state *st, PyObject *when);
/* What __aenter__() does.  -1 with an exception, 1 if it is asyncio's method that has to do it (nothing was
   done). */
PART int timeout_enter(TimeoutObj *timeout, PyObject *loop);
/* What __aexit__() does if the timeout has not struck; the same answers.  An exception may be set. */
PART int timeout_leave(TimeoutObj *timeout);
/* loop.time() + delay: a new reference, None for None. */
PART PyObject *timeout_deadline(ctask_state *st, PyObject *loop, PyObject *delay);

#endif
