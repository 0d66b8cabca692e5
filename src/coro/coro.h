/* coro/: what is written in C where asyncio has Python, and passes for it.  Coroutines (coro.c), what they show of
   themselves (coroframe.c), functions and methods (standin.h), classes (core.h).

   It uses tasks/ and below; what a single function or class of asyncio's does is written above, with these.

   Coroutines without a frame: what read(), acquire() or sleep() in C return (coro.c). */

#ifndef CTASK_CORO_H
#define CTASK_CORO_H

#include "coro/coroobj.h"
#include "tasks/tasks.h"

/* A coroutine that has not started; `owner` and `arg` may be NULL. */
PART PyObject *coro_new(ctask_state *st, PyObject *owner, coro_step step, const char *name, Py_ssize_t n,
                        PyObject *arg);
/* For a step: wait for `awaitable` (stolen; NULL is passed on), then call `next`.  Sets neither `failed` nor
   `unwait`, which hold for one wait each and are the step's to set. */
PART int coro_await(CoroObj *coro, PyObject *awaitable, coro_step next);
PART int coro_setup(PyObject *module, ctask_state *st);

#endif
