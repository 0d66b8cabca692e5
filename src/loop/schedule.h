/* Calls are put into the loop (schedule.c). */

#ifndef CTASK_SCHEDULE_H
#define CTASK_SCHEDULE_H

#include "handles/objects.h"

/* Arguments in the form (lead..., *args, context=None), as in call_later(delay, callback, *args).  All
   borrowed. */
typedef struct {
    PyObject *lead[2];
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context; // NULL if not given
} call_args;

/* The loop's clock in seconds: CLOCK_MONOTONIC, or an overridden time(), or what time.monotonic was replaced by. */
PART int loop_now(LoopObj *loop, double *now);
PART PyObject *loop_new_task(ctask_state *st, PyObject *loop, PyObject *coro);
PART int schedule_setup(PyObject *module, ctask_state *st);
PART int schedule_parse(call_args *out, const char *method, const char *const *names, int n_lead,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *schedule_soon(LoopObj *loop, int threadsafe, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

/* Is what create_task() of this loop (which is plain) returns just a new ctask.Task? */
PART int schedule_creates_tasks(LoopObj *loop);

#endif
