/* base/: Python's versions and layouts (compat.h), contexts, free lists, lists, and the small helpers that follow.

   It uses Python and the C library only.  What knows a loop, or the module's state, belongs elsewhere. */

#ifndef CTASK_BASE_H
#define CTASK_BASE_H

#include "base/compat.h"
#include "base/context.h"
#include "base/freelist.h"
#include "base/glibc.h"

/* ---- what is made when it is first asked for ---- */

/* Keep `made` (stolen; NULL if that failed) in `*field`, unless making it has run what asks for it as well: the first
   stays.  Returns a new reference to what is kept, or NULL. */
static inline PyObject *
keep_first(PyObject **field, PyObject *made)
{
    if (LIKELY(made != NULL)) {
        if (LIKELY(*field == NULL)) {
            *field = Py_NewRef(made);
        }
        else {
            Py_SETREF(made, Py_NewRef(*field));
        }
    }
    return made;
}

/* ---- exceptions ---- */

/* Is what was raised KeyboardInterrupt or SystemExit?  They end what runs, and no handler of errors hears of them. */
static inline int
raised_is_exit(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* Borrowed, or NULL. */
static inline PyObject *
context_of(PyObject *exc)
{
    PyObject *context = PyException_GetContext(exc);
    Py_XDECREF(context);
    return context;
}

/* An exception is set: it came while `handled` (stolen) was, which becomes its context, or that of the first of those
   that it came of itself. */
static __attribute__((noinline, unused)) void
raised_while(PyObject *handled)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *first = error, *slow = error, *next;
    for (size_t n = 1; first != handled && (next = context_of(first)) != NULL; n++) {
        first = next;
        slow = n % 2 ? slow : context_of(slow);
        if (first == slow) {
            break; // they go round
        }
    }
    if (first != handled && context_of(first) == NULL) {
        PyException_SetContext(first, handled);
    }
    else {
        Py_DECREF(handled);
    }
    PyErr_SetRaisedException(error);
}

/* ---- weak references ---- */

/* PyObject_ClearWeakRefs() for most objects, which have none: no call. */
static inline void
clear_weakrefs(PyObject *self, PyTypeObject *type)
{
    if (UNLIKELY(*(PyObject **)((char *)self + type->tp_weaklistoffset) != NULL)) {
        PyObject_ClearWeakRefs(self);
    }
}

/* ---- calling ---- */

/* callable(*args) without looking up the thread's state first, which PyObject_Vectorcall() does in case it
   has to raise. */
static inline PyObject *
call_vector(PyObject *callable, PyObject *const *args, Py_ssize_t nargs)
{
    PyTypeObject *type = Py_TYPE(callable);
    if (LIKELY(PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL))) {
        vectorcallfunc function;
        memcpy(&function, (char *)callable + type->tp_vectorcall_offset, sizeof(function));
        if (LIKELY(function != NULL)) {
            return function(callable, args, (size_t)nargs, NULL);
        }
    }
    return PyObject_Vectorcall(callable, args, (size_t)nargs, NULL);
}

#endif
