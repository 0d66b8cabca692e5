/* loop/: the loop (loop.c).  iterate.c and run.c run it, schedule.c fills it, watch.c and wake.c feed it from the
   kernel and from other threads; poll.h is what a poller has to do.

   It runs what is in the ring: handles, and the steps of tasks.  Sockets never come in, nor protocols: whoever waits
   for a descriptor gives an io_ready. */

#ifndef CTASK_LOOP_H
#define CTASK_LOOP_H

#include "loop/memory.h"
#include "loop/moments.h"
#include "loop/poll.h"
#include "loop/report.h"
#include "loop/schedule.h"
#include "loop/watch.h"
#include "tasks/tasks.h"

#define MAXIMUM_WAIT (24 * 3600.0) // seconds in the kernel, as asyncio's

PART int loop_setup(PyObject *module, ctask_state *st);
PART int fork_setup(PyObject *module, ctask_state *st);

/* ---- what calls the loop ---- */

PART int run_ready(LoopObj *loop, PyThreadState *ts);
PART int counters_setup(PyObject *module, ctask_state *st);
PART int iterate_setup(PyObject *module, ctask_state *st);
PART int ready_setup(PyObject *module, ctask_state *st);
PART int wake_setup(PyObject *module, ctask_state *st);

#endif
