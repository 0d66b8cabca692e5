/* Cores: what classes of asyncio's that are Python have in C (core.c).

   A class like ctask.Lock is made of a core (the type `_ctask.Lock`) over asyncio's own class, and passes for the
   latter in everything.  So the core must not show in the layout of its objects, or a class that derives from two
   of them, or from one and int or dict, could not be made.  Its fields lie behind the end of what Python knows of
   the object, which is as long as any plain object's; only core_new() makes objects that have them, and only of
   classes whose line of first bases leads to the core and which add no fields (slots) of their own.

   Any other object of a class that inherits from a core has none: all that it does is asyncio's own, with attributes
   in its dictionary.  core_is() tells; nothing may touch a field of an object for which it was not asked.  Methods
   (standin.h) and attributes (core.c) ask before they call a part's functions, so these need not. */

#ifndef CTASK_CORE_H
#define CTASK_CORE_H

#include "coro/standin.h"

#include <structmember.h>

#if PY_VERSION_HEX >= 0x030C0000
#define CORE_BASICSIZE ((Py_ssize_t)sizeof(PyObject))
#define CORE_FLAGS (Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF)
#define CORE_WEAKREFS
#else
#define CORE_BASICSIZE ((Py_ssize_t)(sizeof(PyObject) + sizeof(PyObject *)))
#define CORE_FLAGS Py_TPFLAGS_MANAGED_DICT
#define CORE_WEAKREFS PyObject *weakrefs; // of the class
#endif

/* no_values: where an object of this size may have the values of its attributes; zeros say that it has none, should
   it get a class (by assignment to __class__) that core_new() has not seen. */
#define CORE_HEAD                                                             \
    PyObject_HEAD                                                             \
    CORE_WEAKREFS                                                             \
    unsigned int no_values;                                                   \
    PyObject *shown; /* owned; its __dict__ when it was given out, or NULL */ \
    ctask_state *st; /* borrowed from the type's module */

typedef struct {
    CORE_HEAD
} CoreObj;

/* The methods of a core; all that asyncio's class has, too. */
typedef struct {
    const char *name;
    standin_call function;
} core_method;

/* Make the type, which becomes module.name and *slot, over asyncio's class `stock`.  Its basicsize has to be that of
   PyObject, its tp_dealloc its own and of no other core but one that derives from it. */
PART int core_add(PyObject *module, ctask_state *st, const char *name, PyTypeObject **slot, PyType_Spec *spec,
                  PyTypeObject *base, PyObject *stock, const core_method *methods, size_t n_methods);
/* standin_python() for the class over a core; another class in its place is an error. */
PART PyTypeObject *core_class(PyObject **slot, const char *module, const char *name, PyTypeObject *core);
PART int core_setup(PyObject *module, ctask_state *st);
/* All cores are there.  Our functions call their slots, which have to stay those in C from now on: a slot that looks its
   method up would find our functions again. */
PART int core_seal(ctask_state *st);
/* For tp_new: an object of `size` bytes with zeros for fields, or without the core if its class cannot have it. */
PART PyObject *core_new(PyTypeObject *type, destructor dealloc, size_t size);
/* The same of a class that is known to have the core. */
PART PyObject *core_make(ctask_state *st, PyTypeObject *type, size_t size);
/* For tp_dealloc, after the fields were cleared. */
PART void core_free(PyObject *self);
/* stock.__init__(self, *args, **kwargs) */
PART int core_init_stock(PyObject *self, PyObject *args, PyObject *kwargs, PyObject *stock);
/* Take over what was written to the object's __dict__ since it was given out. */
PART int core_take_back(PyObject *self);
/* The state of the module that the cores of this class are from; NULL with an exception. */
PART ctask_state *core_state(PyTypeObject *type);
PART int core_is_further(PyTypeObject *type, destructor dealloc);

static inline int
core_fits(PyTypeObject *type)
{
    return type->tp_basicsize == CORE_BASICSIZE && (type->tp_flags & CORE_FLAGS) == CORE_FLAGS
#if PY_VERSION_HEX < 0x030C0000
           && type->tp_weaklistoffset == (Py_ssize_t)sizeof(PyObject)
#endif
        ;
}

/* Does an object of this class have the fields of the core that ends with `dealloc`? */
static inline int
core_is_of(PyTypeObject *type, destructor dealloc)
{
    if (LIKELY(type->tp_base != NULL && type->tp_base->tp_dealloc == dealloc)) {
        return core_fits(type);
    }
    return core_is_further(type, dealloc);
}

static inline int
core_is(PyObject *obj, destructor dealloc)
{
    return core_is_of(Py_TYPE(obj), dealloc);
}

/* Before a method of the core works on its fields. */
static inline int
core_check(PyObject *self)
{
    return UNLIKELY(((CoreObj *)self)->shown != NULL) ? core_take_back(self) : 0;
}

/* tp_traverse and tp_clear of a core whose fields noun_visit() and noun_drop() know; CORE_LIFE: and tp_dealloc. */
#define CORE_COLLECTED(noun)                                               \
    static int noun##_traverse(PyObject *self, visitproc visit, void *arg) \
    {                                                                      \
        Py_VISIT(Py_TYPE(self));                                           \
        if (!core_is(self, noun##_dealloc)) {                              \
            return 0;                                                      \
        }                                                                  \
        Py_VISIT(((CoreObj *)self)->shown);                                \
        return noun##_visit(self, visit, arg);                             \
    }                                                                      \
                                                                           \
    static int noun##_clear(PyObject *self)                                \
    {                                                                      \
        if (!core_is(self, noun##_dealloc)) {                              \
            return 0;                                                      \
        }                                                                  \
        Py_CLEAR(((CoreObj *)self)->shown);                                \
        return noun##_drop(self);                                          \
    }

#define CORE_LIFE(linkage, noun)                \
    CORE_COLLECTED(noun)                        \
                                                \
    linkage void noun##_dealloc(PyObject *self) \
    {                                           \
        PyObject_GC_UnTrack(self);              \
        (void)noun##_clear(self);               \
        core_free(self);                        \
    }

#endif
