/* Read this first: the module state, the objects, and what each part offers to the others.

   Everything mutable lives in the module state or in an object, never in a C global, so that
   sub-interpreters stay possible.  Hot code finds out what an object is without the state: the slot
   functions of our types are addresses of our own, and a Python subclass never has the same tp_dealloc
   (see future_is_exact() and loop_cast() below). */

#ifndef CTASK_H
#define CTASK_H

#include "base/compat.h"
#include "base/context.h"
#include "base/freelist.h"
#include "base/glibc.h"
#include "handles/ring.h"
#include "handles/timers.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- names looked up at run time, interned once ---- */

#define CTASK_NAMES(X)          \
    X(Event)                    \
    X(Task)                     \
    X(_abort)                   \
    X(_aexit)                   \
    X(_asyncio_future_blocking) \
    X(_attach)                  \
    X(_call_connection_lost)    \
    X(_cancel_message)          \
    X(_check_callback)          \
    X(_check_handshake_timeout) \
    X(_check_shutdown_timeout)  \
    X(_check_thread)            \
    X(_detach)                  \
    X(_drain_helper)            \
    X(_ensure_fd_no_transport)  \
    X(_finished)                \
    X(_force_close)             \
    X(_get)                     \
    X(_get_close_waiter)        \
    X(_get_loop)                \
    X(_getters)                 \
    X(_init)                    \
    X(_is_shutdown)             \
    X(_log_destroy_pending)     \
    X(_loop)                    \
    X(_make_cancelled_error)    \
    X(_maxsize)                 \
    X(_maybe_resume_transport)  \
    X(_msg_callback)            \
    X(_notify)                  \
    X(_on_task_done)            \
    X(_on_timeout)              \
    X(_put)                     \
    X(_putters)                 \
    X(_queue)                   \
    X(_read_ready)              \
    X(_resume)                  \
    X(_run)                     \
    X(_run_once)                \
    X(_sslobj)                  \
    X(_start_serving)           \
    X(_start_shutdown)          \
    X(_stream_reader)           \
    X(_task)                    \
    X(_timer_handle_cancelled)  \
    X(_transports)              \
    X(_unfinished_tasks)        \
    X(_wait_for_data)           \
    X(_wake_up_first)           \
    X(_wake_up_next)            \
    X(_wakeup_next)             \
    X(_wakeup_waiter)           \
    X(_write_ready)             \
    X(acquire)                  \
    X(add_done_callback)        \
    X(append)                   \
    X(buffer_updated)           \
    X(call_at)                  \
    X(call_exception_handler)   \
    X(call_later)               \
    X(call_soon)                \
    X(cancel)                   \
    X(cancelled)                \
    X(cancelling)               \
    X(cipher)                   \
    X(clear)                    \
    X(close)                    \
    X(compression)              \
    X(connection_lost)          \
    X(connection_made)          \
    X(context)                  \
    X(coro)                     \
    X(cr_await)                 \
    X(create_future)            \
    X(create_task)              \
    X(data)                     \
    X(data_received)            \
    X(datagram_received)        \
    X(debug)                    \
    X(delay)                    \
    X(do_handshake)             \
    X(done)                     \
    X(eager_start)              \
    X(empty)                    \
    X(eof_received)             \
    X(error_received)           \
    X(exc_info)                 \
    X(exception)                \
    X(feed_data)                \
    X(feed_eof)                 \
    X(fileno)                   \
    X(full)                     \
    X(get_buffer)               \
    X(get_debug)                \
    X(get_extra_info)           \
    X(get_loop)                 \
    X(get_nowait)               \
    X(getpeercert)              \
    X(gettimeout)               \
    X(handle)                   \
    X(is_closing)               \
    X(is_running)               \
    X(join)                     \
    X(keylog_filename)          \
    X(locked)                   \
    X(loop)                     \
    X(message)                  \
    X(monotonic)                \
    X(msg)                      \
    X(name)                     \
    X(notify)                   \
    X(pause_reading)            \
    X(pause_writing)            \
    X(peercert)                 \
    X(peername)                 \
    X(pending)                  \
    X(pipe)                     \
    X(popleft)                  \
    X(protocol)                 \
    X(put_nowait)               \
    X(qsize)                    \
    X(read)                     \
    X(readline)                 \
    X(readuntil)                \
    X(release)                  \
    X(remove)                   \
    X(remove_done_callback)     \
    X(reschedule)               \
    X(result)                   \
    X(resume_reading)           \
    X(resume_writing)           \
    X(return_exceptions)        \
    X(return_when)              \
    X(set)                      \
    X(set_exception)            \
    X(set_result)               \
    X(slow_callback_duration)   \
    X(socket)                   \
    X(sockname)                 \
    X(source_traceback)         \
    X(ssl_object)               \
    X(sslcontext)               \
    X(throw)                    \
    X(time)                     \
    X(timeout)                  \
    X(transport)                \
    X(uncancel)                 \
    X(unwrap)                   \
    X(wait)                     \
    X(when)                     \
    X(wrap_bio)                 \
    X(write)

