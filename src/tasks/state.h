/* What the module's state has for futures, tasks and their registry (ctask.h). */

#ifndef CTASK_TASKS_STATE_H
#define CTASK_TASKS_STATE_H

#include "base/compat.h"
#include "base/freelist.h"
#include "base/list.h"

#define TASKS_NAMES(X)          \
    X(_asyncio_future_blocking) \
    X(_loop)                    \
    X(add_done_callback)        \
    X(cancelled)                \
    X(context)                  \
    X(done)                     \
    X(exception)                \
    X(get_loop)                 \
    X(is_running)               \
    X(msg)                      \
    X(remove_done_callback)     \
    X(result)                   \
    X(set_result)               \
    X(throw)

#define TASKS_IMPORTS(X)                                            \
    X(stock_Future, "_asyncio", "Future")                           \
    X(stock_Task, "_asyncio", "Task")                               \
    X(stock_enter_task, "_asyncio", "_enter_task")                  \
    X(stock_leave_task, "_asyncio", "_leave_task")                  \
    X(stock_register_task, "_asyncio", "_register_task")            \
    X(stock_get_event_loop, "_asyncio", "get_event_loop")           \
    X(stock_get_running_loop, "_asyncio", "get_running_loop")       \
    X(CancelledError, "asyncio.exceptions", "CancelledError")       \
    X(InvalidStateError, "asyncio.exceptions", "InvalidStateError") \
    X(iscoroutine, "asyncio.coroutines", "iscoroutine")             \
    X(traceback_extract_stack, "traceback", "extract_stack")

#define TASKS_TYPES(X) \
    X(FutureType)      \
    X(TaskType)        \
    X(FutureIterType)  \
    X(TaskStepType)    \
    X(DoneType)

/* stock_*: functions of `_asyncio`'s types, unbound.  swap_current_task: _asyncio's, NULL before 3.12.  current_tasks:
   {loop: task} of 3.13 and earlier, shared with _asyncio. */
#if FUTURE_CALL_GRAPH
#define TASKS_CALL_GRAPH(X)     \
    X(stock_awaited_by_add)     \
    X(stock_awaited_by_discard) \
    X(stock_current_task)
#else
#define TASKS_CALL_GRAPH(X)
#endif
#define TASKS_OBJECTS(X)   \
    X(stock_set_exception) \
    X(stock_result)        \
    X(stock_task_cancel)   \
    X(msg_kwnames)         \
    X(swap_current_task)   \
    X(current_tasks)       \
    X(context_kwnames)     \
    TASKS_CALL_GRAPH(X)

#define TASKS_FREELISTS(X) \
    X(tasks.free_futures)  \
    X(tasks.free_tasks)

struct tasks_state {
    uint64_t counter; // for Task-N
    uint64_t serials; // tasks so far
    freelist free_futures;
    freelist free_tasks;
    struct list_node pending; // 3.13 and earlier: pending tasks, borrowed
    PyObject *(*run_as_callback)(TaskObj *task, PyObject *exc, PyObject *fut); // task.c's
    const struct future_kind *derived_future; // gather()'s
    /* Where a CoroType has its name, a const char *, and what it awaits, borrowed or NULL: offsets (coro.c). */
    ptrdiff_t coro_name, coro_awaiting;
    /* For who observes the task's loop (trace.c): it is new; it has run its first step at once, since `began`. */
    void (*observe_task)(void *loop, TaskObj *task);
    void (*observe_eager)(void *loop, TaskObj *task, uint64_t began);
    uint64_t (*observe_clock)(void *loop);
    int thread_state_checked; // 3.14+: the offsets in compat.h are this interpreter's
};

#endif
