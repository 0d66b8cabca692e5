/* What the module's state has for the loop (ctask.h). */

#ifndef CTASK_LOOP_STATE_H
#define CTASK_LOOP_STATE_H

#include "base/compat.h"
#include "base/list.h"

#define LOOP_NAMES(X)         \
    X(Task)                   \
    X(_check_callback)        \
    X(_check_thread)          \
    X(_process_exited)        \
    X(_read_ready)            \
    X(_status_taken)          \
    X(_write_ready)           \
    X(call_exception_handler) \
    X(coro)                   \
    X(debug)                  \
    X(eager_start)            \
    X(fileno)                 \
    X(handle)                 \
    X(message)                \
    X(name)                   \
    X(pidfd_open)             \
    X(slow_callback_duration) \
    X(source_traceback)       \
    X(waitpid)

#define LOOP_IMPORTS(X)                                                            \
    X(stock_Loop, "asyncio.unix_events", "SelectorEventLoop")                      \
    X(format_callback_source, "asyncio.format_helpers", "_format_callback_source") \
    X(tasks_module, "asyncio", "tasks")                                            \
    X(format_handle, "asyncio.base_events", "_format_handle")                      \
    X(partial, "functools", "partial")                                             \
    X(os_module, "asyncio.unix_events", "os")                                      \
    X(logger, "asyncio.log", "logger")

#define LOOP_TYPES(X) \
    X(LoopType)       \
    X(ChildType)

/* posix_*: what os had of them when the module was loaded, NULL if that was not the system's (child.c).
   create_task_code: what it had when it was last looked at, NULL at first (schedule.c). */
#define LOOP_OBJECTS(X)  \
    X(stock_create_task) \
    X(create_task_code)  \
    X(posix_pidfd_open)  \
    X(posix_waitpid)     \
    X(tasks_names)

#define LOOP_FREELISTS(X)

struct loop_state {
    struct list_node open; // the loops that are (loops.c), borrowed
    struct trace *trace; // owned; NULL unless somebody traces (trace.c)
    uint64_t traces; // so far
    struct list_node blocking_files; // those of open transports (blocking.c), borrowed
    int (*descriptor_of_owner)(PyObject *owner); // who called watch_own(); -1: closed behind it (transport.c)
    char create_task_is_wrapped; // that code is a tracer's
    void *task_keys; // where asyncio.tasks.Task was last (schedule.c)
    Py_ssize_t task_index;
    unsigned forks; // between the process that loaded the module and this one (fork.c)
};

#endif
