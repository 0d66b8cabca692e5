/* loop/: the loop (loop.c).  iterate.c and run.c run it, schedule.c fills it, watch.c and wake.c feed it from the
   kernel and from other threads; poll.h is what a poller has to do.

   It runs what is in the ring: handles, and the steps of tasks.  Sockets never come in, nor protocols: whoever waits
   for a descriptor gives an io_ready. */

#ifndef CTASK_LOOP_H
#define CTASK_LOOP_H

#include "loop/poll.h"
#include "tasks/tasks.h"

/* Arguments in the form (lead..., *args, context=None), as in call_later(delay, callback, *args).  All
   borrowed. */
typedef struct {
    PyObject *lead[2];
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context; // NULL if not given
} call_args;

PART int loop_setup(PyObject *module, ctask_state *st);
PART int fork_setup(PyObject *module, ctask_state *st);

/* ---- memory.c ---- */

PART char *loop_map_read_buffer(void);
PART void loop_unmap_read_buffer(char *buffer);
/* To be called before the loop sleeps.  Returns for how long at most: `timeout`, or less to come back to this once. */
PART int64_t memory_trim(LoopObj *loop, int64_t timeout);

/* READ_BUFFER_SIZE bytes to receive into, the taker's alone until they are given back: whoever receives in Python
   code that is called meanwhile gets others.  NULL with MemoryError set. */
static inline char *
loop_take_read_buffer(LoopObj *loop)
{
    char *buffer = loop->read_buffer;
    loop->read_buffer = NULL;
    if (UNLIKELY(buffer == NULL)) {
        buffer = loop_map_read_buffer();
    }
    return buffer;
}

static inline void
loop_give_read_buffer(LoopObj *loop, char *buffer)
{
    if (LIKELY(loop->read_buffer == NULL)) {
        loop->read_buffer = buffer;
    }
    else {
        loop_unmap_read_buffer(buffer);
    }
}

#define MAXIMUM_WAIT (24 * 3600.0) // seconds in the kernel, as asyncio's

/* ---- report.c ---- */

/* The handle that asyncio would have made for this entry: for reports, and for those who look at loop._ready.
   Borrows from the entry. */
PART PyObject *entry_as_handle(LoopObj *loop, ring_entry *entry);
PART int report_exception(LoopObj *loop, PyObject *handle);
PART int report_entry(LoopObj *loop, ring_entry *entry);
PART int report_slow(LoopObj *loop, PyObject *handle, double seconds);
/* Tell the exception handler what `callback(arg)` raised, as of a handle; `arg` may be NULL.  -1 for
   KeyboardInterrupt and SystemExit, which end the loop. */
PART int loop_report(LoopObj *loop, PyObject *callback, PyObject *arg);
/* loop.call_exception_handler(report), called as in an `except` clause that handles `exc`. */
PART PyObject *loop_tell_handler(ctask_state *st, PyObject *loop, PyObject *report, PyObject *exc);

/* ---- run.c, iterate.c, ready.c ---- */

PART int run_ready(LoopObj *loop, PyThreadState *ts);
PART int iterate_setup(PyObject *module, ctask_state *st);
PART int ready_setup(PyObject *module, ctask_state *st);

/* ---- schedule.c ---- */

/* The loop's clock in seconds: CLOCK_MONOTONIC, or an overridden time(), or what time.monotonic was replaced by. */
PART int loop_now(LoopObj *loop, double *now);
PART PyObject *loop_new_task(ctask_state *st, PyObject *loop, PyObject *coro);
PART int schedule_setup(PyObject *module, ctask_state *st);
PART int schedule_parse(call_args *out, const char *method, const char *const *names, int n_lead,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *schedule_soon(LoopObj *loop, int threadsafe, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

/* Is what create_task() of this loop (which is plain) returns just a new ctask.Task? */
PART int schedule_creates_tasks(LoopObj *loop);

/* ---- watch.c ---- */

PART int watch_setup(PyObject *module, ctask_state *st);
/* Have `ready(loop, owner)` called when `fd` is ready on that side (POLL_READ or POLL_WRITE), each time as
   long as it is; in place of an earlier watcher.  -errno if the kernel refuses the descriptor. */
PART int watch_object(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready);
/* End that, if it is `owner` that watches: the number may be another's by now.  No system call: the kernel hears of
   it when it next tells of the descriptor. */
PART void watch_forget(LoopObj *loop, int fd, uint32_t side, PyObject *owner);
/* From now until watch_disown() a transport that is about to call watch_own() has `fd` to itself. */
PART void watch_claim(LoopObj *loop, int fd, PyObject *owner);
/* For an object that owns `fd` until watch_disown(), and has `read_ready` called each time there is something to
   read.  -errno if the kernel refuses the descriptor. */
PART int watch_own(LoopObj *loop, int fd, PyObject *owner, io_ready read_ready);
/* To be called before `fd` is closed. */
PART void watch_disown(LoopObj *loop, int fd, PyObject *owner);
/* The transport that has `fd` to itself, borrowed; NULL if none does.  One whose socket was closed behind it has
   lost it, and is forgotten. */
PART PyObject *watch_owner(LoopObj *loop, int fd);
/* watch_object() for who is told once and asks again each time it waits.  One system call, and nothing is taken
   for granted of the descriptor: it may be another file than the last time. */
PART int watch_once(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready);
/* What to have called if the owner is a future: it is completed.  loop._sock_ready(fut) does the same. */
PART int watch_wake(LoopObj *loop, PyObject *fut);
/* End what `owner` watches on that side, and tell the kernel: before the descriptor is closed. */
PART void watch_stop(LoopObj *loop, int fd, uint32_t side, PyObject *owner);
PART int watch_traverse(LoopObj *loop, visitproc visit, void *arg);
PART void watch_clear(LoopObj *loop);

/* ---- wake.c ---- */

PART int wake_setup(PyObject *module, ctask_state *st);

#endif
