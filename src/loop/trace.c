/* What loops do, kept in a ring while somebody traces: steps, callbacks, polls, collections, who pushed what.

   run.c, iterate.c, poll_epoll.c, wake.c, and tasks/ by functions in the module's state, tell of it here while a loop has
   an observer.  One ring of records of one size is for all loops of an interpreter; the youngest take the place of the
   oldest.  Who woke whom costs nothing when it is pushed: a record has the position in its loop's ready queue that it
   ran from, and how far the queue had come when it ended; what was pushed in between is its doing.

   Places are labels (labels.c).  Nothing here keeps a task alive: a record has at most the name of a task that is done.
   Nothing here runs Python code but trace_begin(), for a partial, and the functions of the module; memory comes from
   the system, so that no collection begins in between. */

#include "loop/trace.h"

#include "handles/clock.h"
#include "loop/labels.h"
#include "tasks/done.h"
#include "tasks/tasks.h"

#include <sys/mman.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

enum {
    KIND_STEP = 1,
    KIND_CALLBACK,
    KIND_EAGER, // a step within what runs
    KIND_TASK, // is new; `extra` is whose step made it
    KIND_POLL, // `extra` is how many descriptors the kernel told of
    KIND_TIMER, // was pushed at `position`, `extra` nanoseconds late
    KIND_THREAD, // another one pushed at `position`
    KIND_COLLECTION, // of the generation `extra`
    KIND_OVERTAKE, // of what ends at `tail`, the last `extra` entries go before the `serial` before them
    KIND_OUTSIDE, // what was pushed up to `tail` was pushed by nobody known
};

enum {
    ENDED_WAITING, // for the task `extra`, if that is not 0, or for what the label says
    ENDED_YIELDING, // it let others run
    ENDED_RETURNED,
    ENDED_RAISED,
    ENDED_CANCELLED,
    ENDED_NOT, // it ran on when the trace ended
    ENDED_UNSEEN, // it had begun before the trace, and ended about then
    ENDED_OWNS = 0x80, // beside one of these: `extra` is the task's name, owned; a str
    ENDED_NUMBERED = 0x40, // beside one of these: `extra` is the number that the task is named after
};

typedef struct {
    uint64_t began; // ticks
    uint64_t ended;
    uint64_t serial; // of the task, or what the kind says
    uint64_t extra; // what the kind and the end say
    uint32_t position; // in the ready queue, of what ran
    uint32_t tail; // of the ready queue, then
    uint32_t label; // 0: none, or there were too many
    uint16_t loop; // its number in this trace
    uint8_t kind;
    uint8_t end;
} trace_record; // ctask/observe/timeline.py reads it

#define LEAST_RECORDS 256
#define MOST_BYTES ((Py_ssize_t)1 << 39) // no machine has them
#define MAX_LOOPS UINT16_MAX // the last number is no loop's

struct trace {
    trace_record *records; // a ring in what is mapped
    void *mapped; // owned
    trace_record *next; // where the next is written
    trace_record *limit; // the end of the ring
    size_t capacity;
    uint64_t rounds; // times that the ring was full
    uint64_t number; // of traces of this interpreter
    uint64_t collects_since; // ticks; 0 while no collection runs
    int64_t began_clock; // nanoseconds
    uint64_t began_ticks;
    char no_ticks; // the clock is read instead
    struct labels labels;
    unsigned long *threads; // owned; which runs each loop
    unsigned n_loops;
    unsigned room_for_loops;
};

/* ---- records ---- */

static inline uint64_t
ticks_now(const struct trace *trace)
{
    if (UNLIKELY(trace->no_ticks)) {
        return (uint64_t)clock_nanoseconds();
    }
#if defined(__x86_64__) || defined(__i386__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)clock_nanoseconds();
#endif
}

/* Whether ticks_now() has to read the clock: the processor's counter changes its rate. */
static char
has_no_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    unsigned a, b, c, d = 0;
    return !__get_cpuid(0x80000007, &a, &b, &c, &d) || (d & (1 << 8)) == 0;
#else
    return 0;
#endif
}

