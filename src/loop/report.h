/* What is said of entries that fail or are slow (report.c). */

#ifndef CTASK_REPORT_H
#define CTASK_REPORT_H

#include "handles/objects.h"

/* The handle that asyncio would have made for this entry: for reports, and for those who look at loop._ready.
   Borrows from the entry. */
PART PyObject *entry_as_handle(LoopObj *loop, ring_entry *entry);
PART int report_exception(LoopObj *loop, PyObject *handle);
PART int report_entry(LoopObj *loop, ring_entry *entry);
PART int report_slow(LoopObj *loop, PyObject *handle, double seconds);
/* Tell the exception handler what `callback(arg)` raised, as of a handle; `arg` may be NULL.  -1 for
   KeyboardInterrupt and SystemExit, which end the loop. */
PART int loop_report(LoopObj *loop, PyObject *callback, PyObject *arg);
/* loop.call_exception_handler(report), called as in an `except` clause that handles `exc`. */
PART PyObject *loop_tell_handler(ctask_state *st, PyObject *loop, PyObject *report, PyObject *exc);

#endif
