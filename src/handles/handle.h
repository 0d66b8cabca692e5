/* Handles as the loop deals with them (handle.c). */

#ifndef CTASK_HANDLE_H
#define CTASK_HANDLE_H

#include "handles/objects.h"

PART HandleObj *handle_create_threadsafe(LoopObj *loop, PyObject *callback, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *context, int debug);
PART HandleObj *handle_create(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *context, int debug);
PART void handle_retire(LoopObj *loop, HandleObj *handle);
PART TimerObj *timer_new(LoopObj *loop, double seconds, PyObject *when, PyObject *callback,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *context, int debug);
PART TimerObj *timer_of_call(LoopObj *loop, double seconds, const timer_call *call);
PART int handle_cancel(PyObject *handle, ctask_state *st);
PART int handle_is_cancelled(PyObject *handle);
PART int handle_look_at_run(ctask_state *st);

/* Has a program put a function of its own in the place of asyncio.Handle._run, which is to see all that runs? */
static inline int
handle_run_is_replaced(ctask_state *st)
{
    if (LIKELY(st->handles.versions[0] == st->HandleType->tp_version_tag &&
               st->handles.versions[1] == st->TimerHandleType->tp_version_tag && st->handles.versions[0] != 0 &&
               st->handles.versions[1] != 0)) {
        return st->handles.runs_replaced;
    }
    return handle_look_at_run(st);
}

#endif