/* The place of the next, whose fields are all to be set. */
static inline trace_record *
next_record(struct trace *trace)
{
    trace_record *place = trace->next;
    if (UNLIKELY(place->end & ENDED_OWNS)) {
        Py_DECREF((PyObject *)(uintptr_t)place->extra);
    }
    if (UNLIKELY(++trace->next == trace->limit)) {
        trace->next = trace->records;
        trace->rounds++;
    }
    return place;
}

static inline void
write_record(struct trace *trace, trace_record record)
{
    *next_record(trace) = record;
}

static inline loop_trace *
traced(LoopObj *loop)
{
    return loop->observer != NULL && loop->observer->traced.trace != NULL ? &loop->observer->traced : NULL;
}

/* The serial of what is awaited, if that is a task of ours. */
static inline uint64_t
task_awaited(ctask_state *st, PyObject *waiter)
{
    int is_task = task_is_exact(waiter);
    if (!is_task && !future_is_exact(waiter)) {
        is_task = PyObject_TypeCheck(waiter, st->TaskType);
    }
    return is_task ? ((TaskObj *)waiter)->serial : 0;
}

static __attribute__((noinline)) void
note_done(struct trace *trace, ctask_state *st, TaskObj *task, trace_record *record)
{
    record->end = task->state == FUTURE_CANCELLED ? ENDED_CANCELLED
                  : task->exception != NULL       ? ENDED_RAISED
                                                  : ENDED_RETURNED;
    record->extra = 0;
    PyObject *name = task->name;
    if (name != NULL && PyLong_CheckExact(name)) {
        record->extra = PyLong_AsUnsignedLongLongMask(name);
        record->end |= ENDED_NUMBERED;
    }
    else if (name != NULL && PyUnicode_CheckExact(name)) {
        record->extra = (uint64_t)(uintptr_t)Py_NewRef(name);
        record->end |= ENDED_OWNS;
    }
    record->label = label_of_coroutine(&trace->labels, st, task->coro);
}

/* What a task's step has come to, in `record`: its label, end and `extra`. */
static inline __attribute__((always_inline)) void
note_end(struct trace *trace, ctask_state *st, TaskObj *task, trace_record *record)
{
    if (UNLIKELY(task->state != FUTURE_PENDING)) {
        note_done(trace, st, task, record);
        return;
    }
    PyObject *waiter = task->fut_waiter;
    record->end = waiter == NULL ? ENDED_YIELDING : ENDED_WAITING;
    record->extra = waiter == NULL ? 0 : task_awaited(st, waiter);
    record->label = label_of_wait(&trace->labels, st, task);
}

static inline uint64_t
serial_of(const trace_slice *slice)
{
    return slice->task != NULL ? slice->task->serial : slice->serial; // an uninitialized one gets it late
}

/* What runs has begun before the trace, or runs on when it ends. */
static __attribute__((noinline)) void
write_running(LoopObj *loop, loop_trace *t, uint64_t now, uint8_t end)
{
    const trace_slice *slice = t->running;
    uint64_t serial = serial_of(slice);
    t->told = (uint32_t)loop->ready.tail;
    write_record(t->trace,
                 (trace_record){.began = slice->began,
                                .ended = now,
                                .serial = serial,
                                .position = slice->position,
                                .tail = t->told,
                                .label = slice->label,
                                .loop = t->loop,
                                .kind = serial != 0 ? KIND_STEP : KIND_CALLBACK,
                                .end = end});
    t->began = now;
    t->running = NULL;
}

/* What ran when the trace began has ended, as the loop goes on. */
static inline void
leave_first(LoopObj *loop, loop_trace *t)
{
    if (UNLIKELY(t->running == &t->first)) {
        write_running(loop, t, ticks_now(t->trace), ENDED_UNSEEN);
    }
}

/* traced() of a loop that goes on. */
static inline loop_trace *
traced_on(LoopObj *loop)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        leave_first(loop, t);
    }
    return t;
}

/* What is in the ready queue was pushed by nobody known. */
static void
write_told(LoopObj *loop, loop_trace *t)
{
    t->told = (uint32_t)loop->ready.tail;
    write_record(
        t->trace,
        (trace_record){
            .began = t->began, .ended = t->began, .tail = t->told, .loop = t->loop, .kind = KIND_OUTSIDE});
}

PART void
trace_pause(LoopObj *loop)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        t->began = 0;
    }
}

