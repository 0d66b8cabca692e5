/* Memory of dead objects, kept for the next of their kind.

   What is kept is not tracked by the garbage collector and keeps its reference to its type, so that taking
   it costs next to nothing; what it holds else is the caller's to fill in.  An object whose finalizer has
   run bears a mark of that in its collector's header, so it is not taken back. */

#ifndef CTASK_FREELIST_H
#define CTASK_FREELIST_H

#include "base/compat.h"

typedef struct {
    PyObject *first; // linked through the word behind the object's header
    int length;
    int limit;       // 0 when the module is being cleared
} freelist;

/* A new object of one of our types (ctask.c). */
PART PyObject *freelist_more(PyTypeObject *type);

static inline PyObject **
freelist_link(PyObject *obj)
{
    return (PyObject **)(obj + 1);
}

static inline PyObject *
freelist_take(freelist *list, PyTypeObject *type)
{
    PyObject *obj = list->first;
    if (obj == NULL) {
        return freelist_more(type);
    }
    list->first = *freelist_link(obj);
    list->length--;
#ifdef Py_REF_DEBUG
    _Py_NewReference(obj);
#else
    Py_SET_REFCNT(obj, 1);
#endif
    return obj;
}

/* Instead of tp_free() and dropping the type, for an object that is untracked and empty.  `finalizes` tells
   whether the type has a finalizer at all. */
static inline void
freelist_give(freelist *list, PyObject *obj, int finalizes)
{
    if (list->length >= list->limit || (finalizes && PyObject_GC_IsFinalized(obj))) {
        PyTypeObject *type = Py_TYPE(obj);
        PyObject_GC_Del(obj);
        Py_DECREF(type);
        return;
    }
    *freelist_link(obj) = list->first;
    list->first = obj;
    list->length++;
}

static inline void
freelist_close(freelist *list)
{
    list->limit = 0;
    while (list->first != NULL) {
        PyObject *obj = list->first;
        PyTypeObject *type = Py_TYPE(obj);
        list->first = *freelist_link(obj);
        list->length--;
        PyObject_GC_Del(obj);
        Py_DECREF(type);
    }
}

#endif
