/* coro/: what is written in C where asyncio has Python, and passes for it.  Coroutines (coro.c), what they show of
   themselves (coroframe.c), functions and methods (standin.h), classes (core.h).

   It uses tasks/ and below; what a single function or class of asyncio's does is written above, with these.

   Coroutines without a frame: what read(), acquire() or sleep() in C return (coro.c).

   A coroutine is a chain of steps.  Each either has the result, or waits for something and names the step
   that comes after.  */

#ifndef CTASK_CORO_H
#define CTASK_CORO_H

#include "tasks/tasks.h"

typedef struct CoroObj CoroObj;

enum {
    CORO_ERROR = -1, // with an exception set
    CORO_AWAIT = 0, // wait for coro->awaiting, then go on with coro->step
    CORO_RETURN = 1, // with the coroutine's result in `*result`
    CORO_YIELD = 2, // give the loop a turn, then go on with coro->step
};

typedef int (*coro_step)(CoroObj *coro, PyObject **result);

typedef enum { CORO_CREATED, CORO_SUSPENDED, CORO_RUNNING, CORO_CLOSED } coro_state;

struct CoroObj {
    PyObject_HEAD
    PyObject *owner; // owned; whose method it is, or NULL
    PyObject *arg; // owned; for the steps, or NULL
    PyObject *waiter; // owned; for the steps, or NULL
    PyObject *subject; // owned; for the steps, or NULL
    PyObject *awaiting; // owned; the iterator of what it waits for, or NULL
    PyObject *function; // owned; asyncio's own, whose place it takes, or NULL
    ctask_state *st; // borrowed from the type's module
    coro_step step; // what to do next; NULL: the result of `awaiting` is ours
    coro_step failed; // instead of `step` if an exception (which is set) comes in its place, NULL: it passes
    void (*unwait)(CoroObj *coro); // called first of all when a wait ends, whatever the reason; or NULL
    const char *name; // qualified
    union {
        struct {
            Py_ssize_t n; // for the steps
            Py_ssize_t offset; // for the steps
        };
        struct list_node node; // in a list of waiters (waiters.h)
    };
    coro_state state;
    char finalized; // the memory is not used again
};

/* A coroutine that has not started; `owner` and `arg` may be NULL. */
PART PyObject *coro_new(ctask_state *st, PyObject *owner, coro_step step, const char *name, Py_ssize_t n,
                        PyObject *arg);
/* For a step: wait for `awaitable` (stolen; NULL is passed on), then call `next`.  Sets neither `failed` nor
   `unwait`, which hold for one wait each and are the step's to set. */
PART int coro_await(CoroObj *coro, PyObject *awaitable, coro_step next);
PART int coro_setup(PyObject *module, ctask_state *st);

/* ---- coroframe.c ---- */

/* For cr_frame and cr_await. */
PART PyObject *coroframe_of(CoroObj *coro);
PART PyObject *coroframe_awaited(CoroObj *coro);
PART int coroframe_setup(PyObject *module, ctask_state *st);

#endif
