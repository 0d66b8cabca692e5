/* What the module's state has for coroutines and objects that pass for asyncio's (ctask.h). */

#ifndef CTASK_CORO_STATE_H
#define CTASK_CORO_STATE_H

#include "base/freelist.h"

#define CORO_NAMES(X) \
    X(close)          \
    X(cr_await)

#define CORO_IMPORTS(X) X(stock_Queue, "asyncio.queues", "Queue")

#define CORO_TYPES(X) \
    X(CoroType)       \
    X(CoroFrameType)  \
    X(StandinType)    \
    X(CoreAttrType)

/* stop_iteration: kept by coro.c, NULL if there is none. */
#define CORO_OBJECTS(X) \
    X(stop_iteration)   \
    X(core_types)

#define CORO_FREELISTS(X) X(coro.free_coros)

struct coro_state {
    freelist free_coros;
    char passes_for_asyncio; // install()ed: functions say that they are asyncio's
};

#endif
