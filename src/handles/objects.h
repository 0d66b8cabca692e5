/* The objects: handles of each kind, calls without a handle, and the loop as who puts work there sees it. */

#ifndef CTASK_OBJECTS_H
#define CTASK_OBJECTS_H

#include "ctask.h"
#include "handles/ring.h"
#include "handles/timers.h"

typedef struct LoopObj LoopObj;

/* ---- the objects ---- */

/* The slots of asyncio.Handle, so that its own methods work on ours. */
#define HANDLE_FIELDS                                                       \
    PyObject_HEAD                                                           \
    PyObject *args; /* owned; tuple, None once cancelled */                 \
    PyObject *callback; /* owned; None once cancelled */                    \
    PyObject *cancelled; /* owned; True or False */                         \
    PyObject *context; /* owned; or its variables: see context.h */         \
    PyObject *loop; /* owned */                                             \
    PyObject *repr; /* owned; None, or kept from before the cancellation */ \
    PyObject *source_traceback; /* owned; None unless in debug mode */      \
    HANDLE_WEAKREFS

typedef struct {
    HANDLE_FIELDS
} HandleObj;

typedef struct {
    HANDLE_FIELDS
    PyObject *scheduled; // the slot of asyncio.TimerHandle; ours is derived from node.place
    PyObject *when; // owned; NULL while it is just the float of when_seconds
    double when_seconds;
    heap_node node;
} TimerObj;

/* A timer whose handle nobody kept: its call, without the handle. */
typedef struct {
    heap_node node; // of odd order: see timer_call_of()
    PyObject *callback; // owned
    PyObject *args; // owned; a tuple
    PyObject *context; // owned; or its variables: see context.h
} timer_call;

/* The call that a node in the loop's timers belongs to, NULL if that is a TimerObj's. */
static inline timer_call *
timer_call_of(const heap_node *node)
{
    return node->order & 1 ? list_entry(node, timer_call, node) : NULL;
}

#if THREADSAFE_HANDLES
/* What call_soon_threadsafe() returns.  While its callback runs, cancel() and cancelled() wait in every other
   thread.  asyncio takes a lock around each of the three; here the interpreter lock is that lock, `runner` says
   who would hold it, and a lock to wait on is made by the first who has to. */
typedef struct {
    HANDLE_FIELDS
    PyObject *lock; // owned; the slot of asyncio's class: what its __init__ sets, else NULL
    PyObject *gate; // owned; a lock that is free as soon as nobody runs the handle; NULL if nobody waits
    unsigned long runner; // the thread that runs the handle
    int depth; // how often it does: 0 if nobody runs it
} ThreadSafeObj;
#endif

/* ---- the loop's object ---- */

/* The kinds of ring entries: what the subject is, and what is kept with it. */
enum {
    READY_HANDLE, // a handle of any kind
    READY_STEP, // a task, the exception to be thrown or NULL, and None if the task let others run, by sleep(0)
    READY_WAKE, // a task or another callback without a context, and the future that is done
    READY_CALL, // a callback, its argument and its context
    READY_APPLY, // a callback, a tuple of arguments and the context or its variables
    READY_READ, // an object, and the io_ready to be called
    READY_WRITE, // the same; and None if it is not for what the kernel told, but for the object's end
    READY_TIMER, // a timer_call, and its time: the bits of a double
};

/* What a C object that waits for a descriptor has called in its turn.  Returns -1 with the exception that
   the exception handler is to hear of.  It may come once more after the object has stopped waiting, so it
   looks at the object's state first.  Such an object has Python methods _read_ready(), _write_ready() and, if it
   has an end, _lost_ready() that do the same: debug mode calls these, and reports show them. */
typedef int (*io_ready)(LoopObj *loop, PyObject *owner);

/* What is watched of a descriptor. */
typedef struct {
    PyObject *reader; // owned; a handle, or the C object that read_ready belongs to, or NULL
    PyObject *writer; // owned; the same for writing
    io_ready read_ready; // NULL for a handle
    io_ready write_ready; // NULL for a handle
    PyObject *file; // owned; the object that a handle was registered by, NULL if by a number or there is none
    uint32_t events; // as the kernel has them
    uint32_t generation; // tells a reused descriptor's events from the old one's
    unsigned char once; // the sides whose watcher is told once, and has to ask again
    PyObject
        *owner; // borrowed; the transport that has the descriptor to itself: `events` is what the kernel has
} poll_slot;

typedef struct {
    int fd; // epoll, -1 when closed
    int wake_fd; // eventfd, -1 when closed
    poll_slot *slots; // by descriptor
    int n_slots;
    int watched; // slots that the kernel may tell of
    char no_pwait2; // the kernel lacks epoll_pwait2()
    char asking; // a thread is in the kernel, which writes to `events`
    void *events; // the buffer the kernel fills
    int n_events; // its length
    const unsigned *forks; // of the process, in the module's state
    unsigned forks_known; // when our descriptors were made: otherwise they are the parent's as well
} poll_state;