PART void
trace_turn(LoopObj *loop)
{
    loop_trace *t = traced_on(loop);
    if (t == NULL) {
        return;
    }
    t->trace->threads[t->loop] = loop->draining->thread_id;
    if (t->began == 0) {
        t->began = ticks_now(t->trace);
    }
    if (t->told != (uint32_t)loop->ready.tail) {
        write_told(loop, t);
    }
}

/* What an entry calls that is no step at first sight; borrowed, from what the entry keeps. */
static inline PyObject *
callable_of_entry(PyObject *subject, unsigned kind)
{
    if (kind == READY_TIMER) {
        return ((timer_call *)(void *)subject)->callback;
    }
    if (kind == READY_HANDLE) {
        destructor dealloc = Py_TYPE(subject)->tp_dealloc;
        int ours = dealloc == handle_dealloc || dealloc == timer_dealloc;
#if THREADSAFE_HANDLES
        ours |= dealloc == threadsafe_dealloc;
#endif
        if (ours && ((HandleObj *)subject)->callback != NULL) {
            return ((HandleObj *)subject)->callback;
        }
    }
    return subject;
}

/* A call that is no function of Python's: 0 if the loop is traced no more, or anew, when it has been looked at. */
static __attribute__((noinline)) int
begin_other_call(LoopObj *loop, PyObject *callable, trace_slice *slice)
{
    loop_trace *t = &loop->observer->traced;
    slice->owned = Py_XNewRef((PyObject *)callable_task(loop->st, callable));
    slice->task = (TaskObj *)slice->owned;
    if (slice->owned != NULL) {
        return 1;
    }
    if (!Py_IS_TYPE(callable, &PyMethod_Type) && (PyObject *)Py_TYPE(callable) != loop->st->partial) {
        slice->label = label_of_callable(&t->trace->labels, callable);
        return 1;
    }
    uint64_t number = t->number;
    PyObject *inside = label_callable_inside(loop->st, callable);
    int goes_on = traced(loop) == t && t->number == number;
    if (inside != NULL) {
        slice->label = goes_on ? label_of_callable(&t->trace->labels, inside) : 0;
        Py_DECREF(inside);
        goes_on = traced(loop) == t && t->number == number;
    }
    return goes_on;
}

PART void
trace_begin(LoopObj *loop, const ring_entry *entry, trace_slice *slice)
{
    loop_trace *t = &loop->observer->traced;
    PyObject *subject = ring_subject(entry);
    unsigned kind = ring_kind(entry);
    if (kind == READY_STEP || (kind == READY_WAKE && task_is_exact(subject))) {
        slice->task = (TaskObj *)subject; // the entry is kept
    }
    else {
        PyObject *callable = callable_of_entry(subject, kind);
        slice->task = NULL;
        slice->serial = 0;
        slice->label = 0;
        if (kind == READY_READ || kind == READY_WRITE) {
            slice->label = label_of_method(
                &t->trace->labels, Py_TYPE(subject), kind == READY_READ ? "_read_ready" : "_write_ready");
        }
        else if (LIKELY(Py_IS_TYPE(callable, &PyFunction_Type))) {
            slice->label = label_of_code(&t->trace->labels, PyFunction_GET_CODE(callable));
        }
        else if (kind == READY_CALL && done_is(callable)) {
            slice->label = label_of_type(&t->trace->labels, Py_TYPE(callable));
        }
        else if (UNLIKELY(!begin_other_call(loop, callable, slice))) {
            return;
        }
    }
    leave_first(loop, t); // it may have begun when the entry before was dropped
    slice->began = t->began;
    slice->position = (uint32_t)(loop->ready.head - 1);
    slice->outer = t->running;
    t->running = slice;
}

static __attribute__((noinline)) void
drop_task(trace_slice *slice)
{
    PyObject *raised = PyErr_GetRaisedException();
    Py_CLEAR(slice->owned);
    PyErr_SetRaisedException(raised);
}