/* ---- what is taken from the standard library when the module is loaded ---- */

#if THREADSAFE_HANDLES
#define CTASK_3_14_IMPORTS(X)                                        \
    X(stock_ThreadSafeHandle, "asyncio.events", "_ThreadSafeHandle") \
    X(allocate_lock, "_thread", "allocate_lock")
#define CTASK_3_14_TYPES(X) X(ThreadSafeHandleType)
#else
#define CTASK_3_14_IMPORTS(X)
#define CTASK_3_14_TYPES(X)
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define CTASK_3_13_IMPORTS(X)                           \
    X(QueueShutDown, "asyncio.queues", "QueueShutDown") \
    X(isawaitable, "inspect", "isawaitable")            \
    X(stock_AsCompletedIterator, "asyncio.tasks", "_AsCompletedIterator")
#else
#define CTASK_3_13_IMPORTS(X) X(isfuture, "asyncio.futures", "isfuture")
#endif

#define CTASK_IMPORTS(X)                                                           \
    X(stock_Future, "_asyncio", "Future")                                          \
    X(stock_Task, "_asyncio", "Task")                                              \
    X(stock_enter_task, "_asyncio", "_enter_task")                                 \
    X(stock_leave_task, "_asyncio", "_leave_task")                                 \
    X(stock_register_task, "_asyncio", "_register_task")                           \
    X(stock_get_event_loop, "_asyncio", "get_event_loop")                          \
    X(stock_get_running_loop, "_asyncio", "get_running_loop")                      \
    X(stock_sleep, "asyncio.tasks", "sleep")                                       \
    X(stock_Timeout, "asyncio.timeouts", "Timeout")                                \
    X(stock_timeout, "asyncio.timeouts", "timeout")                                \
    X(stock_timeout_at, "asyncio.timeouts", "timeout_at")                          \
    X(stock_timeout_State, "asyncio.timeouts", "_State")                           \
    X(stock_wait_for, "asyncio.tasks", "wait_for")                                 \
    X(stock_TaskGroup, "asyncio.taskgroups", "TaskGroup")                          \
    X(stock_wake, "asyncio.futures", "_set_result_unless_cancelled")               \
    X(stock_GatheringFuture, "asyncio.tasks", "_GatheringFuture")                  \
    X(stock_create_task_function, "asyncio.tasks", "create_task")                  \
    X(stock_ensure_future, "asyncio.tasks", "ensure_future")                       \
    X(stock_gather, "asyncio.tasks", "gather")                                     \
    X(stock_wait, "asyncio.tasks", "wait")                                         \
    X(stock_shield, "asyncio.tasks", "shield")                                     \
    X(stock_as_completed, "asyncio.tasks", "as_completed")                         \
    X(stock_release_waiter, "asyncio.tasks", "_release_waiter")                    \
    X(CancelledError, "asyncio.exceptions", "CancelledError")                      \
    X(IncompleteReadError, "asyncio.exceptions", "IncompleteReadError")            \
    X(LimitOverrunError, "asyncio.exceptions", "LimitOverrunError")                \
    X(stock_Queue, "asyncio.queues", "Queue")                                      \
    X(stock_PriorityQueue, "asyncio.queues", "PriorityQueue")                      \
    X(stock_LifoQueue, "asyncio.queues", "LifoQueue")                              \
    X(QueueEmpty, "asyncio.queues", "QueueEmpty")                                  \
    X(QueueFull, "asyncio.queues", "QueueFull")                                    \
    X(locks_module, "asyncio", "locks")                                            \
    X(heappush, "heapq", "heappush")                                               \
    X(heappop, "heapq", "heappop")                                                 \
    X(stock_StreamReader, "asyncio.streams", "StreamReader")                       \
    X(stock_StreamReaderProtocol, "asyncio.streams", "StreamReaderProtocol")       \
    X(stock_StreamWriter, "asyncio.streams", "StreamWriter")                       \
    X(deque, "collections", "deque")                                               \
    X(stock_Lock, "asyncio.locks", "Lock")                                         \
    X(stock_Event, "asyncio.locks", "Event")                                       \
    X(stock_Condition, "asyncio.locks", "Condition")                               \
    X(stock_Semaphore, "asyncio.locks", "Semaphore")                               \
    X(stock_BoundedSemaphore, "asyncio.locks", "BoundedSemaphore")                 \
    X(InvalidStateError, "asyncio.exceptions", "InvalidStateError")                \
    X(iscoroutine, "asyncio.coroutines", "iscoroutine")                            \
    X(stock_Handle, "asyncio.events", "Handle")                                    \
    X(stock_TimerHandle, "asyncio.events", "TimerHandle")                          \
    X(stock_Loop, "asyncio.unix_events", "SelectorEventLoop")                      \
    X(format_callback_source, "asyncio.format_helpers", "_format_callback_source") \
    X(tasks_module, "asyncio", "tasks")                                            \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")                    \
    X(format_handle, "asyncio.base_events", "_format_handle")                      \
    X(logger, "asyncio.log", "logger")                                             \
    X(traceback_extract_stack, "traceback", "extract_stack")                       \
    X(stock_DatagramTransport, "asyncio.transports", "DatagramTransport")          \
    X(stock_Transport, "asyncio.transports", "_FlowControlMixin")                  \
    X(stock_ReadTransport, "asyncio.transports", "ReadTransport")                  \
    X(Protocol, "asyncio.protocols", "Protocol")                                   \
    X(BufferedProtocol, "asyncio.protocols", "BufferedProtocol")                   \
    X(TransportSocket, "asyncio.trsock", "TransportSocket")                        \
    X(base_socket_type, "_socket", "socket")                                       \
    X(Server, "asyncio.base_events", "Server")                                     \
    X(SendfileMode, "asyncio.constants", "_SendfileMode")                          \
    CTASK_3_13_IMPORTS(X)                                                          \
    CTASK_3_14_IMPORTS(X)

