/* The steps of tasks (task.c). */

#ifndef CTASK_TASK_H
#define CTASK_TASK_H

#include "handles/objects.h"

PART int task_schedule_step(TaskObj *task, ctask_state *st, PyObject *exc);
PART int task_run(LoopObj *loop, PyThreadState *ts, TaskObj *task, PyObject *exc, PyObject *fut);
PART PyObject *task_run_as_callback(TaskObj *task, PyObject *exc, PyObject *fut);
PART int task_start_eagerly(TaskObj *task, ctask_state *st);

#endif
