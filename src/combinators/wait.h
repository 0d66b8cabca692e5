/* What the front door knows of wait(). */

#ifndef CTASK_WAIT_H
#define CTASK_WAIT_H

#include "ctask.h"

PART int wait_setup(PyObject *module, ctask_state *st);

#endif