/* ---- what is made when the module is loaded ---- */

#define CTASK_TYPES(X)    \
    X(FutureType)         \
    X(TaskType)           \
    X(FutureIterType)     \
    X(TaskStepType)       \
    X(HandleType)         \
    X(TimerHandleType)    \
    CTASK_3_14_TYPES(X)   \
    X(CoroType)           \
    X(CoroFrameType)      \
    X(StandinType)        \
    X(CoreAttrType)       \
    X(TimeoutType)        \
    X(DoneType)           \
    X(GatherType)         \
    X(AsCompletedType)    \
    X(LockType)           \
    X(EventType)          \
    X(ConditionType)      \
    X(SemaphoreType)      \
    X(BoundedType)        \
    X(QueueType)          \
    X(TaskGroupType)      \
    X(StreamReaderType)   \
    X(StreamProtocolType) \
    X(StreamWriterType)   \
    X(StreamType)         \
    X(AcceptorType)       \
    X(ReadPipeType)       \
    X(WritePipeType)      \
    X(DatagramType)       \
    X(LoopType)           \
    X(TlsType)            \
    X(TlsTransportType)

#if FUTURE_CALL_GRAPH
#define CTASK_CALL_GRAPH(X)     \
    X(stock_awaited_by_add)     \
    X(stock_awaited_by_discard) \
    X(stock_current_task)
#else
#define CTASK_CALL_GRAPH(X)
#endif

/* stop_iteration: kept by coro.c, NULL if there is none.  time_names: the module's dictionary; monotonic: its
   function, None if that was replaced before (clock.c).
   stock_*: functions of `_asyncio`'s and asyncio's types, unbound.  swap_current_task: _asyncio's, NULL before
   3.12.  current_tasks: {loop: task} of 3.13 and earlier, shared with _asyncio.  socket_names: the socket module's
   globals, as ssl_names are of ssl.  ssl_*: of Python's ssl, NULL until the first TLS connection. */