/* Received into a buffer that stays and copied from there: a fresh one of this size makes malloc take memory from
   the kernel and give it back each time. */
#define READ_BUFFER_SIZE (256 * 1024)

/* Handles that only the loop refers to once they have run. */
#define SPARE_HANDLES 64

typedef struct {
    HandleObj *handles[SPARE_HANDLES]; // owned; empty
    int length;
} spare_list;

/* What a loop has done since it was made: counters.c shows it.  Times in nanoseconds. */
typedef struct {
    uint64_t iterations;
    uint64_t callbacks; // of the iterations that have ended
    uint64_t polls; // the kernel was asked,
    uint64_t events; // and told of so many descriptors
    uint64_t wakeups; // by other threads, while the loop was in the kernel
    uint64_t tasks; // of this loop, ever,
    int64_t tasks_pending; // and those that are not done
    uint64_t bytes_in; // by transports and sock_recv() and its like
    uint64_t bytes_out;
    int64_t ran; // in run_forever(), before `running_since`
    int64_t running_since; // 0 while it does not run
    int64_t waited; // of that in the kernel, with nothing to do, before `waiting_since`
    int64_t waiting_since; // 0 while it does not wait
} loop_counters;

/* When the ready queue had come how far: what is known by its position only, as tasks that wait, gets its time of
   these.  Up to MOMENTS of them, closer together the younger they are (moments.c). */
#define MOMENTS 1024

typedef struct {
    size_t position; // in the ring
    int64_t clock; // nanoseconds, monotonic
} loop_moment;

typedef struct {
    loop_moment *all; // owned; NULL until the first
    int length;
    size_t last_position; // of the youngest
    int64_t last_clock;
} loop_moments;

struct LoopObj {
    PyObject_HEAD
    ctask_state *st; // borrowed from the type's module
    ring ready; // owns what its entries refer to
    timers timers; // owns the TimerObj or timer_call of each node
    TimerObj *last_timer; // borrowed; the one made last while it is in `timers`, else NULL
    poll_state poll; // owns the handles in its slots
    loop_counters counters;
    loop_moments moments;
    struct watchdog *watchdog; // owned; NULL until a thread watches (watchdog.c)
    struct observer *observer; // owned; NULL unless somebody measures (observer.c)
    struct list_node open; // in loop_state's list while the loop is (loops.c)
    unsigned number; // among those
    spare_list spare; // for the next call_soon()
#if THREADSAFE_HANDLES
    spare_list spare_threadsafe; // for the next call_soon_threadsafe()
#endif
    PyObject *task_factory; // owned; None for the default
    PyObject *corked; // owned; whose last packet the kernel holds back (stream_write.c), NULL between callbacks
    void (*uncork)(LoopObj *loop); // called when the callback has ended that left `corked`
    PyThreadState *draining; // borrowed; the thread that runs callbacks, NULL if none does
    PyObject *current_handle; // owned; set in debug mode while a callback runs
    PyObject *thread_ident; // owned; None while the loop does not run
    PyObject *debug_value; // owned; what set_debug() was given
    PyObject *transports; // owned; the dictionary within `_transports`, NULL until it was looked up
    char *heap_end; // of the C library's, when the loop was made
    double trim_at; // when the heap may be trimmed again (memory.c)
    long trimmed_to; // pages of the process in memory after that; 0 before the first time
    unsigned used_then; // bytes of the heap that were in use
    double yielded_at; // when this turn began, if what was ready ended with a task that let others run; or 0
    double turn_average; // seconds: of the last turns that began so (iterate.c)
    char *read_buffer; // owned; to receive into, NULL while somebody has taken it (loop_take_read_buffer())
    void *entry_keys; // 3.13 and earlier: where our entry in current_tasks was last (registry.c)
    Py_ssize_t entry_index;
    char left_entered; // 3.13 and earlier: our entry in current_tasks is a left-over (registry.c)
    unsigned int type_version; // tp_version_tag for which `overridden` holds
    char is_open; // not closed
    char trimmed; // the heap was, or need not be, and nothing has run since
    union {
        struct {
            char debug;
            char runs_replaced; // Handle._run was, when the iteration began
        };
        uint16_t runs_otherwise; // one of these
    };
    char stopping;
    char interrupted; // the last iteration was: the ring may hold some of its entries
    char overridden; // a method that the fast path stands for was replaced
    char tasks_overridden; // create_task() was
    char sleeping; // in the kernel, without the interpreter lock
};

/* After a system call that returned `n`.  (No loop: the transport has let go of it meanwhile.) */
static inline void
count_received(LoopObj *loop, ssize_t n)
{
    if (loop != NULL && n > 0) {
        loop->counters.bytes_in += (size_t)n;
    }
}

static inline void
count_sent(LoopObj *loop, ssize_t n)
{
    if (loop != NULL && n > 0) {
        loop->counters.bytes_out += (size_t)n;
    }
}

#endif