PART void
trace_end(LoopObj *loop, trace_slice *slice, int failed)
{
    loop_trace *t = loop->observer == NULL ? NULL : &loop->observer->traced;
    if (UNLIKELY(t == NULL || t->running != slice)) {
        (void)traced_on(loop); // there may be another trace: it gets what came after
    }
    else {
        struct trace *trace = t->trace;
        TaskObj *task = slice->task;
        uint64_t now = ticks_now(trace);
        trace_record *record = next_record(trace);
        record->began = slice->began;
        record->ended = now;
        record->position = slice->position;
        record->tail = t->told = (uint32_t)loop->ready.tail;
        record->loop = t->loop;
        t->began = now;
        t->running = slice->outer;
        if (task != NULL) {
            record->serial = task->serial;
            record->kind = KIND_STEP;
            note_end(trace, loop->st, task, record);
        }
        else {
            record->serial = 0;
            record->extra = 0;
            record->label = slice->label;
            record->kind = KIND_CALLBACK;
            record->end = failed ? ENDED_RAISED : ENDED_WAITING;
        }
    }
    if (UNLIKELY(slice->owned != NULL)) {
        drop_task(slice);
    }
}

PART void
trace_poll(LoopObj *loop)
{
    loop_trace *t = traced_on(loop);
    if (t != NULL) {
        t->polls_since = ticks_now(t->trace);
    }
}

PART uint64_t
trace_now(LoopObj *loop)
{
    loop_trace *t = traced(loop);
    return t == NULL ? 0 : ticks_now(t->trace);
}

PART void
trace_polled(LoopObj *loop, uint64_t ended, int events)
{
    loop_trace *t = traced(loop);
    if (t == NULL || t->polls_since == 0) {
        return;
    }
    uint64_t now = ended > t->polls_since ? ended : ticks_now(t->trace);
    t->told = (uint32_t)loop->ready.tail;
    write_record(t->trace,
                 (trace_record){.began = t->polls_since,
                                .ended = now,
                                .extra = events > 0 ? (uint64_t)events : 0,
                                .tail = t->told,
                                .loop = t->loop,
                                .kind = KIND_POLL});
    t->polls_since = 0;
    t->began = 0;
}

/* One entry of its own. */
static void
write_push(loop_trace *t, uint8_t kind, size_t position, uint64_t extra)
{
    uint64_t now = ticks_now(t->trace);
    write_record(t->trace,
                 (trace_record){.began = now,
                                .ended = now,
                                .extra = extra,
                                .position = (uint32_t)position,
                                .tail = (uint32_t)position + 1,
                                .loop = t->loop,
                                .kind = kind});
}

PART void
trace_timer(LoopObj *loop, double late)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        write_push(t, KIND_TIMER, loop->ready.tail, late > 0 && late < 1e9 ? (uint64_t)(late * 1e9) : 0);
        t->began = 0;
        if (t->told == (uint32_t)loop->ready.tail) {
            t->told++; // it will be
        }
    }
}

PART void
trace_thread(LoopObj *loop)
{
    loop_trace *t = traced(loop);
    if (t != NULL && loop->draining != PyThreadState_Get()) {
        write_push(t, KIND_THREAD, loop->ready.tail - 1, PyThread_get_thread_ident());
    }
}

PART void
trace_overtake(LoopObj *loop, size_t n, size_t m)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        uint64_t now = ticks_now(t->trace);
        write_record(t->trace,
                     (trace_record){.began = now,
                                    .ended = now,
                                    .serial = m,
                                    .extra = n,
                                    .tail = (uint32_t)loop->ready.tail,
                                    .loop = t->loop,
                                    .kind = KIND_OVERTAKE});
    }
}

/* ---- what tasks/ tells ---- */

static void
observe_task(void *loop, TaskObj *task)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        uint64_t now = ticks_now(t->trace);
        write_record(t->trace,
                     (trace_record){.began = now,
                                    .ended = now,
                                    .serial = task->serial,
                                    .extra = t->running != NULL ? serial_of(t->running) : 0,
                                    .loop = t->loop,
                                    .kind = KIND_TASK});
    }
}

static uint64_t
observe_clock(void *loop)
{
    return trace_now(loop);
}

static void
observe_eager(void *loop, TaskObj *task, uint64_t began)
{
    loop_trace *t = traced(loop);
    if (t != NULL) {
        trace_record record = {.began = began,
                               .ended = ticks_now(t->trace),
                               .serial = task->serial,
                               .loop = t->loop,
                               .kind = KIND_EAGER};
        note_end(t->trace, ((LoopObj *)loop)->st, task, &record);
        write_record(t->trace, record);
    }
}

