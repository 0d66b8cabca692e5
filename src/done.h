/* A done callback in C (done.c): what gather(), wait() and shield() add to futures where asyncio adds a closure.

   One object serves all the futures of a call.  It goes through the loop as every callback does. */

#ifndef CTASK_DONE_H
#define CTASK_DONE_H

#include "ctask.h"

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

/* ---- questions to any future ---- */

/* fut.done() and fut.cancelled(): 1, 0, or -1 with an exception. */
PART int done_ask(ctask_state *st, PyObject *fut, PyObject *method);

static inline int
future_is_done(ctask_state *st, PyObject *fut)
{
    return LIKELY(future_is_exact(fut)) ? ((FutureObj *)fut)->state != FUTURE_PENDING
                                        : done_ask(st, fut, st->str.done);
}

static inline int
future_is_cancelled(ctask_state *st, PyObject *fut)
{
    return LIKELY(future_is_exact(fut)) ? ((FutureObj *)fut)->state == FUTURE_CANCELLED
                                        : done_ask(st, fut, st->str.cancelled);
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

#endif
