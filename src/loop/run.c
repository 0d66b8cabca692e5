/* Running what is ready: steps of tasks, callbacks in their contexts, handles, and what waits for descriptors.

   It takes from the ring what was in it when it began, and tells the exception handler what a callback raises
   (report.c).  iterate.c calls it, once an iteration. */

#include "handles/clock.h"
#include "loop/loop.h"
#include "loop/observer.h"
#include "loop/trace.h"
#include "tasks/done.h"

/* entry_forget() after it has run: what can be used again is kept. */
static inline __attribute__((always_inline)) void
entry_drop(LoopObj *loop, ring_entry *entry)
{
    if (ring_kind(entry) == READY_HANDLE) {
        handle_retire(loop, ring_subject(entry));
        return;
    }
    if (ring_kind(entry) == READY_TIMER) {
        timer_call *call = ring_subject(entry);
        PyObject *context = call->context;
        call->context = NULL;
        timer_call_free(call);
        context_drop(&loop->st->base.contexts, context);
        return;
    }
    Py_DECREF((PyObject *)ring_subject(entry));
    if (ring_kind(entry) >= READY_READ) {
        Py_XDECREF((PyObject *)entry->context);
        return; // its argument is a function
    }
    Py_XDECREF((PyObject *)entry->arg);
    if (entry->context != NULL) {
        context_drop(&loop->st->base.contexts, entry->context);
    }
}

/* The same for one that raised, where room for code is better kept for those that do not. */
static __attribute__((noinline)) void
entry_drop_failed(LoopObj *loop, ring_entry *entry)
{
    PyObject *raised = PyErr_GetRaisedException();
    entry_drop(loop, entry);
    PyErr_SetRaisedException(raised);
}

/* ---- callbacks and handles ---- */

/* context.run(callback, *args); returns -1 with what it raised. */
static inline __attribute__((always_inline)) int
run_in_context(LoopObj *loop, PyThreadState *ts, PyObject *context, PyObject *callback, PyObject *const *args,
               Py_ssize_t nargs)
{
    context_pool *pool = &loop->st->base.contexts;
    if (context_enter(pool, ts, context) < 0) {
        return -1;
    }
    PyObject *res = call_vector(callback, args, nargs);
    if (LIKELY(res != NULL)) {
        Py_DECREF(res);
        return context_exit(pool, ts, context);
    }
    PyObject *raised = PyErr_GetRaisedException();
    (void)context_exit(pool, ts, context);
    PyErr_SetRaisedException(raised);
    return -1;
}

/* callback(*args) in a context that is made of what was kept of it; returns -1 with what it raised. */
static inline __attribute__((always_inline)) int
run_call(LoopObj *loop, PyThreadState *ts, PyObject *callback, PyObject *args, PyObject **context)
{
    if (UNLIKELY(context_make(&loop->st->base.contexts, context) < 0)) {
        return -1;
    }
    return run_in_context(loop, ts, *context, callback, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args));
}

