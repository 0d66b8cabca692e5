/* Which tasks exist and which one runs (registry.c). */

#ifndef CTASK_REGISTRY_H
#define CTASK_REGISTRY_H

#include "handles/objects.h"

PART int registry_setup(PyObject *module, ctask_state *st);
PART int registry_add(ctask_state *st, TaskObj *task);
PART void registry_remove(TaskObj *task);
/* Borrowed: the task that runs in this thread, of `loop` up to 3.13, as far as it can be told at once; or NULL. */
PART PyObject *current_known(ctask_state *st, LoopObj *loop);
PART int current_enter(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave_later(LoopObj *loop, PyThreadState *ts, TaskObj *task);
PART int current_flush(LoopObj *loop);
PART int current_is_ours(ctask_state *st, PyObject *loop);
PART PyObject *current_swap(ctask_state *st, PyObject *loop, PyObject *task);
PART PyObject *running_loop(ctask_state *st);
PART PyObject *bind_loop(ctask_state *st, PyObject *self, PyObject **bound);
PART PyObject *current_task(ctask_state *st, PyObject *loop);

#endif
