/* The fields of a queue, and what is overridden of it. */

#ifndef CTASK_QUEUES_H
#define CTASK_QUEUES_H

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

/* ---- queues_core.c ---- */

PART void queues_dealloc(PyObject *self);
PART int queues_setattro(PyObject *self, PyObject *name, PyObject *value);
/* Returns 1 if asyncio's own methods are to be called. */
PART int queues_look(QueueObj *q);
/* The type, with these methods. */
PART int queues_add_type(PyObject *module, ctask_state *st, const core_method *methods, size_t n_methods);

/* The queue if it is as expected, else NULL.  `self` has the core. */
static inline QueueObj *
queues_cast(PyObject *self)
{
    QueueObj *q = (QueueObj *)self;
    if (UNLIKELY(Py_TYPE(self)->tp_setattro != queues_setattro)) {
        return NULL;
    }
    if (UNLIKELY(q->type_version == 0 || q->type_version != Py_TYPE(self)->tp_version_tag)) {
        return queues_look(q) ? NULL : q;
    }
    return q->overridden ? NULL : q;
}

#endif
