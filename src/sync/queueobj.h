/* The fields of a queue. */

#ifndef CTASK_QUEUEOBJ_H
#define CTASK_QUEUEOBJ_H

#include "coro/core.h"

#define QUEUE_SHUTDOWN (PY_VERSION_HEX >= 0x030D0000)

/* How items are put and taken: asyncio's three ways in C, or by calling the hooks. */
typedef enum { QUEUE_FIFO, QUEUE_LIFO, QUEUE_PRIORITY, QUEUE_HOOKS } queues_kind;

typedef struct {
    CORE_HEAD
    PyObject *loop; // owned; what it is bound to, or NULL
    PyObject *maxsize; // owned; as it was given, NULL before __init__
    PyObject *items; // owned; `_queue`, NULL before _init()
    PyObject *getters; // owned; deque, NULL until one waits or somebody asks for it
    PyObject *putters; // owned; the same
    PyObject *finished; // owned; the event of join(), NULL until it is needed
    Py_ssize_t limit; // maxsize as a count of items; 0: none, -1: asyncio's own methods have to ask
    Py_ssize_t unfinished;
    unsigned int type_version; // tp_version_tag for which `overridden` and `kind` hold, 0: look anew
    unsigned char kind;
    char overridden; // asyncio's own methods are to be called
    char replaced; // a method was set on the instance
    char is_shutdown;
    unsigned char is_finished; // the event's state, unless others can change that:
    char finished_shown; // it was given out
} QueueObj;

#endif
