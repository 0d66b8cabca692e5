/* What the module's state has for every room (ctask.h). */

#ifndef CTASK_BASE_STATE_H
#define CTASK_BASE_STATE_H

#include "base/context.h"

#define BASE_NAMES(X)

#define BASE_IMPORTS(X)

#define BASE_TYPES(X)

#define BASE_OBJECTS(X)

#define BASE_FREELISTS(X)

struct base_state {
    context_pool contexts;
    PyObject *given_up; // borrowed; the module once it has given itself up (ctask.c), else NULL
};

#endif
