/* What a coroutine shows for a frame (coroframe.c). */

#ifndef CTASK_COROFRAME_H
#define CTASK_COROFRAME_H

#include "coro/coroobj.h"

/* For cr_frame and cr_await. */
PART PyObject *coroframe_of(CoroObj *coro);
PART PyObject *coroframe_awaited(CoroObj *coro);
PART int coroframe_setup(PyObject *module, ctask_state *st);

#endif
