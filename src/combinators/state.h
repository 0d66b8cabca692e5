/* What the module's state has for gather(), timeouts and the like (ctask.h). */

#ifndef CTASK_COMBINATORS_STATE_H
#define CTASK_COMBINATORS_STATE_H

#include "base/compat.h"

#define COMBINATORS_NAMES(X) \
    X(_abort)                \
    X(_aexit)                \
    X(_cancel_message)       \
    X(_getters)              \
    X(_log_destroy_pending)  \
    X(_make_cancelled_error) \
    X(_on_task_done)         \
    X(_on_timeout)           \
    X(_task)                 \
    X(call_later)            \
    X(cancelling)            \
    X(delay)                 \
    X(loop)                  \
    X(put_nowait)            \
    X(reschedule)            \
    X(return_exceptions)     \
    X(return_when)           \
    X(timeout)               \
    X(uncancel)              \
    X(when)

#if PY_VERSION_HEX >= 0x030D0000
#define COMBINATORS_NEWER_IMPORTS(X)         \
    X(isawaitable, "inspect", "isawaitable") \
    X(stock_AsCompletedIterator, "asyncio.tasks", "_AsCompletedIterator")
#else
#define COMBINATORS_NEWER_IMPORTS(X) X(isfuture, "asyncio.futures", "isfuture")
#endif
#define COMBINATORS_IMPORTS(X)                                       \
    X(stock_sleep, "asyncio.tasks", "sleep")                         \
    X(stock_Timeout, "asyncio.timeouts", "Timeout")                  \
    X(stock_timeout, "asyncio.timeouts", "timeout")                  \
    X(stock_timeout_at, "asyncio.timeouts", "timeout_at")            \
    X(stock_timeout_State, "asyncio.timeouts", "_State")             \
    X(stock_wait_for, "asyncio.tasks", "wait_for")                   \
    X(stock_TaskGroup, "asyncio.taskgroups", "TaskGroup")            \
    X(stock_wake, "asyncio.futures", "_set_result_unless_cancelled") \
    X(stock_GatheringFuture, "asyncio.tasks", "_GatheringFuture")    \
    X(stock_create_task_function, "asyncio.tasks", "create_task")    \
    X(stock_ensure_future, "asyncio.tasks", "ensure_future")         \
    X(stock_gather, "asyncio.tasks", "gather")                       \
    X(stock_wait, "asyncio.tasks", "wait")                           \
    X(stock_shield, "asyncio.tasks", "shield")                       \
    X(stock_as_completed, "asyncio.tasks", "as_completed")           \
    X(stock_release_waiter, "asyncio.tasks", "_release_waiter")      \
    COMBINATORS_NEWER_IMPORTS(X)

#define COMBINATORS_TYPES(X) \
    X(TimeoutType)           \
    X(GatherType)            \
    X(AsCompletedType)       \
    X(TaskGroupType)

#define COMBINATORS_OBJECTS(X) \
    X(wait_release)            \
    X(wait_all)                \
    X(wait_kwnames)            \
    X(timeout_kwnames)         \
    X(stock_wait_for_one)      \
    X(stock_anext)             \
    X(as_completed_generator)  \
    X(loop_kwnames)            \
    X(sleep_wake)              \
    X(timeout_class)           \
    X(timeout_created)         \
    X(timeout_entered)         \
    X(timeout_expiring)        \
    X(timeout_expired)         \
    X(timeout_exited)          \
    X(stock_timeout_aenter)    \
    X(stock_timeout_aexit)     \
    X(stock_group_aenter)      \
    X(stock_group_aexit)       \
    X(stock_on_task_done)

#define COMBINATORS_FREELISTS(X)

struct combinators_state {
    unsigned int plain_timeout; // tp_version_tag of the last class of timeouts without overrides
    unsigned int plain_group; // the same for task groups
    char group_exit_is_mended; // asyncio's (taskgroup.c)
};

#endif
