/* Who waits for a lock, an event, a semaphore or a condition (waiters.h).

   A future that is not ctask's own, which another loop has made, is asked and told by its methods.  Those may
   do anything, so the list is looked at anew after each. */

#include "sync/waiters.h"

static inline PyObject *
waiter_of(struct list_node *node)
{
    return list_entry(node, CoroObj, node)->waiter;
}

/* ---- the list ---- */

static void
waiters_unlink(waiter_list *waiters, struct list_node *node)
{
    if (waiters->pending == node) {
        waiters->pending = node->next;
    }
    list_remove(node);
    waiters->changes++;
}

/* As a deque says it that is changed by what its iteration calls. */
static int
waiters_check(const waiter_list *waiters, unsigned changes)
{
    if (UNLIKELY(waiters->changes != changes)) {
        PyErr_SetString(PyExc_RuntimeError, "deque mutated during iteration");
        return -1;
    }
    return 0;
}

PART int
waiters_add(waiter_list *waiters, CoroObj *coro)
{
    while (UNLIKELY(waiters->shown != NULL)) {
        PyObject *shown = waiters->shown;
        ctask_state *st = coro->st;
        if (Py_REFCNT(shown) > 1 || (PyObject *)Py_TYPE(shown) != st->deque || PyObject_Size(shown) != 0) {
            Py_INCREF(shown);
            PyObject *res = PyObject_CallMethodOneArg(shown, st->str.append, coro->waiter);
            Py_DECREF(shown);
            Py_XDECREF(res);
            return res == NULL ? -1 : 0;
        }
        waiters->shown = NULL;
        Py_DECREF(shown); /* who hears of its end may ask for another */
    }
    Py_INCREF(coro->waiter);
    list_append(&waiters->list, &coro->node);
    if (waiters->pending == &waiters->list) {
        waiters->pending = &coro->node;
    }
    waiters->changes++;
    return 0;
}

/* From the deque, in which it is not if somebody has taken it out. */
static __attribute__((noinline)) void
waiters_remove_shown(waiter_list *waiters, CoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *shown = Py_NewRef(waiters->shown);
    PyObject *res = PyObject_CallMethodOneArg(shown, coro->st->str.remove, coro->waiter);
    if (res == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
    }
    else if (res == NULL) {
        PyErr_WriteUnraisable(shown);
    }
    Py_XDECREF(res);
    Py_DECREF(shown);
    PyErr_SetRaisedException(raised);
}

PART void
waiters_remove(waiter_list *waiters, CoroObj *coro)
{
    if (LIKELY(list_is_linked(&coro->node))) {
        waiters_unlink(waiters, &coro->node);
        Py_DECREF(coro->waiter); /* the list's; the coroutine has its own */
    }
    else if (waiters->shown != NULL) {
        waiters_remove_shown(waiters, coro);
    }
}

/* ---- as Python sees it ---- */

/* The futures, as a list. */
static PyObject *
waiters_copy(waiter_list *waiters)
{
    PyObject *copy = PyList_New(0);
    unsigned changes = waiters->changes;
    struct list_node *node = waiters->list.next;
    while (copy != NULL && node != &waiters->list) {
        if (PyList_Append(copy, waiter_of(node)) < 0) {
            Py_CLEAR(copy);
            break;
        }
        if (UNLIKELY(waiters->changes != changes)) {
            /* Memory was asked for, and a collection has ended one of them. */
            Py_SETREF(copy, PyList_New(0));
            changes = waiters->changes;
            node = waiters->list.next;
            continue;
        }
        node = node->next;
    }
    return copy;
}

PART PyObject *
waiters_show(waiter_list *waiters, ctask_state *st)
{
    while (waiters->shown == NULL) {
        if (waiters->kind != WAITERS_DEQUE) {
            if (waiters->kind == WAITERS_NONE) {
                Py_RETURN_NONE;
            }
            PyErr_SetString(PyExc_AttributeError, "_waiters");
            return NULL;
        }
        unsigned changes = waiters->changes;
        PyObject *copy = waiters_copy(waiters);
        PyObject *deque = copy == NULL ? NULL : PyObject_CallOneArg(st->deque, copy);
        Py_XDECREF(copy);
        if (deque == NULL) {
            return NULL;
        }
        if (UNLIKELY(waiters->changes != changes || waiters->shown != NULL)) {
            Py_DECREF(deque);
            continue;
        }
        waiters->shown = deque;
        waiters_clear(waiters);
    }
    return Py_NewRef(waiters->shown);
}

PART int
waiters_set(waiter_list *waiters, ctask_state *st, PyObject *value)
{
    if (waiters->list.next != &waiters->list) {
        PyObject *shown = waiters_show(waiters, st); /* so that the list is empty */
        if (shown == NULL) {
            return -1;
        }
        Py_DECREF(shown);
    }
    PyObject *before = waiters->shown;
    waiters->shown = NULL;
    waiters->kind = WAITERS_UNSET;
    if (value == Py_None) {
        waiters->kind = WAITERS_NONE;
    }
    else if (value != NULL) {
        waiters->kind = WAITERS_DEQUE;
        waiters->shown = Py_NewRef(value);
    }
    Py_XDECREF(before);
    return 0;
}