#define CTASK_OBJECTS(X)      \
    X(stock_set_exception)    \
    X(stock_result)           \
    X(stock_create_task)      \
    X(stock_task_cancel)      \
    X(msg_kwnames)            \
    X(wait_release)           \
    X(wait_all)               \
    X(wait_kwnames)           \
    X(timeout_kwnames)        \
    X(stock_wait_for_one)     \
    X(stock_anext)            \
    X(as_completed_generator) \
    X(socket_names)           \
    X(socket_type)            \
    X(swap_current_task)      \
    X(current_tasks)          \
    X(context_kwnames)        \
    X(empty_tuple)            \
    X(ssl_names)              \
    X(ssl_again)              \
    X(ssl_SSLError)           \
    X(ssl_CertificateError)   \
    X(ssl_SSLZeroReturnError) \
    X(ssl_MemoryBIO)          \
    X(ssl_SSLObject)          \
    X(ssl_socket_type)        \
    X(ssl_bio_type)           \
    X(lock_class)             \
    X(loop_kwnames)           \
    X(newline)                \
    X(sleep_wake)             \
    X(timeout_class)          \
    X(connection_made)        \
    X(timeout_created)        \
    X(timeout_entered)        \
    X(timeout_expiring)       \
    X(timeout_expired)        \
    X(timeout_exited)         \
    X(stock_timeout_aenter)   \
    X(stock_timeout_aexit)    \
    X(stock_group_aenter)     \
    X(stock_group_aexit)      \
    X(stock_on_task_done)     \
    X(stock_protocol_del)     \
    X(stock_protocol_init)    \
    X(stock_reader_init)      \
    X(stock_writer_del)       \
    X(stock_get_extra_info)   \
    X(stop_iteration)         \
    X(core_types)             \
    X(time_names)             \
    X(monotonic)              \
    X(deque_popleft)          \
    X(deque_append)           \
    X(stock_queue_join)       \
    X(stock_queue_get)        \
    X(stock_queue_put)        \
    CTASK_CALL_GRAPH(X)

/* What is known of socket.socket (socketobj.c): offsets of its members, 0 where they are not as they should. */
typedef struct {
    Py_ssize_t fd;
    Py_ssize_t family;
    Py_ssize_t type;
    Py_ssize_t proto;
    unsigned int version; // tp_version_tag for which its methods are the socket module's own
} socket_layout;

/* The classes of sync.h. */
typedef enum { SYNC_LOCK, SYNC_EVENT, SYNC_SEMAPHORE, SYNC_BOUNDED, SYNC_CONDITION, SYNC_KINDS } sync_kind;

/* All pointers are owned. */
typedef struct {
#define X(name) PyTypeObject *name;
    CTASK_TYPES(X)
#undef X
#define X(name, module, attribute) PyObject *name;
    CTASK_IMPORTS(X)
#undef X
#define X(name) PyObject *name;
    CTASK_OBJECTS(X)
    struct {
        CTASK_NAMES(X)
    } str;
#undef X

    uint64_t task_counter;          // for Task-N
    char passes_for_asyncio;        // install()ed: functions say that they are asyncio's
    context_pool contexts;
    freelist free_futures;
    freelist free_tasks;
    freelist free_handles;
    freelist free_timers;
    freelist free_threadsafe; // 3.14+
    socket_layout sockets;
    struct {
        unsigned int version; // tp_version_tag of StreamType for which `own` holds
        char own; // nobody has replaced write() or is_closing() of the class
    } streams;
    freelist free_coros;
    unsigned int plain_reader;      // tp_version_tag of the last class of readers without overrides
    unsigned int plain_queues[3];   // the same for queues, by kind (queues.c)
    unsigned int plain_protocol;    // the same for protocols
    struct {
        unsigned int version; // tp_version_tag of the last class of its kind (sync.h)
        char overridden;      // what that overrides
    } sync_types[SYNC_KINDS];
    unsigned int plain_timeout;     // the same for timeouts
    unsigned int plain_group;       // the same for task groups
    char condition_has_notify;      // asyncio's, that is (condition.c)
    char group_exit_is_mended;      // asyncio's (taskgroup.c)
    char freeing_handle;            // now (handle.c)
    struct list_node tasks;   // 3.13 and earlier: pending tasks, borrowed
    struct list_node blocking_files; // those of open transports (blocking.c), borrowed
    int (*descriptor_of_owner)(PyObject *owner); // who called watch_own(); -1: closed behind it (socketobj.c)
    const struct future_kind *derived_future; // gather()'s
    const struct sink_kind *sinks[2]; // of protocols (sink.h); NULL: no more
    void *clock_keys;         // where time.monotonic was last (clock.c)
    Py_ssize_t clock_index;
    PyCFunction monotonic_method; // what it was in C
    unsigned int handle_versions[2]; // tp_version_tags for which `runs_replaced` holds (handle.c)
    char runs_replaced;              // a program put a function of its own in the place of Handle._run
    struct tls_buffers *tls;        // owned; NULL until the first TLS connection
    const struct openssl_api *openssl; // NULL if OpenSSL is not called directly
    int openssl_known;              // 0 until it was looked for, then 1 or -1
    int thread_state_checked; // 3.14+: the offsets in compat.h are this interpreter's
    int server_knows_clients; // 3.13+: Server._attach() takes the transport
    PyObject *given_up; // borrowed; the module once it has given itself up (ctask.c), else NULL
    unsigned forks;           // between the process that loaded the module and this one (fork.c)
} ctask_state;

