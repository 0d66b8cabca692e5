/* asyncio's protocol and Process of a child without pipes (subprocess.c). */

#ifndef CTASK_SUBPROCESS_H
#define CTASK_SUBPROCESS_H

#include "ctask.h"

/* Is the attribute this very object?  -1 with an exception. */
PART int attribute_is(PyObject *obj, PyObject *name, PyObject *expected);
/* Is this attribute of `obj` a method, of this function?  -1 with an exception. */
PART int method_is(PyObject *obj, PyObject *name, PyObject *function);

/* May the two that follow be called: are asyncio's classes as asyncio has them?  -1 with an exception. */
PART int subprocess_may(ctask_state *st);
/* A SubprocessStreamProtocol behind its connection_made(transport). */
PART PyObject *subprocess_protocol(ctask_state *st, PyObject *loop, PyObject *transport);
/* Process(transport, protocol, loop) */
PART PyObject *subprocess_process(ctask_state *st, PyObject *transport, PyObject *protocol, PyObject *loop);
/* protocol.process_exited(), if it is asyncio's own, and there are no pipes; 0 if it has to be called.  -1 with an
   exception. */
PART int subprocess_exited(ctask_state *st, PyObject *protocol, PyObject *transport);
/* protocol.connection_lost(exc) */
PART PyObject *subprocess_lost(ctask_state *st, PyObject *protocol, PyObject *exc);
PART int subprocess_setup(PyObject *module, ctask_state *st);

#endif
