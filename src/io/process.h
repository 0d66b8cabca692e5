/* The transport of a child process (process.c). */

#ifndef CTASK_PROCESS_H
#define CTASK_PROCESS_H

#include "ctask.h"

PART int process_setup(PyObject *module, ctask_state *st);

#endif
