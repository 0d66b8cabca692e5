/* A step and a wake-up as Python callables (callable.c). */

#ifndef CTASK_CALLABLE_H
#define CTASK_CALLABLE_H

#include "ctask.h"

PART int callable_setup(PyObject *module, ctask_state *st);
PART PyObject *task_wakeup_callback(TaskObj *task);
/* The same and the task's context, in which it is to be called: both owned, or NULL and NULL with an exception. */
PART PyObject *task_wakeup_in_context(TaskObj *task, ctask_state *st, PyObject **context);
PART PyObject *task_step_callback(TaskObj *task, ctask_state *st, PyObject *exc);
/* Whose step or wake-up it is, borrowed; NULL for anything else. */
PART TaskObj *callable_task(ctask_state *st, PyObject *callable);

#endif
