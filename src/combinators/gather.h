/* What the other parts know of gather()'s future. */

#ifndef CTASK_GATHER_H
#define CTASK_GATHER_H

#include "ctask.h"

PART int gather_setup(PyObject *module, ctask_state *st);

#endif
