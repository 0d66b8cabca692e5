/* The loop: one iteration after the other.

       drain what is ready --> ask the heap how long to wait --> poll --> push what is due --> drain ...

   It owns the ring, the heap and the descriptors' handles.  What runs once per program (executors, shutdown
   of async generators, the exception handler, start and end of run_forever()) is asyncio's, inherited by
   ctask.EventLoop, which is this type over asyncio.SelectorEventLoop. */

#include "loop/blocking.h"
#include "loop/loop.h"
#include "tasks/done.h"

#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the ready queue ---- */

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
        return; // its argument is a function
    }
    Py_XDECREF((PyObject *)entry->arg);
    if (entry->context != NULL) {
        context_drop(&loop->st->base.contexts, entry->context);
    }
}

/* The time of an entry of the kind READY_TIMER. */
static double
entry_when(const ring_entry *entry)
{
    static_assert(sizeof(double) == sizeof(void *), "a time fits in a word of the ring");
    double when;
    memcpy(&when, &entry->arg, sizeof(when));
    return when;
}

PART PyObject *
entry_as_handle(LoopObj *loop, ring_entry *entry)
{
    if (ring_kind(entry) == READY_TIMER) {
        return (PyObject *)timer_of_call(loop, entry_when(entry), ring_subject(entry));
    }
    PyObject *subject = ring_subject(entry);
    PyObject *callback, *context = entry->context;
    PyObject *arg = entry->arg;
    if (ring_kind(entry) == READY_STEP || (ring_kind(entry) == READY_WAKE && task_is_exact(subject))) {
        context = task_context((TaskObj *)subject, loop->st);
        if (context == NULL) {
            return NULL;
        }
    }
    switch (ring_kind(entry)) {
    case READY_HANDLE:
        return Py_NewRef(subject);
    case READY_APPLY:
        return (PyObject *)handle_create(
            loop, subject, &PyTuple_GET_ITEM(arg, 0), PyTuple_GET_SIZE(arg), context, 0);
    case READY_STEP:
        callback = task_step_callback((TaskObj *)subject, loop->st, arg);
        arg = NULL;
        break;
    case READY_WAKE:
        callback = task_is_exact(subject) ? task_wakeup_callback((TaskObj *)subject) : Py_NewRef(subject);
        break;
    case READY_READ:
    case READY_WRITE:
        if ((io_ready)(void *)arg == watch_wake) {
            callback = PyObject_GetAttrString((PyObject *)loop, "_sock_ready");
            arg = subject;
            break;
        }
        callback = PyObject_GetAttr(
            subject, ring_kind(entry) == READY_READ ? loop->st->str._read_ready : loop->st->str._write_ready);
        arg = NULL;
        break;
    default:
        callback = Py_NewRef(subject);
        break;
    }
    if (callback == NULL) {
        return NULL;
    }
    HandleObj *handle = handle_create(loop, callback, &arg, arg == NULL ? 0 : 1, context, 0);
    Py_DECREF(callback);
    return (PyObject *)handle;
}

/* ---- running callbacks ---- */

/* Where the handle was made, for the exception handler: any object, as anybody may have set it. */
static int
report_source(ctask_state *st, PyObject *context, PyObject *source)
{
    Py_XINCREF(source);
    int status = source == NULL ? 0 : PyObject_IsTrue(source);
    if (status > 0) {
        status = PyDict_SetItem(context, st->str.source_traceback, source);
    }
    Py_XDECREF(source);
    return status;
}

/* A callback raised.  SystemExit and KeyboardInterrupt end the loop (-1, still set); all else goes to the
   exception handler, in the words of asyncio.Handle. */
static int
report_exception(LoopObj *loop, PyObject *handle)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        return -1;
    }
    ctask_state *st = loop->st;
    PyObject *exc = PyErr_GetRaisedException();
    HandleObj *h = (HandleObj *)handle;
    PyObject *callback = Py_NewRef(h->callback == NULL ? Py_None : h->callback);
    PyObject *arguments = Py_NewRef(h->args == NULL ? Py_None : h->args);
    PyObject *source = NULL, *message = NULL, *context = NULL, *res = NULL;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *keywords = PyTuple_Pack(1, st->str.debug);
    PyObject *stack[] = {callback, arguments, loop->debug ? Py_True : Py_False};
    if (keywords != NULL) {
        source = PyObject_Vectorcall(st->format_callback_source, stack, 2, keywords);
        Py_DECREF(keywords);
    }