/* ---- loops come and go ---- */

static TaskObj *
task_of_loop(LoopObj *loop)
{
    ctask_state *st = loop->st;
#if TASKS_IN_THREAD_STATE
    PyObject *task = st->tasks.thread_state_checked
                         ? ((_PyThreadStateImpl *)loop->draining)->asyncio_running_task
                         : NULL;
#else
    PyObject *task = current_known(st, loop);
#endif
    return task != NULL && PyObject_TypeCheck(task, st->TaskType) ? (TaskObj *)task : NULL;
}

PART void
trace_enter(LoopObj *loop)
{
    struct trace *trace = loop->st->loop.trace;
    if (trace == NULL || trace->n_loops >= MAX_LOOPS) {
        return;
    }
    if (trace->n_loops == trace->room_for_loops) {
        unsigned room = 2 * trace->room_for_loops + 8;
        unsigned long *threads = realloc(trace->threads, room * sizeof(unsigned long));
        if (threads == NULL) {
            return; // it is not traced
        }
        trace->threads = threads;
        trace->room_for_loops = room;
    }
    if (loop->observer == NULL && (loop->observer = observer_new()) == NULL) {
        return;
    }
    loop_trace *t = &loop->observer->traced;
    *t = (loop_trace){
        .trace = trace, .began = ticks_now(trace), .number = trace->number, .loop = (uint16_t)trace->n_loops};
    trace->threads[trace->n_loops++] = 0;
    write_told(loop, t);
    if (loop->poll.asking) {
        t->polls_since = t->began;
    }
    else if (loop->draining != NULL) {
        TaskObj *task = task_of_loop(loop);
        t->running = &t->first;
        t->first = (trace_slice){.began = t->began,
                                 .serial = task == NULL ? 0 : task->serial,
                                 .position = (uint32_t)(loop->ready.head - 1)};
        trace->threads[t->loop] = loop->draining->thread_id;
    }
}

PART void
trace_leave(LoopObj *loop)
{
    loop_trace *t = traced(loop);
    if (t == NULL) {
        return;
    }
    uint64_t now = ticks_now(t->trace);
    if (t->running != NULL) {
        write_running(loop, t, now, ENDED_NOT);
    }
    if (t->polls_since != 0) {
        trace_polled(loop, now, 0);
    }
    t->trace = NULL;
    observer_leave(loop);
}

/* ---- begin and end ---- */

#define LARGE_PAGE ((size_t)2 << 20)
#define SMALL_PAGE ((size_t)4 << 10) // the smallest of any machine

/* Memory in large pages where the kernel has them, and all of it at once: to touch a page for the first time costs as much
   as to write its records, and a large one's 100 us would be blamed on what is traced. */