/* ---- questions and answers ---- */

/* iter(_waiters), which may put another in its place. */
static PyObject *
waiters_iter_shown(waiter_list *waiters)
{
    PyObject *shown = Py_NewRef(waiters->shown);
    PyObject *iter = PyObject_GetIter(shown);
    Py_DECREF(shown);
    return iter;
}

static __attribute__((noinline)) int
waiters_shown_cancelled(waiter_list *waiters, ctask_state *st)
{
    PyObject *iter = waiters_iter_shown(waiters), *fut;
    int cancelled = iter == NULL ? -1 : 1;
    while (cancelled > 0 && (fut = PyIter_Next(iter)) != NULL) {
        cancelled = future_is_cancelled(st, fut);
        Py_DECREF(fut);
    }
    Py_XDECREF(iter);
    return cancelled > 0 && PyErr_Occurred() ? -1 : cancelled;
}

PART int
waiters_all_cancelled(waiter_list *waiters, ctask_state *st)
{
    if (UNLIKELY(waiters->shown != NULL)) {
        return waiters_shown_cancelled(waiters, st);
    }
    for (struct list_node *node = waiters->list.next; node != &waiters->list; node = node->next) {
        unsigned changes = waiters->changes;
        PyObject *fut = Py_NewRef(waiter_of(node));
        int cancelled = future_is_cancelled(st, fut);
        Py_DECREF(fut);
        if (cancelled <= 0 || waiters_check(waiters, changes) < 0) {
            return cancelled <= 0 ? cancelled : -1;
        }
    }
    return 1;
}

static __attribute__((noinline)) Py_ssize_t
waiters_wake_shown(waiter_list *waiters, ctask_state *st, Py_ssize_t n, PyObject *value)
{
    PyObject *iter = waiters_iter_shown(waiters), *fut;
    Py_ssize_t woken = iter == NULL ? -1 : 0;
    while (woken >= 0 && woken < n && (fut = PyIter_Next(iter)) != NULL) {
        int status = future_wake(st, fut, value);
        woken = status < 0 ? -1 : woken + status;
        Py_DECREF(fut);
    }
    Py_XDECREF(iter);
    return woken >= 0 && PyErr_Occurred() ? -1 : woken;
}

PART Py_ssize_t
waiters_wake(waiter_list *waiters, ctask_state *st, Py_ssize_t n, PyObject *value)
{
    if (UNLIKELY(waiters->shown != NULL)) {
        return waiters_wake_shown(waiters, st, n, value);
    }
    Py_ssize_t woken = 0;
    while (woken < n && waiters->pending != &waiters->list) {
        struct list_node *node = waiters->pending;
        unsigned changes = waiters->changes;
        PyObject *fut = Py_NewRef(waiter_of(node));
        int status = future_wake(st, fut, value);
        int changed = waiters->changes != changes;
        if (LIKELY(status >= 0 && !changed)) {
            waiters->pending = node->next; /* it is done, by us or before */
        }
        Py_DECREF(fut);
        if (status < 0) {
            return -1;
        }
        woken += status;
        if (UNLIKELY(changed)) {
            if (woken < n && waiters_check(waiters, changes) < 0) {
                return -1;
            }
            break;
        }
    }
    return woken;
}

PART int
waiters_wake_first(waiter_list *waiters, ctask_state *st)
{
    PyObject *fut = NULL;
    if (UNLIKELY(waiters->shown != NULL)) {
        PyObject *iter = waiters_iter_shown(waiters);
        fut = iter == NULL ? NULL : PyIter_Next(iter);
        Py_XDECREF(iter);
        if (fut == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    else if (waiters->list.next != &waiters->list) {
        fut = Py_NewRef(waiter_of(waiters->list.next));
    }
    else {
        return 0;
    }
    int status = future_wake(st, fut, Py_True);
    Py_DECREF(fut);
    return status < 0 ? -1 : 0;
}

/* ---- life ---- */

PART int
waiters_traverse(waiter_list *waiters, visitproc visit, void *arg)
{
    Py_VISIT(waiters->shown);
    if (UNLIKELY(waiters->list.next == NULL)) {
        return 0; /* debug builds visit what is about to be initialised */
    }
    for (struct list_node *node = waiters->list.next; node != &waiters->list; node = node->next) {
        Py_VISIT(waiter_of(node));
    }
    return 0;
}

/* Empty the list; each coroutine has a reference to its future of its own, so nothing ends here. */
PART void
waiters_clear(waiter_list *waiters)
{
    while (waiters->list.next != &waiters->list) {
        struct list_node *node = waiters->list.next;
        waiters_unlink(waiters, node);
        Py_DECREF(waiter_of(node));
    }
}