extern struct PyModuleDef ctask_module;

typedef struct LoopObj LoopObj;

PART ctask_state *state_of(PyObject *self);
PART PyObject *single_argument(PyObject *self, const char *method, const char *name, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames);
PART int add_methods(PyTypeObject *type, PyMethodDef *methods);

/* An object is made that uses the state until it ends: should the interpreter's last collection be to come, module and
   types must not be in it. */
static inline void
state_keep(ctask_state *st)
{
    if (UNLIKELY(st->given_up != NULL)) {
        Py_INCREF(st->given_up); // for good
        st->given_up = NULL;
    }
}

/* tp_alloc of our types; for a subclass made in Python it is to be called by name. */
PART PyObject *instance_alloc(PyTypeObject *type, Py_ssize_t n);
PART int add_type(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec, PyObject *base);

/* ---- future.c ---- */

PART int future_setup(PyObject *module, ctask_state *st);
PART PyObject *future_create(ctask_state *st, PyObject *loop);
PART PyObject *loop_new_future(ctask_state *st, PyObject *loop);
PART PyObject *future_iter(PyObject *self);
PART void future_become_iterator(PyTypeObject *type);
PART int future_throw_arguments(PyObject *const *args, Py_ssize_t nargs);
PART int future_init(FutureObj *fut, ctask_state *st, PyObject *loop);
PART void future_dealloc(PyObject *self);
PART int future_traverse_fields(FutureObj *fut, visitproc visit, void *arg);
PART void future_clear_fields(FutureObj *fut);
PART int future_schedule_callbacks(FutureObj *fut, ctask_state *st);
PART int future_set_result(FutureObj *fut, ctask_state *st, PyObject *result);
PART int future_set_exception(FutureObj *fut, ctask_state *st, PyObject *exc);
PART int future_cancel(FutureObj *fut, ctask_state *st, PyObject *msg);
PART PyObject *future_cancelled_error(FutureObj *fut, ctask_state *st);
PART int future_add_waiter(FutureObj *fut, ctask_state *st, TaskObj *task);
PART int future_add_callback(FutureObj *fut, ctask_state *st, PyObject *callback, PyObject *context);
PART int future_cancel_any(PyObject *fut, ctask_state *st, PyObject *msg);
PART PyObject *future_get_loop(ctask_state *st, PyObject *fut);
PART int call_predicate(PyObject *obj, PyObject *method);
PART PyObject *Future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PART PyObject *Future_remove_done_callback(PyObject *self, PyObject *callback);
PART PyObject *Future_get_callbacks(PyObject *self, void *closure);
PART int call_soon(ctask_state *st, PyObject *loop, PyObject *callback, PyObject *arg, PyObject *context);

/* ---- task.c ---- */

PART int task_setup(PyObject *module, ctask_state *st);
PART PyObject *task_create(ctask_state *st, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context,
                           int eager_start);
PART void task_dealloc(PyObject *self);
PART int task_cancel(TaskObj *task, ctask_state *st, PyObject *msg);
PART int task_run(LoopObj *loop, PyThreadState *ts, TaskObj *task, PyObject *exc, PyObject *fut);
PART PyObject *task_context(TaskObj *task, ctask_state *st);
PART PyObject *task_wakeup_callback(TaskObj *task);
PART PyObject *task_step_callback(TaskObj *task, ctask_state *st, PyObject *exc);

