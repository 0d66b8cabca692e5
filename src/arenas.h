/* The pages of the interpreter's arenas: see arenas.c. */

#ifndef CTASK_ARENAS_H
#define CTASK_ARENAS_H

#include "ctask.h"

PART int arenas_setup(PyObject *module, ctask_state *st);
PART void arenas_install(void);

#endif
