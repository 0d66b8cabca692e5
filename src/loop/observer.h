/* What is seen of a loop while somebody asks for it: how long things take and wait (observer.c), and what happened
   (trace.c). */

#ifndef CTASK_OBSERVER_H
#define CTASK_OBSERVER_H

#include "handles/objects.h"

/* A count for each power of two of nanoseconds: the i-th is of those from 2^i up to 2^(i+1), the first of 0 as well. */
#define BUCKETS 48 // three days

typedef struct {
    uint64_t buckets[BUCKETS];
    uint64_t count;
    int64_t sum; // nanoseconds
    int64_t longest;
} histogram;

/* What a loop runs, between trace_begin() and trace_end(). */
typedef struct trace_slice {
    struct trace_slice *outer; // borrowed; of the run that this one is nested in
    TaskObj *task; // borrowed from the entry, or from `owned`; whose step it is, or NULL
    PyObject *owned; // owned; or NULL, as before the first of a run
    uint64_t began; // ticks
    uint64_t serial; // if there is no `task`: of one that may be gone by now, or 0
    uint32_t position; // in the ready queue
    uint32_t label; // of what is called, if it is no step
} trace_slice;

/* Of a loop that is traced. */
typedef struct {
    struct trace *trace; // borrowed from the module's state; NULL unless the loop is traced
    trace_slice *running; // borrowed; what runs, NULL if nothing does
    trace_slice first; // what ran when the trace began; `running` points to it until that has ended
    uint64_t began; // ticks: when what ran last ended, or the trace began; 0 if something else ran since
    uint64_t polls_since; // ticks; 0 while the kernel is not asked
    uint64_t number; // of the trace: there may have been another
    uint32_t told; // up to where in the ready queue it is known who pushed
    uint16_t loop; // its number in the trace
} loop_trace;

struct observer {
    loop_trace traced;
    char measuring; // the rest is in use
    histogram timers; // how late they were
    histogram waits; // how long what was ready waited for its turn
    histogram callbacks; // how long each ran
    histogram steps; // and each step of a task
    loop_moment *marks; // owned; a ring; what was pushed before the position of one was by then at the latest
    size_t n_marks; // its capacity, a power of two, or 0
    size_t first; // the oldest, counted on and on
    size_t last; // the next to be made
};

PART struct observer *observer_new(void);
PART void observer_free(struct observer *observer);
/* Nobody measures, or nobody traces, any more. */
PART void observer_leave(LoopObj *loop);
/* All that was pushed up to now was pushed at `now` at the latest. */
PART void observer_mark_pushed(LoopObj *loop, int64_t now);
/* The entry that was popped last begins to run. */
PART void observer_starts(LoopObj *loop, int64_t now);
PART void observer_ran(LoopObj *loop, int is_step, int64_t began, int64_t ended);
PART void observer_timer_fires(LoopObj *loop, double late);
PART int observer_setup(PyObject *module, ctask_state *st);

#endif