#else
    PyObject *stack[] = {callback, arguments};
    source = PyObject_Vectorcall(st->format_callback_source, stack, 2, NULL);
#endif
    if (source != NULL) {
        message = PyUnicode_FromFormat("Exception in callback %U", source);
        Py_DECREF(source);
    }
    if (message != NULL) {
        context = PyDict_New();
    }
    if (context != NULL && PyDict_SetItem(context, st->str.message, message) == 0 &&
        PyDict_SetItem(context, st->str.exception, exc) == 0 &&
        PyDict_SetItem(context, st->str.handle, handle) == 0 &&
        report_source(st, context, h->source_traceback) == 0) {
        res = PyObject_CallMethodOneArg((PyObject *)loop, st->str.call_exception_handler, context);
    }
    Py_XDECREF(context);
    Py_XDECREF(message);
    Py_DECREF(arguments);
    Py_DECREF(callback);
    Py_DECREF(exc);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
loop_report(LoopObj *loop, PyObject *callback, PyObject *arg)
{
    PyObject *raised = PyErr_GetRaisedException();
    HandleObj *handle = handle_create(loop, callback, &arg, arg == NULL ? 0 : 1, NULL, 0);
    if (handle == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    PyErr_SetRaisedException(raised);
    int status = report_exception(loop, (PyObject *)handle);
    Py_DECREF(handle);
    return status;
}

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

/* asyncio's warning about a callback that took longer than loop.slow_callback_duration. */
static int
log_if_slow(LoopObj *loop, PyObject *handle, double seconds)
{
    ctask_state *st = loop->st;
    int result = -1;
    PyObject *slow = NULL, *text = NULL, *res = NULL;
    PyObject *limit = PyObject_GetAttr((PyObject *)loop, st->str.slow_callback_duration);
    PyObject *took = PyFloat_FromDouble(seconds);
    if (limit == NULL || took == NULL || (slow = PyObject_RichCompare(took, limit, Py_GE)) == NULL) {
        goto finally;
    }
    result = PyObject_IsTrue(slow);
    if (result > 0) {
        text = PyObject_CallOneArg(st->format_handle, handle);
        if (text != NULL) {
            res = PyObject_CallMethod(
                st->logger, "warning", "sOO", "Executing %s took %.3f seconds", text, took);
        }
        result = res == NULL ? -1 : 0;
    }
finally:
    Py_XDECREF(res);
    Py_XDECREF(text);
    Py_XDECREF(slow);
    Py_XDECREF(took);
    Py_XDECREF(limit);
    return result;
}

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
            status = loop_now(loop, &end) < 0 ? -1 : log_if_slow(loop, handle, end - start);
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

static int
run_entry(LoopObj *loop, PyThreadState *ts, ring_entry *entry)
{
    PyObject *subject = ring_subject(entry);
    unsigned kind = ring_kind(entry);
    int status;
    if (UNLIKELY(loop->debug)) {
        return run_entry_timed(loop, ts, entry);
    }
    if (UNLIKELY(loop->runs_replaced)) {
        return run_entry_shown(loop, entry);
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
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        return -1;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *handle = entry_as_handle(loop, entry);
    if (handle == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    PyErr_SetRaisedException(raised);
    status = report_exception(loop, handle);
    Py_DECREF(handle);
    return status;
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

/* Run what is ready now; what is pushed meanwhile waits for the next iteration. */
static int
drain(LoopObj *loop, PyThreadState *ts)
{
    size_t n = ring_length(&loop->ready);
    loop->trimmed &= n == 0;
    int many = n >= FETCH_FROM, status = 0;
    PyThreadState *outer = loop->draining; // of a loop that was made to nest
    loop->draining = ts;
    while (n-- > 0 && ring_length(&loop->ready) > 0) {
        if (UNLIKELY(many)) {
            fetch_ahead(&loop->ready);
        }
        ring_entry entry = ring_pop(&loop->ready);
        status = run_entry(loop, ts, &entry);
        if (UNLIKELY(loop->corked != NULL)) {
            loop->uncork(loop);
        }
        if (UNLIKELY(status < 0)) {
            PyObject *raised = PyErr_GetRaisedException();
            entry_drop(loop, &entry);
            PyErr_SetRaisedException(raised);
            break;
        }
        entry_drop(loop, &entry);
    }
    loop->draining = outer;
    if (LIKELY(status == 0)) {
        ring_trim(&loop->ready);
    }
    return status;
}

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

/* ---- memory that goes back ---- */

/* What was read are blocks of the C library's heap, which gives back by itself what is free at its end only: one
   small block that stays keeps all that is below it.  (In asyncio each large message is a mapping of its own, at the
   price of two system calls and a trap for every page.)  So when the heap has grown by so much, its free pages are
   given back before the loop sleeps: at most so often, never for more than a fiftieth of the time, and again only when
   the process has taken so many pages since, as a heap in many pieces takes long though there is nothing to gain. */
#define HEAP_IS_LARGE (16 << 20)
#define WORTH_TRIMMING (8 << 20)
#define TRIM_SECONDS 0.25
#define TRIM_SHARE 50

#ifdef __GLIBC__
/* The pages of the process that are in memory (proc_pid_statm(5)); 0 if that cannot be read. */
static long
resident_pages(void)
{
    char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = 0;
    const char *second = strchr(text, ' ');
    return second == NULL ? 0 : strtol(second, NULL, 10);
}
#endif

/* Returns for how long to sleep at most: `timeout`, or less to come back to this once. */
static int64_t
trim_heap(LoopObj *loop, int64_t timeout)
{
#ifdef __GLIBC__
    if (LIKELY((char *)sbrk(0) - loop->heap_end < HEAP_IS_LARGE || loop->trimmed)) {
        return timeout;
    }
    double now = poll_clock();
    if (now < loop->trim_at) {
        int64_t wait = (int64_t)((loop->trim_at - now) * 1e9) + 1;
        return (uint64_t)wait < (uint64_t)timeout ? wait : timeout; // -1 is without end
    }
    long pages = resident_pages();
    if (pages == 0 || pages - loop->trimmed_to >= WORTH_TRIMMING / sysconf(_SC_PAGESIZE)) {
        (void)malloc_trim(0);
        loop->trimmed_to = resident_pages();
    }
    double end = poll_clock();
    loop->trim_at = end + fmax(TRIM_SECONDS, TRIM_SHARE * (end - now));
    loop->trimmed = 1;
#endif
    return timeout;
}

/* Ask the kernel, in each iteration as asyncio does, and wait if there is nothing to do. */
static int
poll_events(LoopObj *loop, PyThreadState *ts)
{
    int64_t timeout = 0;
    if (ring_length(&loop->ready) > 0) {
        if (LIKELY(loop->poll.watched == 0)) {
            return breathe(ts); // the kernel has nothing to tell
        }
    }
    else if (!loop->stopping && time_to_wait(loop, &timeout) < 0) {
        return -1;
    }
    if (timeout == 0) {
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
    return poll_wait(loop, trim_heap(loop, timeout));
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
        ring_overtake(&loop->ready, ring_length(&loop->ready) - waiting, yielders);
    }
}

static int
run_iteration(LoopObj *loop, PyThreadState *ts)
{
    size_t waiting = ring_length(&loop->ready);
    int compute = yielders_compute(loop);
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
    return drain(loop, ts);
}

static int
run_once(LoopObj *loop, PyThreadState *ts)
{
    int status = run_iteration(loop, ts);
    loop->interrupted = status < 0;
    return status;
}

/* ---- the buffer that is received into ---- */

/* Not malloc's: in the middle of its heap it would keep all that is freed below it from going back. */
PART char *
loop_map_read_buffer(void)
{
    /* Freeing a block that was mapped for itself raises glibc's thresholds (mallopt(3), M_MMAP_THRESHOLD): with
       those it starts from, each large message takes memory from the kernel and gives it back.  In asyncio the
       first recv() of 256 KiB does this; 4 MiB, so that up to 8 stay, also serves a hundred connections with
       100 KiB each. */
    PyMem_RawFree(PyMem_RawMalloc(16 * READ_BUFFER_SIZE));
    void *buffer = mmap(NULL, READ_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        PyErr_NoMemory();
        return NULL;
    }
    return buffer;
}

PART void
loop_unmap_read_buffer(char *buffer)
{
    if (buffer != NULL) {
        munmap(buffer, READ_BUFFER_SIZE);
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
    int status = run_once(loop, PyThreadState_Get());
    if (current_flush(loop) < 0 || status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static void
spare_drop(spare_list *spare)
{
    while (spare->length > 0) {
        Py_DECREF(spare->handles[--spare->length]);
    }
}

static int
spare_traverse(spare_list *spare, visitproc visit, void *arg)
{
    for (int i = 0; i < spare->length; i++) {
        Py_VISIT(spare->handles[i]);
    }
    return 0;
}

/* Let go of all work and of the descriptors; the object stays usable for questions. */
static void
release(LoopObj *loop)
{
    loop->is_open = 0;
    loop_forget_ready(loop);
    while (loop->timers.length > 0) {
        loop->last_timer = NULL; // each time: what is let go may open the loop again, and set another
        (void)timers_first(&loop->timers);
        heap_node *node = timers_pop(&loop->timers);
        if (timer_call_of(node) != NULL) {
            timer_call_free(timer_call_of(node));
        }
        else {
            Py_DECREF(list_entry(node, TimerObj, node));
        }
    }
    spare_drop(&loop->spare);
#if THREADSAFE_HANDLES
    spare_drop(&loop->spare_threadsafe);
#endif
    watch_clear(loop);
}

PyDoc_STRVAR(release_doc,
"_release($self, /)\n--\n\n"
"Forget everything that is scheduled and close the poller's descriptors; the end of close().");

static PyObject *
Loop_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    if (!loop->poll.asking) {
        release(loop);
        blocking_let_all_go(loop->st, loop);
    }
    if (loop->poll.asking) { // or does now, as letting go may run anything
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    poll_close(&loop->poll);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(check_closed_doc, "_check_closed($self, /)\n--\n\nRaise RuntimeError if the loop is closed.");

static PyObject *
Loop_check_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_check_open((LoopObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_closed_doc,
"is_closed($self, /)\n--\n\nReturn True if the loop was closed.  (asyncio.loop.is_closed)");

static PyObject *
Loop_is_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!((LoopObj *)self)->is_open);
}

PyDoc_STRVAR(is_running_doc,
"is_running($self, /)\n--\n\nReturn True while the loop runs.  (asyncio.loop.is_running)");

static PyObject *
Loop_is_running(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LoopObj *)self)->thread_ident != Py_None);
}

PyDoc_STRVAR(get_debug_doc,
"get_debug($self, /)\n--\n\nReturn whether the loop is in debug mode.  (asyncio.loop.get_debug)");

static PyObject *
Loop_get_debug(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *value = ((LoopObj *)self)->debug_value;
    return Py_NewRef(value == NULL ? Py_False : value); // the collector has cleared it
}

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Have run_forever() return after the iteration that runs.  (asyncio.loop.stop)");

static PyObject *
Loop_stop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ((LoopObj *)self)->stopping = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(adopt_methods_doc,
"_adopt_methods($self, /)\n--\n\n"
"Give this class method objects of its own for the methods of _ctask.Loop that it does not override.\n\n"
"The interpreter calls a C method without detour only if it belongs to the very class of the object.");

static PyObject *
Loop_adopt_methods(PyObject *cls, PyObject *Py_UNUSED(ignored))
{
    PyObject *module = PyType_GetModuleByDef((PyTypeObject *)cls, &ctask_module);
    if (module == NULL) {
        return NULL;
    }
    ctask_state *st = PyModule_GetState(module);
    static const char *const names[] = {"call_soon",
                                        "call_later",
                                        "call_at",
                                        "call_soon_threadsafe",
                                        "time",
                                        "create_future",
                                        "create_task",
                                        "get_debug"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *ours = PyObject_GetAttrString((PyObject *)st->LoopType, names[i]);
        PyObject *theirs = ours == NULL ? NULL : PyObject_GetAttrString(cls, names[i]);
        PyObject *method = NULL;
        PyMethodDef *def = theirs != NULL && theirs == ours ? loop_method_behind(st, ours) : NULL;
        if (def != NULL) {
            method = PyDescr_NewMethod((PyTypeObject *)cls, def);
            if (method != NULL && PyObject_SetAttrString(cls, names[i], method) < 0) {
                Py_CLEAR(method);
            }
        }
        int failed = theirs == NULL || (def != NULL && method == NULL);
        Py_XDECREF(method);
        Py_XDECREF(theirs);
        Py_XDECREF(ours);
        if (failed) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"_adopt_methods", Loop_adopt_methods, METH_NOARGS | METH_CLASS, adopt_methods_doc},
    {"_run", Loop_run, METH_NOARGS, run_doc},
    {"_run_once", Loop_run_once, METH_NOARGS, run_once_doc},
    {"_release", Loop_release, METH_NOARGS, release_doc},
    {"_check_closed", Loop_check_closed, METH_NOARGS, check_closed_doc},
    {"is_closed", Loop_is_closed, METH_NOARGS, is_closed_doc},
    {"is_running", Loop_is_running, METH_NOARGS, is_running_doc},
    {"get_debug", Loop_get_debug, METH_NOARGS, get_debug_doc},
    {"stop", Loop_stop, METH_NOARGS, stop_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- the private attributes that asyncio's own methods, and a few libraries, use ---- */

/* The handle of a timer, borrowed.  One that is made for a call which has lost its own takes its place. */
static TimerObj *
timer_show(LoopObj *loop, const heap_item *item)
{
    timer_call *call = timer_call_of(item->node);
    if (call == NULL) {
        return list_entry(item->node, TimerObj, node);
    }
    TimerObj *timer = timer_of_call(loop, item->when, call);
    if (timer != NULL) {
        timers_replace(&loop->timers, item->when, &call->node, &timer->node);
        timer->node.order &= ~(uint32_t)1;
        timer_call_free(call);
    }
    return timer;
}

static int
timer_compare(const void *first, const void *second)
{
    TimerObj *a = *(TimerObj *const *)first, *b = *(TimerObj *const *)second;
    heap_item one = {a->when_seconds, &a->node}, other = {b->when_seconds, &b->node};
    return heap_before(&one, &other) ? -1 : heap_before(&other, &one);
}

/* In their order: asyncio's list is a heap, and who takes the first from it (nest_asyncio) expects the next there. */
static PyObject *
Loop_get_scheduled(PyObject *self, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    PyObject *handles = PyList_New(0);
    int collects = PyGC_Disable();
    timers_cursor cursor = {0};
    const heap_bag *bag;
    while (handles != NULL && (bag = timers_next_bag(&loop->timers, &cursor)) != NULL) {
        for (size_t i = 0; handles != NULL && i < bag->length; i++) {
            TimerObj *timer = timer_show(loop, &bag->items[i]);
            if (timer == NULL || PyList_Append(handles, (PyObject *)timer) < 0) {
                Py_CLEAR(handles);
            }
        }
    }
    if (handles != NULL && PyList_GET_SIZE(handles) > 0) {
        PyObject **items = ((PyListObject *)handles)->ob_item;
        qsort(items, (size_t)PyList_GET_SIZE(handles), sizeof(PyObject *), timer_compare);
    }
    if (collects) {
        PyGC_Enable();
    }
    return handles;
}

/* asyncio's __init__ puts an empty queue there. */
static int
Loop_ignore(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), void *Py_UNUSED(closure))
{
    return 0;
}

static int
set_flag(char *flag, PyObject *value)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    *flag = (char)truth;
    return 0;
}

static PyObject *
Loop_get_stopping(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObj *)self)->stopping);
}

static int
Loop_set_stopping(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_flag(&((LoopObj *)self)->stopping, value);
}

static PyObject *
Loop_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!((LoopObj *)self)->is_open);
}

