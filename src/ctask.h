/* The module's state, composed of what each room has for it, and what the front door offers to all.

   Everything mutable lives in the module state or in an object, never in a C global, so that
   sub-interpreters stay possible.  Hot code finds out what an object is without the state: the slot
   functions of our types are addresses of our own, and a Python subclass never has the same tp_dealloc
   (see future_is_exact() and loop_cast()).

   A room's state.h lists, for ctask.c: names that are looked up at run time and interned once; what is taken
   from the standard library when the module is loaded; types and other objects that are made then or later;
   free lists; and the structure with all that is no object.  What several rooms use is the lowest one's. */

#ifndef CTASK_H
#define CTASK_H

#include "base/base.h"

#include "base/state.h"
#include "handles/state.h"
#include "tasks/state.h"
#include "loop/state.h"
#include "coro/state.h"
#include "sync/state.h"
#include "combinators/state.h"
#include "io/state.h"
#include "streams/state.h"
#include "tls/state.h"

#define CTASK_OF_EACH_ROOM(LIST, X)                                                               \
    BASE_##LIST(X) HANDLES_##LIST(X) TASKS_##LIST(X) LOOP_##LIST(X) CORO_##LIST(X) SYNC_##LIST(X) \
        COMBINATORS_##LIST(X) IO_##LIST(X) STREAMS_##LIST(X) TLS_##LIST(X)

#define CTASK_NAMES(X) CTASK_OF_EACH_ROOM(NAMES, X)
#define CTASK_IMPORTS(X) CTASK_OF_EACH_ROOM(IMPORTS, X)
#define CTASK_TYPES(X) CTASK_OF_EACH_ROOM(TYPES, X)
#define CTASK_OBJECTS(X) CTASK_OF_EACH_ROOM(OBJECTS, X)
#define CTASK_FREELISTS(X) CTASK_OF_EACH_ROOM(FREELISTS, X)

/* All pointers are owned. */
typedef struct {
#define X(name) PyTypeObject *name;
    CTASK_TYPES(X)
#undef X
#define X(name, module, attribute) PyObject *name;
    CTASK_IMPORTS(X)
#undef X
#define X(name) PyObject *name;
    CTASK_OBJECTS(X)
    struct {
        CTASK_NAMES(X)
    } str;
#undef X
    struct base_state base;
    struct handles_state handles;
    struct tasks_state tasks;
    struct loop_state loop;
    struct coro_state coro;
    struct sync_state sync;
    struct combinators_state combinators;
    struct io_state io;
    struct streams_state streams;
    struct tls_state tls;
} ctask_state;

extern struct PyModuleDef ctask_module;

PART ctask_state *state_of(PyObject *self);
PART PyObject *single_argument(PyObject *self, const char *method, const char *name, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames);
PART int add_methods(PyTypeObject *type, PyMethodDef *methods);

/* An object is made that uses the state until it ends: should the interpreter's last collection be to come, module and
   types must not be in it. */
static inline void
state_keep(ctask_state *st)
{
    if (UNLIKELY(st->base.given_up != NULL)) {
        Py_INCREF(st->base.given_up); // for good
        st->base.given_up = NULL;
    }
}

/* tp_alloc of our types; for a subclass made in Python it is to be called by name. */
PART PyObject *instance_alloc(PyTypeObject *type, Py_ssize_t n);
PART int add_type(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec, PyObject *base);

#endif
