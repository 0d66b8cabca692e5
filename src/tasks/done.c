/* A done callback in C: what gather(), wait() and shield() add to futures where asyncio adds a closure.

   Adding it to one of our futures stores a reference, and calling it needs no frame.  To everybody else it is a
   callable with the name of asyncio's closure. */

#include "tasks/done.h"

#include <structmember.h>

static PyObject *
done_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    DoneObj *done = (DoneObj *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_Format(PyExc_TypeError, "%s() takes 1 positional argument: a future", done->name);
        return NULL;
    }
    return done->function(done, args[0]) < 0 ? NULL : Py_NewRef(Py_None);
}

/* `owner` may be NULL. */
PART DoneObj *
done_new(ctask_state *st, done_function function, const char *name, PyObject *owner)
{
    DoneObj *done = PyObject_GC_New(DoneObj, st->DoneType);
    if (done == NULL) {
        return NULL;
    }
    done->vectorcall = done_vectorcall;
    done->function = function;
    done->st = st;
    done->owner = Py_XNewRef(owner);
    done->task = done->other = NULL;
    done->name = name;
    done->n = done->total = 0;
    done->flag = done->silent = 0;
    PyObject_GC_Track(done);
    return done;
}

PART int
done_add(DoneObj *done, PyObject *fut, PyObject *context)
{
    ctask_state *st = done->st;
    if (LIKELY(future_is_exact(fut) && ((FutureObj *)fut)->loop != NULL)) {
        return future_add_callback((FutureObj *)fut, st, (PyObject *)done, context);
    }
    PyObject *res = PyObject_CallMethodOneArg(fut, st->str.add_done_callback, (PyObject *)done);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* The list may hold anything where `_asyncio`'s getter gives it away. */
static inline int
is_pair_of(DoneObj *done, PyObject *pair)
{
    return PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) > 0 &&
           PyTuple_GET_ITEM(pair, 0) == (PyObject *)done;
}

/* By identity: no code of others' runs. */
static int
done_remove_exact(DoneObj *done, FutureObj *fut)
{
    PyObject *callbacks = fut->callbacks;
    if (callbacks != NULL) {
        Py_INCREF(callbacks);
        for (Py_ssize_t i = PyList_GET_SIZE(callbacks) - 1; i >= 0; i--) {
            /* The end of a context, which goes with it, may remove others. */
            if (i < PyList_GET_SIZE(callbacks) && is_pair_of(done, PyList_GET_ITEM(callbacks, i)) &&
                PyList_SetSlice(callbacks, i, i + 1, NULL) < 0) {
                Py_DECREF(callbacks);
                return -1;
            }
        }
        if (PyList_GET_SIZE(callbacks) == 0 && fut->callbacks == callbacks) {
            Py_CLEAR(fut->callbacks);
        }
        Py_DECREF(callbacks);
    }
    if (fut->callback0 == (PyObject *)done) {
        PyObject *context = fut->context0;
        fut->callback0 = fut->context0 = NULL;
        Py_DECREF(done);
        Py_XDECREF(context);
    }
    return 0;
}

PART int
done_remove(DoneObj *done, PyObject *fut)
{
    if (LIKELY(future_is_exact(fut))) {
        return done_remove_exact(done, (FutureObj *)fut);
    }
    PyObject *res = PyObject_CallMethodOneArg(fut, done->st->str.remove_done_callback, (PyObject *)done);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* ---- the type ---- */

static PyObject *
Done_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((DoneObj *)self)->name);
}

static PyObject *
Done_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    const char *name = ((DoneObj *)self)->name, *dot = strrchr(name, '.');
    return PyUnicode_FromString(dot == NULL ? name : dot + 1);
}

static PyObject *
done_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<function %s at %p>", ((DoneObj *)self)->name, self);
}

static int
done_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((DoneObj *)self)->owner);
    Py_VISIT(((DoneObj *)self)->task);
    Py_VISIT(((DoneObj *)self)->other);
    return 0;
}

/* The function looks whether the owner is still there: a callback may come after this. */
static int
done_clear(PyObject *self)
{
    Py_CLEAR(((DoneObj *)self)->owner);
    Py_CLEAR(((DoneObj *)self)->task);
    Py_CLEAR(((DoneObj *)self)->other);
    return 0;
}

PART void
done_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)done_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef done_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(DoneObj, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Done_getset[] = {
    {"__name__", Done_get_name, NULL, NULL, NULL},
    {"__qualname__", Done_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Done_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, done_dealloc},
    {Py_tp_traverse, done_traverse},
    {Py_tp_clear, done_clear},
    {Py_tp_repr, done_repr},
    {Py_tp_members, done_members},
    {Py_tp_getset, Done_getset},
    {0, NULL},
};

static PyType_Spec Done_spec = {
    .name = "ctask.DoneCallback",
    .basicsize = sizeof(DoneObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = Done_slots,
};

PART int
done_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, NULL, &st->DoneType, &Done_spec, NULL);
}
