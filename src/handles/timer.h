/* A TimerHandle and its place among the timers (timer.c). */

#ifndef CTASK_TIMER_H
#define CTASK_TIMER_H

#include "handles/objects.h"

PART int timer_setup(PyObject *module, ctask_state *st);
PART void timer_dealloc(PyObject *self);
PART int timer_cancel(TimerObj *timer, ctask_state *st);
PART int timer_remove(PyObject *loop, TimerObj *timer);

#endif