static int
Loop_set_closed(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    char closed;
    if (set_flag(&closed, value) < 0) {
        return -1;
    }
    loop->is_open = !closed && loop->poll.fd >= 0;
    return 0;
}

static PyObject *
Loop_get_debug_value(PyObject *self, void *Py_UNUSED(closure))
{
    return Loop_get_debug(self, NULL);
}

static int
Loop_set_debug_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    if (set_flag(&loop->debug, value) < 0) {
        return -1;
    }
    Py_XSETREF(loop->debug_value, Py_NewRef(value == NULL ? Py_False : value));
    return 0;
}

/* An owned field that reads as None when empty. */
static PyObject *
get_field(PyObject *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (size_t)offset);
    return Py_NewRef(value == NULL ? Py_None : value);
}

static int
set_field(PyObject *self, PyObject *value, void *offset)
{
    PyObject **field = (PyObject **)((char *)self + (size_t)offset);
    Py_XSETREF(*field, Py_NewRef(value == NULL ? Py_None : value));
    return 0;
}

#define FIELD(name, field) {name, get_field, set_field, NULL, (void *)offsetof(LoopObj, field)}

static PyGetSetDef loop_getset[] = {
    {"_scheduled", Loop_get_scheduled, Loop_ignore, NULL, NULL},
    {"_stopping", Loop_get_stopping, Loop_set_stopping, NULL, NULL},
    {"_closed", Loop_get_closed, Loop_set_closed, NULL, NULL},
    {"_debug", Loop_get_debug_value, Loop_set_debug_value, NULL, NULL},
    FIELD("_thread_id", thread_ident),
    FIELD("_task_factory", task_factory),
    FIELD("_current_handle", current_handle),
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- life ---- */

static PyObject *
Loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    LoopObj *loop = (LoopObj *)instance_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    timers_init(&loop->timers);
    loop->poll = (poll_state){.fd = -1, .wake_fd = -1};
    loop->task_factory = Py_NewRef(Py_None);
    loop->current_handle = Py_NewRef(Py_None);
    loop->thread_ident = Py_NewRef(Py_None);
    loop->debug_value = Py_NewRef(Py_False);
    PyObject *module = PyType_GetModuleByDef(type, &ctask_module);
    if (module == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    loop->st = PyModule_GetState(module);
    int err = poll_open(&loop->poll, &loop->st->loop.forks);
    if (err < 0) {
        Py_DECREF(loop);
        return poll_raise(err);
    }
    loop->heap_end = sbrk(0);
    loop->is_open = 1;
    return (PyObject *)loop;
}

static int
call_traverse(const timer_call *call, visitproc visit, void *arg)
{
    Py_VISIT(call->callback);
    Py_VISIT(call->args);
    Py_VISIT(call->context);
    return 0;
}

static int
Loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    LoopObj *loop = (LoopObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->corked);
    Py_VISIT(loop->current_handle);
    Py_VISIT(loop->thread_ident);
    Py_VISIT(loop->debug_value);
    Py_VISIT(loop->transports);
    for (size_t i = 0; i < ring_length(&loop->ready); i++) {
        ring_entry *entry = ring_at(&loop->ready, i);
        if (ring_kind(entry) == READY_TIMER) {
            int stop = call_traverse(ring_subject(entry), visit, arg);
            if (stop != 0) {
                return stop;
            }
            continue;
        }
        Py_VISIT((PyObject *)ring_subject(entry));
        if (ring_kind(entry) < READY_READ) {
            Py_VISIT((PyObject *)entry->arg);
        }
        Py_VISIT((PyObject *)entry->context);
    }
    int stop = spare_traverse(&loop->spare, visit, arg);
#if THREADSAFE_HANDLES
    if (stop == 0) {
        stop = spare_traverse(&loop->spare_threadsafe, visit, arg);
    }
#endif
    if (stop != 0) {
        return stop;
    }
    timers_cursor cursor = {0};
    const heap_bag *bag;
    while ((bag = timers_next_bag(&loop->timers, &cursor)) != NULL) {
        for (size_t i = 0; i < bag->length; i++) {
            const timer_call *call = timer_call_of(bag->items[i].node);
            if (call == NULL) {
                Py_VISIT((PyObject *)list_entry(bag->items[i].node, TimerObj, node));
            }
            else if ((stop = call_traverse(call, visit, arg)) != 0) {
                return stop;
            }
        }
    }
    return watch_traverse(loop, visit, arg);
}

static int
Loop_clear(PyObject *self)
{
    LoopObj *loop = (LoopObj *)self;
    release(loop);
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->corked);
    Py_CLEAR(loop->current_handle);
    Py_CLEAR(loop->thread_ident);
    Py_CLEAR(loop->debug_value);
    Py_CLEAR(loop->transports);
    return 0;
}

static void
Loop_dealloc(PyObject *self)
{
    LoopObj *loop = (LoopObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)Loop_clear(self);
    poll_close(&loop->poll);
    loop_unmap_read_buffer(loop->read_buffer);
    free(loop->ready.entries);
    timers_free(&loop->timers);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Loop_doc,
"The part of the event loop that is C: running, scheduling, timers, polling, waking.\n\n"
"ctask.EventLoop puts it in front of asyncio.SelectorEventLoop; it is no loop by itself.");

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, (void *)Loop_doc},
    {Py_tp_new, Loop_new},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_traverse, Loop_traverse},
    {Py_tp_clear, Loop_clear},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

static PyType_Spec Loop_spec = {
    .name = "ctask._ctask.Loop",
    .basicsize = sizeof(LoopObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Loop_slots,
};

PART int
loop_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, "Loop", &st->LoopType, &Loop_spec, NULL);
}
