/* A queue as a core, and what is overridden of it (queues_core.c). */

#ifndef CTASK_QUEUES_CORE_H
#define CTASK_QUEUES_CORE_H

#include "sync/queueobj.h"

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
