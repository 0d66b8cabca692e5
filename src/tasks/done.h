/* A done callback in C (done.c): what gather(), wait() and shield() add to futures where asyncio adds a closure.

   One object serves all the futures of a call.  It goes through the loop as every callback does. */

#ifndef CTASK_DONE_H
#define CTASK_DONE_H

#include "tasks/futures.h"

typedef struct DoneObj DoneObj;

/* Returns -1 with the exception that the loop reports. */
typedef int (*done_function)(DoneObj *done, PyObject *fut);

struct DoneObj {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    done_function function;
    ctask_state *st; // borrowed from the type's module
    PyObject *owner; // owned; for the function, or NULL
    PyObject *task; // owned; who waits, for the call graph, or NULL
    PyObject *other; // owned; for the function, or NULL
    const char *name; // what asyncio's function is called
    Py_ssize_t n; // for the function
    Py_ssize_t total; // for the function
    char flag; // for the function
    char silent; // given an exact future of a plain loop, the function runs no Python code: it needs no context
};

PART int done_setup(PyObject *module, ctask_state *st);
PART DoneObj *done_new(ctask_state *st, done_function function, const char *name, PyObject *owner);
PART void done_dealloc(PyObject *self);
/* fut.add_done_callback(done), of any future.  `context` (borrowed) is a copy of the current one. */
PART int done_add(DoneObj *done, PyObject *fut, PyObject *context);
/* fut.remove_done_callback(done), of any future. */
PART int done_remove(DoneObj *done, PyObject *fut);

static inline int
done_is(PyObject *obj)
{
    return Py_TYPE(obj)->tp_dealloc == done_dealloc;
}

#endif