/* What a future of a third kind does otherwise: gather()'s, which makes itself known in the state.  Its type has
   future_derived_dealloc() for its tp_dealloc. */
typedef struct future_kind {
    int (*cancel)(PyObject *self, ctask_state *st, PyObject *msg); // as future_cancel_any()
    int (*clear)(PyObject *self); // as tp_clear
} future_kind;

PART void future_derived_dealloc(PyObject *self);

/* ---- sleep.c ---- */

PART int sleep_setup(PyObject *module, ctask_state *st);

/* ---- timeout.c, waitfor.c ---- */

PART int timeout_setup(PyObject *module, ctask_state *st);
PART int waitfor_setup(PyObject *module, ctask_state *st);

/* ---- queues.c ---- */

PART int queues_setup(PyObject *module, ctask_state *st);

/* ---- taskgroup.c ---- */

PART int taskgroup_setup(PyObject *module, ctask_state *st);

/* ---- registry.c ---- */

PART int registry_setup(PyObject *module, ctask_state *st);
PART int registry_add(ctask_state *st, TaskObj *task);
PART void registry_remove(TaskObj *task);
PART int current_enter(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave(ctask_state *st, PyThreadState *ts, PyObject *loop, TaskObj *task);
PART int current_leave_later(LoopObj *loop, PyThreadState *ts, TaskObj *task);
PART int current_flush(LoopObj *loop);
PART PyObject *current_swap(ctask_state *st, PyObject *loop, PyObject *task);
PART PyObject *running_loop(ctask_state *st);
PART PyObject *bind_loop(ctask_state *st, PyObject *self, PyObject **bound);
PART PyObject *current_task(ctask_state *st, PyObject *loop);

/* ---- handle.c ---- */

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

PART void threadsafe_dealloc(PyObject *self);
PART int threadsafe_enter(PyObject *handle, ctask_state *st);
PART void threadsafe_leave(PyObject *handle, ctask_state *st);
#endif

PART int handle_setup(PyObject *module, ctask_state *st);
PART HandleObj *handle_create_threadsafe(LoopObj *loop, PyObject *callback, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *context, int debug);
PART HandleObj *handle_create(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *context, int debug);
PART void handle_retire(LoopObj *loop, HandleObj *handle);
PART TimerObj *timer_new(LoopObj *loop, double seconds, PyObject *when, PyObject *callback,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *context, int debug);
PART TimerObj *timer_of_call(LoopObj *loop, double seconds, const timer_call *call);
PART int timer_remove(PyObject *loop, TimerObj *timer);
PART void timer_call_free(timer_call *call);
PART void handle_dealloc(PyObject *self);
PART void timer_dealloc(PyObject *self);
PART int handle_cancel(PyObject *handle, ctask_state *st);
PART int handle_is_cancelled(PyObject *handle);
PART int handle_look_at_run(ctask_state *st);

/* Has a program put a function of its own in the place of asyncio.Handle._run, which is to see all that runs? */
static inline int
handle_run_is_replaced(ctask_state *st)
{
    if (LIKELY(st->handle_versions[0] == st->HandleType->tp_version_tag &&
               st->handle_versions[1] == st->TimerHandleType->tp_version_tag && st->handle_versions[0] != 0 &&
               st->handle_versions[1] != 0)) {
        return st->runs_replaced;
    }
    return handle_look_at_run(st);
}

/* ---- loop.c ---- */

/* The kinds of ring entries: what the subject is, and what is kept with it. */
enum {
    READY_HANDLE, // a handle of any kind
    READY_STEP, // a task, the exception to be thrown or NULL, and None if the task let others run, by sleep(0)
    READY_WAKE, // a task or another callback without a context, and the future that is done
    READY_CALL, // a callback, its argument and its context
    READY_APPLY, // a callback, a tuple of arguments and the context or its variables
    READY_READ, // an object, and the io_ready to be called
    READY_WRITE,
    READY_TIMER, // a timer_call, and its time: the bits of a double
};

/* What a C object that waits for a descriptor has called in its turn.  Returns -1 with the exception that
   the exception handler is to hear of.  It may come once more after the object has stopped waiting, so it
   looks at the object's state first.  Such an object has Python methods _read_ready() and _write_ready()
   that do the same: debug mode calls these, and reports show them. */
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

struct LoopObj {
    PyObject_HEAD
    ctask_state *st; // borrowed from the type's module
    ring ready; // owns what its entries refer to
    timers timers; // owns the TimerObj or timer_call of each node
    TimerObj *last_timer; // borrowed; the one made last while it is in `timers`, else NULL
    poll_state poll; // owns the handles in its slots
    spare_list spare; // for the next call_soon()
#if THREADSAFE_HANDLES
    spare_list spare_threadsafe; // for the next call_soon_threadsafe()
#endif
    PyObject *task_factory; // owned; None for the default
    PyObject *corked; // owned; whose last packet the kernel holds back (stream.c), NULL between callbacks
    void (*uncork)(LoopObj *loop); // called when the callback has ended that left `corked`
    PyThreadState *draining; // borrowed; the thread that runs callbacks, NULL if none does
    PyObject *current_handle; // owned; set in debug mode while a callback runs
    PyObject *thread_ident; // owned; None while the loop does not run
    PyObject *debug_value; // owned; what set_debug() was given
    PyObject *transports; // owned; the dictionary within `_transports`, NULL until it was looked up
    char *heap_end; // of the C library's, when the loop was made
    double trim_at; // when the heap may be trimmed again (loop.c)
    long trimmed_to; // pages of the process in memory after that; 0 before the first time
    double yielded_at; // when this turn began, if what was ready ended with a task that let others run; or 0
    double turn_average; // seconds: of the last turns that began so (loop.c)
    char *read_buffer; // owned; to receive into, NULL while somebody has taken it (loop_take_read_buffer())
    void *entry_keys; // 3.13 and earlier: where our entry in current_tasks was last (registry.c)
    Py_ssize_t entry_index;
    char left_entered; // 3.13 and earlier: our entry in current_tasks is a left-over (registry.c)
    unsigned int type_version; // tp_version_tag for which `overridden` holds
    char is_open; // not closed
    char trimmed; // the heap was, or need not be, and nothing has run since
    char debug;
    char runs_replaced; // Handle._run was, when the iteration began
    char stopping;
    char interrupted; // the last iteration was: the ring may hold some of its entries
    char overridden; // a method that the fast path stands for was replaced
    char tasks_overridden; // create_task() was
    char sleeping; // in the kernel, without the interpreter lock
};

/* ---- work.c ---- */

PART int loop_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int loop_check_overrides(LoopObj *loop);
/* What stands behind a method of _ctask.Loop; NULL if a program has put something else in its place. */
PART PyMethodDef *loop_method_behind(ctask_state *st, PyObject *ours);
PART int loop_ready(LoopObj *loop, void *subject, unsigned kind, PyObject *arg, PyObject *context);
/* Drop what an entry refers to. */
PART void entry_forget(ring_entry *entry);
PART void loop_forget_ready(LoopObj *loop);

/* ---- loop.c, fork.c, schedule.c ---- */

PART int loop_setup(PyObject *module, ctask_state *st);
PART int fork_setup(PyObject *module, ctask_state *st);
PART PyObject *loop_new_task(ctask_state *st, PyObject *loop, PyObject *coro);

/* ---- tls.c ---- */

PART int tls_setup(PyObject *module, ctask_state *st);
PART void tls_dealloc(PyObject *self);

/* ---- __init__ ---- */

/* From 3.15 on asyncio refuses to initialise a future twice; before, that starts it anew. */
static inline int
refuse_second_init(FutureObj *fut)
{
#if PY_VERSION_HEX >= 0x030F0000
    if (fut->loop != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", fut);
        return -1;
    }
#else
    (void)fut;
#endif
    return 0;
}

/* ---- weak references ---- */

/* PyObject_ClearWeakRefs() for most objects, which have none: no call. */
static inline void
clear_weakrefs(PyObject *self, PyTypeObject *type)
{
    if (UNLIKELY(*(PyObject **)((char *)self + type->tp_weaklistoffset) != NULL)) {
        PyObject_ClearWeakRefs(self);
    }
}

/* ---- calling ---- */

/* callable(*args) without looking up the thread's state first, which PyObject_Vectorcall() does in case it
   has to raise. */
static inline PyObject *
call_vector(PyObject *callable, PyObject *const *args, Py_ssize_t nargs)
{
    PyTypeObject *type = Py_TYPE(callable);
    if (LIKELY(PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL))) {
        vectorcallfunc function;
        memcpy(&function, (char *)callable + type->tp_vectorcall_offset, sizeof(function));
        if (LIKELY(function != NULL)) {
            return function(callable, args, (size_t)nargs, NULL);
        }
    }
    return PyObject_Vectorcall(callable, args, (size_t)nargs, NULL);
}

