/* The transports over pipes and the like; they are made through the loop's own methods. */

#ifndef CTASK_PIPE_H
#define CTASK_PIPE_H

#include "io/transport.h"

PART int pipe_setup(PyObject *module, ctask_state *st);
/* The file of a pipe's transport is about to be closed. */
PART void pipe_let_go(TransportObj *t);
/* This is a forked child: the files are its parent's, who has them block again. */
PART void pipe_leave_to_parent(ctask_state *st);
/* The loop is being closed; or, if that is NULL, the program ends. */
PART void pipe_let_all_go(ctask_state *st, const LoopObj *loop);

#endif
