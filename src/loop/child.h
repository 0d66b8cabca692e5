/* The exit of child processes (child.c). */

#ifndef CTASK_CHILD_H
#define CTASK_CHILD_H

#include "handles/objects.h"

PART int child_setup(PyObject *module, ctask_state *st);

#endif