/* What __aexit__() is given as the type of an exception, for asyncio's own: early releases take no class derived from
   CancelledError for a cancellation.  Borrowed. */
static inline PyObject *
cancellation_or(ctask_state *st, PyObject *kind)
{
    return PyType_Check(kind) && PyType_IsSubtype((PyTypeObject *)kind, (PyTypeObject *)st->CancelledError)
               ? st->CancelledError
               : kind;
}

/* ---- type tests that need no state ---- */

/* Exactly ctask.Future or ctask.Task, or what gather() returns, of whichever interpreter: a subclass made in
   Python gets the tp_dealloc of its metatype.  How it is cancelled differs: future_cancel_any(). */
static inline int
future_is_exact(PyObject *obj)
{
    destructor dealloc = Py_TYPE(obj)->tp_dealloc;
    return dealloc == future_dealloc || dealloc == task_dealloc || dealloc == future_derived_dealloc;
}

static inline int
task_is_exact(PyObject *obj)
{
    return Py_TYPE(obj)->tp_dealloc == task_dealloc;
}

/* A loop of ours or of a subclass that does not define __setattr__, or NULL.  (If one does, we no longer
   see which methods are replaced on the instance, and asyncio's documented calls are made instead.) */
static inline LoopObj *
loop_cast(PyObject *obj)
{
    return Py_TYPE(obj)->tp_setattro == loop_setattro ? (LoopObj *)obj : NULL;
}

