/* Who waits for a lock, an event, a semaphore or a condition, in the order in which they came.

   asyncio's `_waiters` is a deque of futures.  Here each waiting coroutine (coro.h) is itself the list's node,
   so that to wait and to go needs no memory and no search.  As soon as somebody looks at `_waiters` a deque is
   made of the list, and that is then the list; when it is empty, and nobody else has it any more, ours is used
   again. */

#ifndef CTASK_WAITERS_H
#define CTASK_WAITERS_H

#include "coro/coroobj.h"
#include "tasks/futures.h"

/* What asyncio's attribute would be if it is not in `shown`. */
enum { WAITERS_UNSET, WAITERS_NONE, WAITERS_DEQUE };

typedef struct {
    struct list_node list; // the coroutines; owns a reference to the `waiter` of each
    struct list_node *pending; // every future before this one is done; the head if all are
    PyObject *shown; // owned; what Python code has seen or set, NULL while `list` says it all
    unsigned changes; // of the list, so far
    char kind; // WAITERS_...
} waiter_list;

static inline void
waiters_init(waiter_list *waiters)
{
    list_init(&waiters->list);
    waiters->pending = &waiters->list;
}

static inline int
waiters_are_none(const waiter_list *waiters)
{
    return waiters->shown == NULL && waiters->list.next == &waiters->list;
}

/* `_waiters`, a new reference. */
PART PyObject *waiters_show(waiter_list *waiters, ctask_state *st);
/* Set `_waiters`; NULL deletes it. */
PART int waiters_set(waiter_list *waiters, ctask_state *st, PyObject *value);
/* Append coro->waiter, a future. */
PART int waiters_add(waiter_list *waiters, CoroObj *coro);
/* The coroutine waits no more.  An exception may be set. */
PART void waiters_remove(waiter_list *waiters, CoroObj *coro);
/* Have all been cancelled?  1, 0, or -1 with an exception. */
PART int waiters_all_cancelled(waiter_list *waiters, ctask_state *st);
/* Wake the first if it is not done.  Returns -1 with an exception. */
PART int waiters_wake_first(waiter_list *waiters, ctask_state *st);
/* Give the first n that are not done the result `value`.  Returns how many there were, or -1. */
PART Py_ssize_t waiters_wake(waiter_list *waiters, ctask_state *st, Py_ssize_t n, PyObject *value);
PART int waiters_traverse(waiter_list *waiters, visitproc visit, void *arg);
PART void waiters_clear(waiter_list *waiters);

#endif
