/* The type ctask.Task (task_type.c). */

#ifndef CTASK_TASK_TYPE_H
#define CTASK_TASK_TYPE_H

#include "ctask.h"

PART int task_setup(PyObject *module, ctask_state *st);
PART PyObject *task_create(ctask_state *st, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context,
                           int eager);

#endif
