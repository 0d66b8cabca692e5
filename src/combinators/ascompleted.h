/* What the other parts know of as_completed(). */

#ifndef CTASK_ASCOMPLETED_H
#define CTASK_ASCOMPLETED_H

#include "ctask.h"

PART int ascompleted_setup(PyObject *module, ctask_state *st);

#endif
