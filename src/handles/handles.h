/* handles/: what waits for its turn, and where.  Handles and timers as the loop deals with them (handle.c), and as
   Python sees them (handle_type.c, timer.c, threadsafe.c); the ready queue, and the loop's object as who puts work
   there sees it (work.c); the clock (clock.c).

   It uses base/.  What runs the work never comes in, and tasks and futures are no more here than subjects of entries. */

#ifndef CTASK_HANDLES_H
#define CTASK_HANDLES_H

#include "handles/handle.h"
#include "handles/handle_type.h"
#include "handles/threadsafe.h"
#include "handles/timer.h"
#include "handles/work.h"

#endif
