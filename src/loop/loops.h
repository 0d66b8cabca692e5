/* Which loops are open (loops.c). */

#ifndef CTASK_LOOPS_H
#define CTASK_LOOPS_H

#include "handles/objects.h"

/* A new loop is one of them, under the least number that no other has. */
PART void loops_enter(LoopObj *loop);
PART void loops_leave(LoopObj *loop);

/* The serial of the task that runs in this thread; 0 if none of ours does, or if that cannot be told at once. */
PART uint64_t loops_running_task(ctask_state *st);

PART int loops_setup(PyObject *module, ctask_state *st);

#endif
