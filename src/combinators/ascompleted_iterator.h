/* The iterator of as_completed(), and on what it waits. */

#ifndef CTASK_ASCOMPLETED_ITERATOR_H
#define CTASK_ASCOMPLETED_ITERATOR_H

#include "sync/waiters.h"
#include "tasks/done.h"

#define ASCOMPLETED_CLASS (PY_VERSION_HEX >= 0x030D0000)

#if ASCOMPLETED_CLASS
#define COMPLETION_NAME "_AsCompletedIterator._handle_completion"
#define TIMEOUT_NAME "_handle_timeout"
#define WAIT_NAME "_AsCompletedIterator._wait_for_one"
#else
#define COMPLETION_NAME "as_completed.<locals>._on_completion"
#define TIMEOUT_NAME "_on_timeout"
#define WAIT_NAME "as_completed.<locals>._wait_for_one"
#endif

typedef struct {
    PyObject_HEAD
    ctask_state *st; // borrowed from the type's module
    PyObject *todo; // owned; the set of the futures that are not done
    DoneObj *done; // owned; their callback, NULL as soon as there are none
    PyObject *timer; // owned; NULL without a timeout
    PyObject *task; // owned; who waits, for the call graph, or NULL
    PyObject *loop; // owned; what it is bound to since somebody waited, or NULL
    PyObject *queue; // owned; `_done`, NULL until somebody asks for it: then the items are there
    PyObject **items; // owned, each too; the futures that are done, NULL in place of one that came too late
    Py_ssize_t head; // the first item that was not taken
    Py_ssize_t tail; // after the last
    Py_ssize_t size; // of the memory
    Py_ssize_t left; // how many more are to be yielded
    waiter_list waiters; // the coroutines that wait for an item
} AsCompletedObj;

/* ---- ascompleted_iterator.c ---- */

/* The callback of the futures. */
PART int ascompleted_one_done(DoneObj *done, PyObject *fut);
/* What the timer calls: a timeout for each that is not done. */
PART PyObject *ascompleted_timed_out(PyObject *self, PyObject *ignored);
PART int ascompleted_add_type(PyObject *module, ctask_state *st);

#endif
