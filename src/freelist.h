/* Memory of dead objects, kept for the next of their kind.

   What is kept is neither tracked by the garbage collector nor counted as a reference to its type; taking
   one is PyObject_Init() and the caller's own filling in.  An object whose finalizer has run keeps a mark
   of that in its collector's header, so it is not taken back. */

#ifndef CTASK_FREELIST_H
#define CTASK_FREELIST_H

#include "compat.h"

typedef struct {
    PyObject *first; // linked through the word behind the object's header
    int length;
    int limit;       // 0 when the module is being cleared
} freelist;

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
        return (PyObject *)_PyObject_GC_New(type);
    }
    list->first = *freelist_link(obj);
    list->length--;
    return PyObject_Init(obj, type);
}

/* Instead of tp_free(), for an object that is untracked and empty.  The caller drops the type. */
static inline void
freelist_give(freelist *list, PyObject *obj)
{
    if (list->length >= list->limit || PyObject_GC_IsFinalized(obj)) {
        PyObject_GC_Del(obj);
        return;
    }
    *freelist_link(obj) = list->first;
    list->first = obj;
    list->length++;
}

/* Before the types go, which know how to free. */
static inline void
freelist_close(freelist *list)
{
    list->limit = 0;
    while (list->first != NULL) {
        PyObject *obj = list->first;
        list->first = *freelist_link(obj);
        list->length--;
        PyObject_GC_Del(obj);
    }
}

#endif
