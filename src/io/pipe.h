/* The transports over pipes and the like; they are made through the loop's own methods. */

#ifndef CTASK_PIPE_H
#define CTASK_PIPE_H

#include "io/transport.h"

PART int pipe_setup(PyObject *module, ctask_state *st);

#endif
