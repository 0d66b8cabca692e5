/* `await fut` (future_iter.c). */

#ifndef CTASK_FUTURE_ITER_H
#define CTASK_FUTURE_ITER_H

#include "ctask.h"

PART int future_iter_setup(PyObject *module, ctask_state *st);
PART PyObject *future_iter(PyObject *self);
PART void future_become_iterator(PyTypeObject *type);
PART int future_throw_arguments(PyObject *const *args, Py_ssize_t nargs);

#endif