static int
map_ring(struct trace *trace)
{
    size_t size = trace->capacity * sizeof(trace_record);
    trace->mapped = mmap(NULL, size + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (trace->mapped == MAP_FAILED) {
        trace->mapped = NULL;
        return -1;
    }
    uintptr_t start = ((uintptr_t)trace->mapped + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    trace->records = (trace_record *)start;
#ifdef MADV_HUGEPAGE
    (void)madvise(trace->records, size, MADV_HUGEPAGE); // of a smaller ring it makes nothing large
#endif
    for (size_t i = 0; i < size; i += SMALL_PAGE) {
        ((volatile char *)trace->records)[i] = 0;
    }
    return 0;
}

static void
unmap_ring(struct trace *trace)
{
    if (trace->mapped != NULL) {
        (void)munmap(trace->mapped, trace->capacity * sizeof(trace_record) + LARGE_PAGE);
    }
}

static void
trace_free(struct trace *trace)
{
    size_t n = trace->rounds > 0     ? trace->capacity
               : trace->next != NULL ? (size_t)(trace->next - trace->records)
                                     : 0;
    for (size_t i = 0; i < n; i++) {
        if (trace->records[i].end & ENDED_OWNS) {
            Py_DECREF((PyObject *)(uintptr_t)trace->records[i].extra);
        }
    }
    labels_free(&trace->labels);
    unmap_ring(trace);
    free(trace->threads);
    free(trace);
}

/* No loop writes to it any more; it is the caller's. */
static struct trace *
take_trace(ctask_state *st)
{
    struct trace *trace = st->loop.trace;
    st->loop.trace = NULL;
    if (trace != NULL) {
        struct list_node *all = &st->loop.open;
        for (struct list_node *node = all->next; node != all; node = node->next) {
            trace_leave(list_entry(node, LoopObj, open));
        }
    }
    return trace;
}

PART void
trace_forget(ctask_state *st)
{
    struct trace *trace = st->loop.trace;
    st->loop.trace = NULL;
    if (trace != NULL) {
        trace_free(trace);
    }
}

/* NULL if there is no memory.  The lock is not held meanwhile: pages that nobody had yet take milliseconds. */
static struct trace *
trace_new(size_t bytes)
{
    struct trace *trace = calloc(1, sizeof(struct trace));
    if (trace == NULL) {
        return NULL;
    }
    trace->capacity = bytes / sizeof(trace_record);
    if (trace->capacity < LEAST_RECORDS) {
        trace->capacity = LEAST_RECORDS;
    }
    int status;
    Py_BEGIN_ALLOW_THREADS status = map_ring(trace);
    Py_END_ALLOW_THREADS if (status < 0 || labels_init(&trace->labels) < 0)
    {
        trace_free(trace);
        return NULL;
    }
    trace->next = trace->records;
    trace->limit = trace->records + trace->capacity;
    return trace;
}

static PyObject *
raise_traced(void)
{
    PyErr_SetString(PyExc_RuntimeError, "the process is traced already: that trace has to end first");
    return NULL;
}

PyDoc_STRVAR(trace_start_doc,
"_trace_start($module, size, /)\n--\n\n"
"Begin to trace all loops, with so many bytes for the records.\n\n"
"Raises RuntimeError if there is a trace already, MemoryError.");

static PyObject *
trace_start(PyObject *module, PyObject *size)
{
    ctask_state *st = PyModule_GetState(module);
    Py_ssize_t bytes = PyNumber_AsSsize_t(size, PyExc_OverflowError);
    if (bytes == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (st->loop.trace != NULL) {
        return raise_traced();
    }
    struct trace *trace = bytes > MOST_BYTES ? NULL : trace_new(bytes > 0 ? (size_t)bytes : 0);
    if (trace == NULL) {
        return PyErr_NoMemory();
    }
    if (st->loop.trace != NULL) { // another thread was faster
        trace_free(trace);
        return raise_traced();
    }
    trace->number = ++st->loop.traces;
    trace->no_ticks = has_no_ticks();
    trace->began_clock = clock_nanoseconds();
    trace->began_ticks = ticks_now(trace);
    st->loop.trace = trace;
    struct list_node *all = &st->loop.open;
    for (struct list_node *node = all->next; node != all; node = node->next) {
        if (Py_REFCNT(list_entry(node, LoopObj, open)) > 0) {
            trace_enter(list_entry(node, LoopObj, open));
        }
    }
    Py_RETURN_NONE;
}

/* The records, the oldest first, and the names that they own, whose place in `names` they get. */
static PyObject *
show_records(struct trace *trace, PyObject *names)
{
    size_t next = (size_t)(trace->next - trace->records);
    size_t n = trace->rounds == 0 ? next : trace->capacity, first = trace->rounds == 0 ? 0 : next;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n * sizeof(trace_record)));
    if (bytes == NULL) {
        return NULL;
    }
    trace_record *shown = (trace_record *)(void *)PyBytes_AS_STRING(bytes);
    memcpy(shown, trace->records + first, (n - first) * sizeof(trace_record));
    memcpy(shown + (n - first), trace->records, first * sizeof(trace_record));
    for (size_t i = 0; i < n; i++) {
        if (shown[i].end & ENDED_OWNS) {
            if (PyList_Append(names, (PyObject *)(uintptr_t)shown[i].extra) < 0) {
                Py_DECREF(bytes);
                return NULL;
            }
            shown[i].extra = (uint64_t)PyList_GET_SIZE(names) - 1;
        }
    }
    return bytes;
}

static PyObject *
show_threads(const struct trace *trace)
{
    PyObject *threads = PyList_New(0);
    for (unsigned i = 0; threads != NULL && i < trace->n_loops; i++) {
        PyObject *thread = PyLong_FromUnsignedLong(trace->threads[i]);
        if (thread == NULL || PyList_Append(threads, thread) < 0) {
            Py_CLEAR(threads);
        }
        Py_XDECREF(thread);
    }
    return threads;
}

PyDoc_STRVAR(trace_stop_doc,
"_trace_stop($module, show, /)\n--\n\n"
"End the trace and, if `show`, return what there is of it: (records, names of tasks that are done, labels, threads of the\n"
"loops, records that were overwritten, ticks and nanoseconds of the begin, of the end).  None if there is no trace.");

static PyObject *
trace_stop(PyObject *module, PyObject *show)
{
    ctask_state *st = PyModule_GetState(module);
    int shows = PyObject_IsTrue(show);
    if (shows < 0) {
        return NULL;
    }
    struct trace *trace = take_trace(st);
    if (trace == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result = Py_None;
    if (shows) {
        uint64_t ticks = ticks_now(trace);
        int64_t clock = clock_nanoseconds();
        uint64_t lost = trace->rounds == 0
                            ? 0
                            : (trace->rounds - 1) * trace->capacity + (uint64_t)(trace->next - trace->records);
        PyObject *names = PyList_New(0);
        PyObject *records = names == NULL ? NULL : show_records(trace, names);
        PyObject *labels = records == NULL ? NULL : labels_show(&trace->labels);
        PyObject *threads = labels == NULL ? NULL : show_threads(trace);
        result = threads == NULL ? NULL
                                 : Py_BuildValue("OOOOK(KL)(KL)",
                                                 records,
                                                 names,
                                                 labels,
                                                 threads,
                                                 (unsigned long long)lost,
                                                 (unsigned long long)trace->began_ticks,
                                                 (long long)trace->began_clock,
                                                 (unsigned long long)ticks,
                                                 (long long)clock);
        Py_XDECREF(names);
        Py_XDECREF(records);
        Py_XDECREF(labels);
        Py_XDECREF(threads);
    }
    PyObject *raised = PyErr_GetRaisedException();
    trace_free(trace);
    PyErr_SetRaisedException(raised);
    return result == Py_None ? Py_NewRef(Py_None) : result;
}

PyDoc_STRVAR(trace_collection_doc,
"_trace_collection($module, generation, /)\n--\n\n"
"Tell the trace that a collection of garbage begins (-1), or that one of this generation has ended.");

static PyObject *
trace_collection(PyObject *module, PyObject *argument)
{
    ctask_state *st = PyModule_GetState(module);
    int overflow;
    long generation = PyLong_AsLongAndOverflow(argument, &overflow);
    if (generation == -1 && PyErr_Occurred()) {
        return NULL;
    }
    struct trace *trace = st->loop.trace;
    if (trace == NULL) {
        Py_RETURN_NONE;
    }
    uint64_t now = ticks_now(trace);
    if (generation < 0) {
        trace->collects_since = now;
        Py_RETURN_NONE;
    }
    if (trace->collects_since != 0) {
        PyThreadState *ts = PyThreadState_Get();
        uint16_t number = MAX_LOOPS;
        struct list_node *all = &st->loop.open;
        for (struct list_node *node = all->next; node != all; node = node->next) {
            LoopObj *loop = list_entry(node, LoopObj, open);
            if (loop->draining == ts && traced(loop) != NULL) {
                number = traced(loop)->loop;
            }
        }
        write_record(trace,
                     (trace_record){.began = trace->collects_since,
                                    .ended = now,
                                    .serial = PyThread_get_thread_ident(),
                                    .extra = (uint64_t)generation,
                                    .loop = number,
                                    .kind = KIND_COLLECTION});
        trace->collects_since = 0;
    }
    Py_RETURN_NONE;
}

static PyMethodDef trace_functions[] = {
    {"_trace_start", trace_start, METH_O, trace_start_doc},
    {"_trace_stop", trace_stop, METH_O, trace_stop_doc},
    {"_trace_collection", trace_collection, METH_O, trace_collection_doc},
    {NULL, NULL, 0, NULL},
};

PART int
trace_setup(PyObject *module, ctask_state *st)
{
    st->tasks.observe_task = observe_task;
    st->tasks.observe_eager = observe_eager;
    st->tasks.observe_clock = observe_clock;
    return PyModule_AddFunctions(module, trace_functions);
}
