/* What a C core over a Python class of asyncio's needs (standin.c): such a class is made of both, the core
   first (ctask/_streams.py), and must behave as asyncio's own to who looks at it or overrides a method. */

#ifndef CTASK_STANDIN_H
#define CTASK_STANDIN_H

#include "coro/coroobj.h"

/* A method or function; `self` is args[0] of a method, NULL of a function.  `st` is given, so that it need
   not be found; `stock` is asyncio's own, for arguments out of the ordinary. */
typedef PyObject *(*standin_call)(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames, PyObject *stock);

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *module;    // owned: it may be called when its type has been cleared
    ctask_state *st;     // the module's
    PyTypeObject *owner; // owned; whose method it is, NULL for a function
    destructor core;     // the owner's, if it is a core
    PyObject *stock;     // owned; asyncio's function
    PyObject *weakrefs;
    standin_call function;
} StandinObj;

/* What a call of one of ours returned; a coroutine knows whose it is. */
static inline PyObject *
standin_returned(StandinObj *standin, PyObject *result)
{
    if (result != NULL && Py_IS_TYPE(result, standin->st->CoroType) && ((CoroObj *)result)->function == NULL) {
        ((CoroObj *)result)->function = Py_NewRef(standin->stock);
    }
    return result;
}

/* `owner` is NULL for a function; `stock` is stolen, NULL is passed on. */
PART PyObject *standin_new(ctask_state *st, PyTypeObject *owner, PyObject *stock, standin_call function);
/* Give `type` the method, which answers as asyncio's own (of the class `stock`) where it is asked about itself:
   it is a coroutine function if that is one, and has its signature and its documentation. */
PART int standin_method(ctask_state *st, PyTypeObject *type, PyObject *stock, const char *name,
                        standin_call function);
/* The same for a function of asyncio's, `stock`, which becomes module.name. */
PART int standin_function(ctask_state *st, PyObject *module, PyObject *stock, const char *name,
                          standin_call function);
PART int standin_setup(PyObject *module, ctask_state *st);

/* What is in Python, `module`.`name`, which is looked up the first time and then in *slot, owned.  Borrowed; NULL with
   an exception. */
PART PyObject *standin_python(PyObject **slot, const char *module, const char *name);

/* Is any of `names` overridden in `type`, against `core` or (what is not C) `stock`?  1 if so, or if that
   cannot be found out. */
PART int standin_overrides(PyTypeObject *type, PyTypeObject *core, PyObject *stock, PyObject *const *names,
                           size_t n_names);

/* Is the attribute `name` one of `names`, which are interned? */
static inline int
standin_is_one_of(PyObject *name, PyObject *const *names, size_t n_names)
{
    int interned = PyUnicode_CheckExact(name) && PyUnicode_CHECK_INTERNED(name);
    for (size_t i = 0; i < n_names; i++) {
        if (name == names[i] ||
            (UNLIKELY(!interned) && PyUnicode_Check(name) && PyUnicode_Compare(name, names[i]) == 0)) {
            return 1;
        }
    }
    return 0;
}

/* An attribute that is neither missing nor None. */
static inline int
is_set(PyObject *obj)
{
    return obj != NULL && obj != Py_None;
}

#endif
