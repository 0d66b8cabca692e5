/* The pages of the interpreter's arenas: see arenas.c. */

#ifndef CTASK_ARENAS_H
#define CTASK_ARENAS_H

#include "ctask.h"

PART int arenas_setup(PyObject *module, ctask_state *st);
PART void arenas_begin(void);
PART void arenas_sleep(void);
PART void arenas_wake(void);
PART void arenas_end(void);
PART int64_t arenas_tidy(void);
PART void arenas_forked(void);

#endif
