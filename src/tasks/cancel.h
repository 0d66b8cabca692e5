/* Cancelling futures and tasks (cancel.c). */

#ifndef CTASK_CANCEL_H
#define CTASK_CANCEL_H

#include "ctask.h"

PART int task_cancel(TaskObj *task, ctask_state *st, PyObject *msg);
PART int future_cancel_any(PyObject *fut, ctask_state *st, PyObject *msg);

#endif
