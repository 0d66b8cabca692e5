/* The handles of call_soon_threadsafe() (threadsafe.c). */

#ifndef CTASK_THREADSAFE_H
#define CTASK_THREADSAFE_H

#include "handles/objects.h"

PART int threadsafe_setup(PyObject *module, ctask_state *st);
#if THREADSAFE_HANDLES
PART void threadsafe_dealloc(PyObject *self);
PART int threadsafe_enter(PyObject *handle, ctask_state *st);
PART void threadsafe_leave(PyObject *handle, ctask_state *st);
#endif

#endif
