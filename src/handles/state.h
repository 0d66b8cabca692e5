/* What the module's state has for handles, timers and the clock (ctask.h). */

#ifndef CTASK_HANDLES_STATE_H
#define CTASK_HANDLES_STATE_H

#include "base/freelist.h"

#define HANDLES_NAMES(X)       \
    X(_run)                    \
    X(_run_once)               \
    X(_timer_handle_cancelled) \
    X(_transports)             \
    X(acquire)                 \
    X(call_at)                 \
    X(call_soon)               \
    X(cancel)                  \
    X(create_future)           \
    X(create_task)             \
    X(get_debug)               \
    X(monotonic)               \
    X(release)                 \
    X(time)

#if THREADSAFE_HANDLES
#define HANDLES_NEWER_IMPORTS(X)                                     \
    X(stock_ThreadSafeHandle, "asyncio.events", "_ThreadSafeHandle") \
    X(allocate_lock, "_thread", "allocate_lock")
#else
#define HANDLES_NEWER_IMPORTS(X)
#endif
#define HANDLES_IMPORTS(X)                                      \
    X(stock_Handle, "asyncio.events", "Handle")                 \
    X(stock_TimerHandle, "asyncio.events", "TimerHandle")       \
    X(extract_stack, "asyncio.format_helpers", "extract_stack") \
    HANDLES_NEWER_IMPORTS(X)

#if THREADSAFE_HANDLES
#define HANDLES_NEWER_TYPES(X) X(ThreadSafeHandleType)
#else
#define HANDLES_NEWER_TYPES(X)
#endif
#define HANDLES_TYPES(X) \
    X(HandleType)        \
    X(TimerHandleType)   \
    HANDLES_NEWER_TYPES(X)

/* time_names: the module's dictionary; monotonic: its function, None if that was replaced before (clock.c). */
#define HANDLES_OBJECTS(X) \
    X(empty_tuple)         \
    X(time_names)          \
    X(monotonic)

#define HANDLES_FREELISTS(X) \
    X(handles.free_handles)  \
    X(handles.free_timers)   \
    X(handles.free_threadsafe)

struct handles_state {
    freelist free_handles;
    freelist free_timers;
    freelist free_threadsafe; // 3.14+
    unsigned int versions[2]; // tp_version_tags for which `runs_replaced` holds (handle.c)
    char runs_replaced; // a program put a function of its own in the place of Handle._run
    char freeing; // a handle is freed now (handle_type.h)
    void *clock_keys; // where time.monotonic was last (clock.c)
    Py_ssize_t clock_index;
    PyCFunction monotonic_method; // what it was in C
};

#endif
