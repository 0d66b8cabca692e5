/* A coroutine without a frame: a chain of steps.  Each either has the result, or waits for something and names the step
   that comes after. */

#ifndef CTASK_COROOBJ_H
#define CTASK_COROOBJ_H

#include "ctask.h"

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

#endif
