/* What loops do, kept in a ring while somebody traces (trace.c). */

#ifndef CTASK_TRACE_H
#define CTASK_TRACE_H

#include "loop/observer.h"

/* Of a loop that is traced.  `slice->owned` is NULL, and is so again after trace_end(), which is called in any case:
   the trace may have ended by then. */
PART void trace_begin(LoopObj *loop, const ring_entry *entry, trace_slice *slice);
PART void trace_end(LoopObj *loop, trace_slice *slice, int failed);
/* All of these are for a loop that has an observer, which need not be traced. */
/* What is ready is run from now on. */
PART void trace_turn(LoopObj *loop);
/* Something else than the loop's own work runs, or did: no time of what is run next. */
PART void trace_pause(LoopObj *loop);
/* The kernel is asked; has answered, at trace_now(); and what it told of is in the ready queue. */
PART void trace_poll(LoopObj *loop);
PART uint64_t trace_now(LoopObj *loop);
PART void trace_polled(LoopObj *loop, uint64_t ended, int events);
/* Pushed next, so late in seconds; was pushed last, by this thread; n entries have gone before m others. */
PART void trace_timer(LoopObj *loop, double late);
PART void trace_thread(LoopObj *loop);
PART void trace_overtake(LoopObj *loop, size_t n, size_t m);
/* A loop, with an observer or without, was made, or is open no more. */
PART void trace_enter(LoopObj *loop);
PART void trace_leave(LoopObj *loop);
/* The module's state ends. */
PART void trace_forget(ctask_state *st);
PART int trace_setup(PyObject *module, ctask_state *st);

#endif