/* A handle that was cancelled, of asyncio's own class or a subclass, or a strange one: as asyncio runs it. */
static __attribute__((noinline)) int
run_other_handle(LoopObj *loop, PyObject *handle)
{
    int cancelled = handle_is_cancelled(handle);
    if (cancelled != 0) {
        return cancelled < 0 ? -1 : 0;
    }
    PyObject *res = PyObject_CallMethodNoArgs(handle, loop->st->str._run);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static inline __attribute__((always_inline)) int
run_own_handle(LoopObj *loop, PyThreadState *ts, PyObject *obj)
{
    HandleObj *handle = (HandleObj *)obj;
    if (UNLIKELY(context_make(&loop->st->base.contexts, &handle->context) < 0)) {
        return -1;
    }
    if (UNLIKELY(handle->cancelled != Py_False || handle->args == NULL || !PyTuple_CheckExact(handle->args) ||
                 handle->context == NULL || !PyContext_CheckExact(handle->context) ||
                 handle->callback == NULL)) {
        return run_other_handle(loop, obj);
    }
    /* The callback may cancel its own handle.  (Its context is held by the thread while it is entered.) */
    PyObject *callback = Py_NewRef(handle->callback);
    PyObject *arguments = Py_NewRef(handle->args);
    int status = run_in_context(
        loop, ts, handle->context, callback, &PyTuple_GET_ITEM(arguments, 0), PyTuple_GET_SIZE(arguments));
    if (UNLIKELY(status < 0)) {
        status = report_exception(loop, obj);
    }
    Py_DECREF(arguments);
    Py_DECREF(callback);
    return status;
}

#if THREADSAFE_HANDLES
/* Threads that want to cancel it wait from here on. */
static __attribute__((noinline)) int
run_threadsafe_handle(LoopObj *loop, PyThreadState *ts, PyObject *handle)
{
    if (threadsafe_enter(handle, loop->st) < 0) {
        return -1;
    }
    int status = run_own_handle(loop, ts, handle);
    threadsafe_leave(handle, loop->st);
    return status;
}
#endif

static int
run_handle(LoopObj *loop, PyThreadState *ts, PyObject *obj)
{
    if (UNLIKELY(loop->runs_replaced)) {
        return run_other_handle(loop, obj);
    }
    destructor dealloc = Py_TYPE(obj)->tp_dealloc;
    if (UNLIKELY(dealloc != handle_dealloc && dealloc != timer_dealloc)) {
#if THREADSAFE_HANDLES
        if (LIKELY(dealloc == threadsafe_dealloc)) {
            return run_threadsafe_handle(loop, ts, obj);
        }
#endif
        return run_other_handle(loop, obj);
    }
    return run_own_handle(loop, ts, obj);
}

/* ---- entries of the ring ---- */

/* In debug mode each callback is timed. */
static int
run_entry_timed(LoopObj *loop, PyThreadState *ts, ring_entry *entry)
{
    if (current_flush(loop) < 0) {
        return -1;
    }
    PyObject *handle = entry_as_handle(loop, entry);
    if (handle == NULL) {
        return -1;
    }
    int status = handle_is_cancelled(handle);
    if (status == 0) {
        double start, end;
        Py_XSETREF(loop->current_handle, Py_NewRef(handle));
        status = loop_now(loop, &start) < 0 ? -1 : run_handle(loop, ts, handle);
        if (status == 0) {
            status = loop_now(loop, &end) < 0 ? -1 : report_slow(loop, handle, end - start);
        }
        PyObject *raised = PyErr_GetRaisedException();
        Py_XSETREF(loop->current_handle, Py_NewRef(Py_None));
        PyErr_SetRaisedException(raised);
    }
    Py_DECREF(handle);
    return status < 0 ? -1 : 0;
}

/* What runs is to be seen by a function that was put in the place of Handle._run. */
static __attribute__((noinline)) int
run_entry_shown(LoopObj *loop, ring_entry *entry)
{
    PyObject *handle = current_flush(loop) < 0 ? NULL : entry_as_handle(loop, entry);
    if (handle == NULL) {
        return -1;
    }
    int status = run_other_handle(loop, handle);
    Py_DECREF(handle);
    return status;
}

static inline __attribute__((always_inline)) int
run_entry(LoopObj *loop, PyThreadState *ts, ring_entry *entry)
{
    PyObject *subject = ring_subject(entry);
    unsigned kind = ring_kind(entry);
    int status;
    if (UNLIKELY(loop->runs_otherwise)) {
        return loop->debug ? run_entry_timed(loop, ts, entry) : run_entry_shown(loop, entry);
    }
    if (kind == READY_HANDLE) {
        return UNLIKELY(current_flush(loop) < 0) ? -1 : run_handle(loop, ts, subject);
    }
    if (kind == READY_STEP) {
        status = task_run(loop, ts, (TaskObj *)subject, entry->arg, NULL);
    }
    else if (kind == READY_WAKE && LIKELY(task_is_exact(subject))) {
        status = task_run(loop, ts, (TaskObj *)subject, NULL, entry->arg);
    }
    else if (kind == READY_CALL && done_is(subject) && ((DoneObj *)subject)->silent && !loop->overridden &&
             future_is_exact(entry->arg)) {
        status = ((DoneObj *)subject)->function((DoneObj *)subject, entry->arg);
    }
    else {
        if (UNLIKELY(current_flush(loop) < 0)) {
            return -1;
        }
        if (kind == READY_APPLY) {
            status = run_call(loop, ts, subject, entry->arg, (PyObject **)&entry->context);
        }
        else if (kind == READY_TIMER) {
            timer_call *call = ring_subject(entry);
            status = run_call(loop, ts, call->callback, call->args, &call->context);
        }
        else if (kind >= READY_READ) {
            io_ready ready = (io_ready)entry->arg;
            status = ready(loop, subject);
        }
        else if (kind == READY_CALL) {
            PyObject *arg = entry->arg;
            status = run_in_context(loop, ts, entry->context, subject, &arg, 1);
        }
        else { /* see schedule_wakeup(): a callback that was given no context */
            PyObject *res = PyObject_CallOneArg(subject, entry->arg);
            Py_XDECREF(res);
            status = res == NULL ? -1 : 0;
        }
    }
    if (LIKELY(status == 0)) {
        return 0;
    }
    (void)current_flush(loop);
    return report_entry(loop, entry);
}

/* So many entries do not fit in the cache, with all that they refer to.  Each is fetched from memory while some
   others run before it: its subject first, and when that has come what it refers to.  (Always inlined: gcc takes a
   function that does nothing but this for one that does nothing.) */
#define FETCH_FROM 1024
#define FETCH_AHEAD 8

static inline __attribute__((always_inline)) void
fetch(const void *object, size_t size)
{
    uintptr_t start = (uintptr_t)object - sizeof(PyGC_Head); // of no object, perhaps: a number does no harm
    for (size_t i = 0; i < sizeof(PyGC_Head) + size; i += 64) {
        __builtin_prefetch((void *)(start + i), 1);
    }
}

static inline __attribute__((always_inline)) void
fetch_ahead(const ring *ready)
{
    const ring_entry *far = ring_at(ready, FETCH_AHEAD); // or a left-over, whose address does no harm
    fetch(ring_subject(far), sizeof(TaskObj));
    const ring_entry *near = ring_at(ready, FETCH_AHEAD / 2);
    if (ring_length(ready) <= FETCH_AHEAD / 2) {
        return;
    }
    if (ring_kind(near) == READY_TIMER) {
        return;
    }
    destructor dealloc = Py_TYPE((PyObject *)ring_subject(near))->tp_dealloc;
    if (dealloc == task_dealloc) {
        fetch(((const TaskObj *)ring_subject(near))->coro, 192);
    }
    else if (dealloc == handle_dealloc || dealloc == timer_dealloc) {
        /* Its neighbours in the collector's list, out of which it will be taken. */
        const PyGC_Head *head = (const PyGC_Head *)ring_subject(near) - 1;
        __builtin_prefetch((void *)(head->_gc_next & ~(uintptr_t)3), 1);
        __builtin_prefetch((void *)(head->_gc_prev & ~(uintptr_t)3), 1);
    }
    if (ring_kind(near) == READY_WAKE) {
        fetch(near->arg, sizeof(FutureObj));
    }
}

/* What is left of a turn, and whether it is over because something raised. */
typedef struct {
    size_t n;
    int status;
} turn_rest;

/* An entry begins to run at `clock`, which is read if it was not when the one before it ended (0). */
static __attribute__((noinline)) int64_t
measure_begin(LoopObj *loop, int64_t clock)
{
    if (clock == 0) {
        clock = clock_nanoseconds();
        observer_mark_pushed(loop, clock);
    }
    observer_starts(loop, clock);
    return clock;
}

static __attribute__((noinline)) int64_t
measure_end(LoopObj *loop, const ring_entry *entry, int64_t began)
{
    unsigned kind = ring_kind(entry);
    int is_step = kind == READY_STEP || (kind == READY_WAKE && task_is_exact(ring_subject(entry)));
    int64_t ended = clock_nanoseconds();
    observer_ran(loop, is_step, began, ended);
    return ended;
}

/* run_entry(), measured and traced. */
static inline __attribute__((always_inline)) int
run_entry_observed(LoopObj *loop, PyThreadState *ts, ring_entry *entry, int64_t *clock, trace_slice *slice)
{
    char measured = loop->observer->measuring;
    *clock = UNLIKELY(measured) ? measure_begin(loop, *clock) : 0;
    if (LIKELY(loop->observer->traced.trace != NULL)) {
        trace_begin(loop, entry, slice);
    }
    int status = run_entry(loop, ts, entry);
    trace_end(loop, slice, status < 0);
    if (UNLIKELY(measured)) {
        *clock = measure_end(loop, entry, *clock);
    }
    return status;
}

/* At most n entries, as long as the loop has an observer. */
static __attribute__((noinline)) turn_rest
run_observed(LoopObj *loop, PyThreadState *ts, size_t n, int many)
{
    int64_t clock = 0; // when the entry before ended, if that was measured
    trace_slice slice;
    slice.owned = NULL;
    trace_turn(loop);
    for (; n > 0 && ring_length(&loop->ready) > 0 && loop->observer != NULL; n--) {
        if (UNLIKELY(many)) {
            fetch_ahead(&loop->ready);
        }
        ring_entry entry = ring_pop(&loop->ready);
        int status = run_entry_observed(loop, ts, &entry, &clock, &slice);
        if (UNLIKELY(loop->corked != NULL)) {
            loop->uncork(loop);
        }
        if (UNLIKELY(status < 0)) {
            entry_drop_failed(loop, &entry);
            return (turn_rest){n - 1, -1};
        }
        entry_drop(loop, &entry);
    }
    return (turn_rest){n, 0};
}

/* Run what is ready now; what is pushed meanwhile waits for the next iteration. */
PART int
run_ready(LoopObj *loop, PyThreadState *ts)
{
    size_t n = ring_length(&loop->ready), all = n;
    loop->trimmed &= n == 0;
    int many = n >= FETCH_FROM, status = 0;
    PyThreadState *outer = loop->draining; // of a loop that was made to nest
    loop->draining = ts;
    while (n > 0 && ring_length(&loop->ready) > 0) {
        if (UNLIKELY(loop->observer != NULL)) {
            turn_rest rest = run_observed(loop, ts, n, many);
            n = rest.n;
            status = rest.status;
            if (status < 0) {
                break;
            }
            continue;
        }
        if (UNLIKELY(many)) {
            fetch_ahead(&loop->ready);
        }
        ring_entry entry = ring_pop(&loop->ready);
        n--;
        status = run_entry(loop, ts, &entry);
        if (UNLIKELY(loop->corked != NULL)) {
            loop->uncork(loop);
        }
        if (UNLIKELY(status < 0)) {
            entry_drop_failed(loop, &entry);
            break;
        }
        entry_drop(loop, &entry);
    }
    loop->counters.callbacks += all - n;
    loop->draining = outer;
    if (LIKELY(status == 0)) {
        ring_trim(&loop->ready);
    }
    return status;
}
