/* The exit of child processes (child.c). */

#ifndef CTASK_CHILD_H
#define CTASK_CHILD_H

#include "handles/objects.h"

/* Have transport._process_exited(returncode) called when the child ends.  0 if there is no pidfd of it. */
PART int child_watch(LoopObj *loop, PyObject *transport, PyObject *pid);
PART int child_setup(PyObject *module, ctask_state *st);

#endif