/* The loop, if work may go straight to its ring and nobody can tell: open, not in debug mode, and with
   call_soon, call_at, time, get_debug, create_future and _run_once neither overridden in a subclass nor
   replaced on the instance.  Otherwise NULL. */
static inline LoopObj *
loop_plain(PyObject *obj)
{
    LoopObj *loop = loop_cast(obj);
    if (loop == NULL || !loop->is_open || loop->debug) {
        return NULL;
    }
    if (UNLIKELY(loop->type_version != Py_TYPE(obj)->tp_version_tag || loop->type_version == 0)) {
        loop_check_overrides(loop);
    }
    return loop->overridden ? NULL : loop;
}

/* ---- chains of futures ---- */

/* See may_go_on().  Lists of callbacks and exceptions take the trashcan themselves. */
static inline int
future_may_go_on(FutureObj *fut)
{
    return may_go_on(fut->result) || may_go_on(fut->callback0) || may_go_on(fut->cancel_msg);
}

/* ---- the call graph (3.14+): who waits for whom ---- */

#if FUTURE_CALL_GRAPH
PART int awaited_by_call(ctask_state *st, PyObject *function, PyObject *fut, TaskObj *task);
#endif

static inline int
awaited_by_add(ctask_state *st, PyObject *fut, TaskObj *task)
{
#if FUTURE_CALL_GRAPH
    if (LIKELY(future_is_exact(fut) && ((FutureObj *)fut)->awaited_by == NULL)) {
        ((FutureObj *)fut)->awaited_by = Py_NewRef(task);
        return 0;
    }
    return awaited_by_call(st, st->stock_awaited_by_add, fut, task);
#else
    (void)st, (void)fut, (void)task;
    return 0;
#endif
}

static inline int
awaited_by_discard(ctask_state *st, PyObject *fut, TaskObj *task)
{
#if FUTURE_CALL_GRAPH
    if (LIKELY(future_is_exact(fut))) {
        PyObject *awaited_by = ((FutureObj *)fut)->awaited_by;
        if (LIKELY(awaited_by == (PyObject *)task)) {
            Py_CLEAR(((FutureObj *)fut)->awaited_by);
            return 0;
        }
        if (awaited_by == NULL) {
            return 0;
        }
    }
    return awaited_by_call(st, st->stock_awaited_by_discard, fut, task);
#else
    (void)st, (void)fut, (void)task;
    return 0;
#endif
}

#endif
