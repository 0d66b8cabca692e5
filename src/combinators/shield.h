/* What the front door knows of shield(). */

#ifndef CTASK_SHIELD_H
#define CTASK_SHIELD_H

#include "ctask.h"

PART int shield_setup(PyObject *module, ctask_state *st);

#endif
