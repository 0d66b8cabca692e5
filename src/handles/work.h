/* May work go straight to a loop, and how it gets there (work.c). */

#ifndef CTASK_WORK_H
#define CTASK_WORK_H

#include "handles/objects.h"

PART int loop_setattro(PyObject *self, PyObject *name, PyObject *value);
PART int loop_check_overrides(LoopObj *loop);
/* What stands behind a method of _ctask.Loop; NULL if a program has put something else in its place. */
PART PyMethodDef *loop_method_behind(ctask_state *st, PyObject *ours);
PART int loop_ready(LoopObj *loop, void *subject, unsigned kind, PyObject *arg, PyObject *context);
/* Drop a call whose node is in no timers any more. */
PART void timer_call_free(timer_call *call);
/* Drop what an entry refers to. */
PART void entry_forget(ring_entry *entry);
PART void loop_forget_ready(LoopObj *loop);

/* ---- may work go straight there? ---- */

/* A loop of ours or of a subclass that does not define __setattr__, or NULL.  (If one does, we no longer
   see which methods are replaced on the instance, and asyncio's documented calls are made instead.) */
static inline LoopObj *
loop_cast(PyObject *obj)
{
    return Py_TYPE(obj)->tp_setattro == loop_setattro ? (LoopObj *)obj : NULL;
}

/* The loop, if work may go straight to its ring and nobody can tell: open, not in debug mode, and with
   call_soon, call_at, time, get_debug, create_future and _run_once neither overridden in a subclass nor
   replaced on the instance.  Otherwise NULL. */
static inline LoopObj *
loop_plain(PyObject *obj)
{
    LoopObj *loop = loop_cast(obj);
    if (loop == NULL || !loop->is_open || loop->debug) {
        return NULL;
    }
    if (UNLIKELY(loop->type_version != Py_TYPE(obj)->tp_version_tag || loop->type_version == 0)) {
        loop_check_overrides(loop);
    }
    return loop->overridden ? NULL : loop;
}

/* Set RuntimeError if the loop is closed. */
static inline int
loop_check_open(const LoopObj *loop)
{
    if (LIKELY(loop->is_open)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

#endif
