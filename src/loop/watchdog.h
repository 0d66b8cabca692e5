/* A thread that notices when one callback keeps the loop (watchdog.c). */

#ifndef CTASK_WATCHDOG_H
#define CTASK_WATCHDOG_H

#include "handles/objects.h"

/* The loop's thread has something to do again: a watchdog that slept as long as it had not looks again. */
PART void watchdog_rouse(LoopObj *loop);
PART void watchdog_free(struct watchdog *dog);
PART int watchdog_setup(PyObject *module, ctask_state *st);

/* Called whenever the loop ends a wait or begins to run. */
static inline void
watchdog_loop_works(LoopObj *loop)
{
    if (UNLIKELY(loop->watchdog != NULL)) {
        watchdog_rouse(loop);
    }
}

#endif
