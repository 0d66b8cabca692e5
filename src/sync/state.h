/* What the module's state has for locks and queues (ctask.h). */

#ifndef CTASK_SYNC_STATE_H
#define CTASK_SYNC_STATE_H

#include "base/compat.h"

#define SYNC_NAMES(X)    \
    X(Event)             \
    X(_finished)         \
    X(_get)              \
    X(_get_loop)         \
    X(_init)             \
    X(_is_shutdown)      \
    X(_maxsize)          \
    X(_notify)           \
    X(_put)              \
    X(_putters)          \
    X(_queue)            \
    X(_unfinished_tasks) \
    X(_wake_up_first)    \
    X(_wake_up_next)     \
    X(_wakeup_next)      \
    X(append)            \
    X(clear)             \
    X(empty)             \
    X(full)              \
    X(get_nowait)        \
    X(locked)            \
    X(notify)            \
    X(popleft)           \
    X(qsize)             \
    X(remove)            \
    X(set)               \
    X(wait)

#if PY_VERSION_HEX >= 0x030D0000
#define SYNC_NEWER_IMPORTS(X) X(QueueShutDown, "asyncio.queues", "QueueShutDown")
#else
#define SYNC_NEWER_IMPORTS(X)
#endif
#define SYNC_IMPORTS(X)                                            \
    X(stock_PriorityQueue, "asyncio.queues", "PriorityQueue")      \
    X(stock_LifoQueue, "asyncio.queues", "LifoQueue")              \
    X(QueueEmpty, "asyncio.queues", "QueueEmpty")                  \
    X(QueueFull, "asyncio.queues", "QueueFull")                    \
    X(locks_module, "asyncio", "locks")                            \
    X(heappush, "heapq", "heappush")                               \
    X(heappop, "heapq", "heappop")                                 \
    X(deque, "collections", "deque")                               \
    X(stock_Lock, "asyncio.locks", "Lock")                         \
    X(stock_Event, "asyncio.locks", "Event")                       \
    X(stock_Condition, "asyncio.locks", "Condition")               \
    X(stock_Semaphore, "asyncio.locks", "Semaphore")               \
    X(stock_BoundedSemaphore, "asyncio.locks", "BoundedSemaphore") \
    SYNC_NEWER_IMPORTS(X)

#define SYNC_TYPES(X) \
    X(LockType)       \
    X(EventType)      \
    X(ConditionType)  \
    X(SemaphoreType)  \
    X(BoundedType)    \
    X(QueueType)

#define SYNC_OBJECTS(X) \
    X(lock_class)       \
    X(deque_popleft)    \
    X(deque_append)     \
    X(stock_queue_join) \
    X(stock_queue_get)  \
    X(stock_queue_put)

#define SYNC_FREELISTS(X)

/* The classes of sync.h. */
typedef enum { SYNC_LOCK, SYNC_EVENT, SYNC_SEMAPHORE, SYNC_BOUNDED, SYNC_CONDITION, SYNC_KINDS } sync_kind;

struct sync_state {
    struct {
        unsigned int version; // tp_version_tag of the last class of its kind (sync.h)
        char overridden; // what that overrides
    } types[SYNC_KINDS];
    unsigned int plain_queues[3]; // the same for queues without overrides, by kind (queues_core.c)
    char condition_has_notify; // asyncio's, that is (condition.c)
};

#endif
