/* Protocols of ours that take bytes as they were read, instead of data_received(): what is above io/ makes itself
   known here, and the transports below know nothing of it. */

#ifndef CTASK_SINK_H
#define CTASK_SINK_H

#include "handles/objects.h"

typedef struct sink_kind {
    /* Is it exactly such a protocol, none of whose methods was replaced? */
    int (*is_one)(PyObject *protocol);
    /* The bytes are valid during the call only.  -1 with an exception set. */
    int (*feed)(PyObject *protocol, const char *data, Py_ssize_t n);
    const char *failed; // how asyncio reports what feed() raises
} sink_kind;

static inline void
sink_add(ctask_state *st, const sink_kind *kind)
{
    size_t i = 0;
    while (st->io.sinks[i] != NULL) {
        i++;
    }
    st->io.sinks[i] = kind;
}

/* The kind that `protocol` is of, or NULL. */
static inline const sink_kind *
sink_of(ctask_state *st, PyObject *protocol)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(st->io.sinks) && st->io.sinks[i] != NULL; i++) {
        if (st->io.sinks[i]->is_one(protocol)) {
            return st->io.sinks[i];
        }
    }
    return NULL;
}

#endif
