/* tasks/: futures (future.c), their steps as tasks (task.c), what Python sees of both (future_type.c, future_iter.c,
   task_type.c); which tasks exist and which one runs (registry.c).

   They put work in the ring of a loop (handles/), and never run the loop.  Other kinds of futures than these two make
   themselves known here (future_kind). */

#ifndef CTASK_TASKS_H
#define CTASK_TASKS_H

#include "handles/handles.h"
#include "tasks/callable.h"
#include "tasks/cancel.h"
#include "tasks/future.h"
#include "tasks/future_iter.h"
#include "tasks/future_type.h"
#include "tasks/life.h"
#include "tasks/registry.h"
#include "tasks/task.h"
#include "tasks/task_type.h"

#endif
