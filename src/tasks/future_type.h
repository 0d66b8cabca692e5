/* The type ctask.Future (future_type.c), and what ctask.Task takes over of it. */

#ifndef CTASK_FUTURE_TYPE_H
#define CTASK_FUTURE_TYPE_H

#include "ctask.h"

PART int future_setup(PyObject *module, ctask_state *st);
PART PyObject *Future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PART PyObject *Future_remove_done_callback(PyObject *self, PyObject *callback);
PART PyObject *Future_get_callbacks(PyObject *self, void *closure);

#endif
