/* One iteration after the other, and what the kernel, the timers and the clock have to do with each:

       run what is ready --> ask the timers how long to wait --> poll --> push what is due --> run ...

   `_run()` is these in a row; what run_forever() does around it is asyncio's, and the loop's type is loop.c's. */

#include "loop/loop.h"
#include "handles/clock.h"
#include "loop/observer.h"
#include "loop/trace.h"
#include "loop/watchdog.h"

#include <math.h>

/* ---- an iteration ---- */

/* How long the kernel may keep us, in nanoseconds; negative for ever. */
static int
time_to_wait(LoopObj *loop, int64_t *timeout)
{
    *timeout = -1;
    if (loop->timers.length == 0) {
        return 0;
    }
    double now;
    if (loop_now(loop, &now) < 0) {
        return -1;
    }
    if (loop->timers.length == 0) {
        return 0; /* time() may be anybody's */
    }
    double seconds = timers_first(&loop->timers)->when - now;
    if (seconds > MAXIMUM_WAIT) {
        seconds = MAXIMUM_WAIT;
    }
    *timeout = seconds > 0 ? (int64_t)ceil(seconds * 1e9) : 0;
    return 0;
}

static int
push_due_timers(LoopObj *loop)
{
    double now;
    if (loop_now(loop, &now) < 0) {
        return -1;
    }
    /* The resolution of the clock, and never nothing: a nanosecond is something for the first seven weeks. */
    double end = now + (LIKELY(fabs(now) < 0x1p22) ? 1e-9 : fmax(1e-9, nextafter(now, INFINITY) - now));
    while (loop->timers.length > 0 && timers_first(&loop->timers)->when < end) {
        if (UNLIKELY(loop->observer != NULL)) {
            observer_timer_fires(loop, now - timers_first(&loop->timers)->when);
            trace_timer(loop, now - timers_first(&loop->timers)->when);
        }
        void *when;
        memcpy(&when, &timers_first(&loop->timers)->when, sizeof(when));
        heap_node *node = timers_pop(&loop->timers);
        timer_call *call = timer_call_of(node);
        TimerObj *timer = list_entry(node, TimerObj, node);
        if (loop->last_timer == timer) {
            loop->last_timer = NULL;
        }
        if ((call != NULL ? loop_ready(loop, call, READY_TIMER, when, NULL)
                          : loop_ready(loop, timer, READY_HANDLE, NULL, NULL)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A timer that is due so soon is not slept for: that costs the processor more, and the kernel adds 50 us to it. */
#define SHORT_WAIT 5000 // nanoseconds

/* Ask the kernel, in each iteration as asyncio does, and wait if there is nothing to do. */
static int
poll_events(LoopObj *loop, PyThreadState *ts)
{
    int64_t timeout = 0;
    if (ring_length(&loop->ready) > 0) {
        if (LIKELY(loop->poll.watched == 0)) {
            if (UNLIKELY(loop->observer != NULL) && must_breathe(ts)) {
                trace_pause(loop);
            }
            return breathe(ts); // the kernel has nothing to tell
        }
    }
    else if (!loop->stopping && time_to_wait(loop, &timeout) < 0) {
        return -1;
    }
    if (timeout >= 0 && timeout <= SHORT_WAIT) {
        return poll_wait(loop, 0);
    }
    if (UNLIKELY(loop->corked != NULL)) {
        loop->uncork(loop); // this run is nested in the callback that wrote
    }
    /* A signal that came since Python code ran last: its handler may be what the program waits for. */
    if (UNLIKELY(must_breathe(ts)) && (breathe(ts) < 0 || time_to_wait(loop, &timeout) < 0)) {
        return -1;
    }
    /* Made ready meanwhile, by that handler, another thread or a time() in Python: nobody was asleep to be woken. */
    if (UNLIKELY(ring_length(&loop->ready) > 0 || loop->stopping)) {
        return poll_wait(loop, 0);
    }
    return poll_wait(loop, memory_trim(loop, timeout));
}

/* Tasks compute and let others run by sleep(0), as their authors were told to.  What came during such a turn, and what
   is due since, would wait for all that they compute in the next turn, too; it goes before them if that is long. */
#define LONG_TURN 1e-3 // seconds
#define TURNS 64 // what the average is over
#define NO_AVERAGE 1e-9 // below it there is none: by itself it would only become a denormal number
#define LONG_AVERAGE (0.96 * LONG_TURN / TURNS) // one long turn is enough, or some of 20 us

static int
is_yielder(const ring_entry *entry)
{
    return ring_kind(entry) == READY_STEP && entry->context != NULL;
}

static int
yielders_compute(LoopObj *loop)
{
    double before = loop->yielded_at, took = 0;
    size_t ready = ring_length(&loop->ready);
    if (loop->poll.watched == 0 && loop->timers.length == 0) {
        loop->yielded_at = 0; // nothing can come
        return 0;
    }
    if (LIKELY(ready == 0 || !is_yielder(ring_last(&loop->ready)))) {
        loop->yielded_at = 0;
        if (LIKELY(ready == 0 || loop->turn_average < NO_AVERAGE)) {
            loop->turn_average = 0;
            return 0;
        }
    }
    else {
        loop->yielded_at = poll_clock();
        if (before != 0) {
            took = fmin(loop->yielded_at - before, LONG_TURN);
        }
    }
    loop->turn_average += (took - loop->turn_average) / TURNS;
    return loop->yielded_at != 0 && loop->turn_average > LONG_AVERAGE;
}

/* What was pushed behind so many entries goes before the yielding tasks at their end.  Everything else keeps its place:
   the first step of a task and a wake-up may be to pause or to cancel what the kernel tells of. */
static void
overtake_yielders(LoopObj *loop, size_t waiting)
{
    size_t yielders = 0;
    if (ring_length(&loop->ready) <= waiting) {
        return; // nothing came; or this loop ran in a signal handler
    }
    while (yielders < waiting && is_yielder(ring_at(&loop->ready, waiting - 1 - yielders))) {
        yielders++;
    }
    if (yielders > 0) {
        if (UNLIKELY(loop->observer != NULL)) {
            trace_overtake(loop, ring_length(&loop->ready) - waiting, yielders);
        }
        ring_overtake(&loop->ready, ring_length(&loop->ready) - waiting, yielders);
    }
}

#define MANY_TURNS 64 // after so many the time is noted, as if the loop had slept

static int
run_iteration(LoopObj *loop, PyThreadState *ts)
{
    size_t waiting = ring_length(&loop->ready);
    int compute = yielders_compute(loop);
    if (UNLIKELY((++loop->counters.iterations & (MANY_TURNS - 1)) == 0)) {
        moments_note(loop, clock_nanoseconds());
    }
    /* After an interruption the ring has what the kernel told of then, and would tell again. */
    if (LIKELY(!loop->interrupted || waiting == 0) && poll_events(loop, ts) < 0) {
        return -1;
    }
    if (loop->timers.length > 0 && push_due_timers(loop) < 0) {
        return -1;
    }
    if (UNLIKELY(compute)) {
        overtake_yielders(loop, waiting);
    }
    loop->runs_replaced = (char)handle_run_is_replaced(loop->st);
    return run_ready(loop, ts);
}

static int
run_once(LoopObj *loop, PyThreadState *ts)
{
    int status = run_iteration(loop, ts);
    loop->interrupted = status < 0;
    return status;
}

/* The time in which the loop runs is counted; a run within a run is part of that. */
static int64_t
begin_run(LoopObj *loop)
{
    int64_t outer = loop->counters.running_since;
    if (outer == 0) {
        loop->counters.running_since = clock_nanoseconds();
        watchdog_loop_works(loop);
    }
    if (UNLIKELY(loop->observer != NULL)) {
        trace_pause(loop);
    }
    return outer;
}

static void
end_run(LoopObj *loop, int64_t outer)
{
    if (outer == 0) {
        loop->counters.ran += clock_nanoseconds() - loop->counters.running_since;
        loop->counters.running_since = 0;
    }
}

/* ---- methods ---- */

PyDoc_STRVAR(run_doc,
"_run($self, /)\n--\n\n"
"Run iterations until stop() was called; what run_forever() does between its setting up and tidying away.");

static PyObject *
Loop_run(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    int status = 0;
    ctask_state *st = loop->st;
    PyThreadState *ts = PyThreadState_Get();
    if (context_pool_open(&st->base.contexts) < 0) {
        return NULL;
    }
    int64_t outer = begin_run(loop);
    do {
        if (UNLIKELY(loop_check_overrides(loop))) {
            PyObject *res = PyObject_CallMethodNoArgs(self, loop->st->str._run_once);
            Py_XDECREF(res);
            status = res == NULL ? -1 : 0;
        }
        else {
            status = run_once(loop, ts);
        }
    } while (status == 0 && !loop->stopping);
    end_run(loop, outer);
    PyObject *raised = PyErr_GetRaisedException();
    context_pool_clear(&st->base.contexts);
    PyErr_SetRaisedException(raised);
    if (current_flush(loop) < 0 || status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(run_once_doc,
"_run_once($self, /)\n--\n\n"
"Run one iteration: poll, then call what is ready and due.  (asyncio's base loop has it under this name.)");

static PyObject *
Loop_run_once(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    if (loop_check_open(loop) < 0) {
        return NULL;
    }
    int64_t outer = begin_run(loop);
    int status = run_once(loop, PyThreadState_Get());
    end_run(loop, outer);
    if (current_flush(loop) < 0 || status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef iterate_methods[] = {
    {"_run", Loop_run, METH_NOARGS, run_doc},
    {"_run_once", Loop_run_once, METH_NOARGS, run_once_doc},
    {NULL, NULL, 0, NULL},
};

PART int
iterate_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, iterate_methods);
}
