/* Is time.monotonic() the system's?  freezegun and its like put a clock of their own there, which asyncio's loop reads
   by time.monotonic(), and ours then, too: by asyncio's time().  See clock.c. */

#ifndef CTASK_CLOCK_H
#define CTASK_CLOCK_H

#include "ctask.h"

#include <time.h>

PART int clock_setup(PyObject *module, ctask_state *st);
PART int clock_look(ctask_state *st);

/* CLOCK_MONOTONIC. */
static inline int64_t
clock_nanoseconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int
clock_is_real(ctask_state *st)
{
    PyDictKeysObject *keys = ((PyDictObject *)st->time_names)->ma_keys;
    if (LIKELY(keys == st->handles.clock_keys && st->handles.clock_index < keys->dk_nentries &&
               DK_UNICODE_ENTRIES(keys)[st->handles.clock_index].me_value == st->monotonic &&
               ((PyCFunctionObject *)st->monotonic)->m_ml->ml_meth == st->handles.monotonic_method)) {
        return 1;
    }
    return clock_look(st);
}

#endif
