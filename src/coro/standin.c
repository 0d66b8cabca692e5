/* Methods and functions in C that pass for asyncio's own.

   inspect, unittest.mock and pickle ask a coroutine function what it is.  One of these answers with what
   asyncio's own function of that name says, whose place it takes, and calls that where C does not know what to
   do: an unusual argument, or a `self` that is not the C core's. */

#include "coro/standin.h"

#include <structmember.h>

static PyObject *
standin_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    StandinObj *standin = (StandinObj *)callable;
    PyObject *self = NULL;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (standin->owner != NULL) {
        if (UNLIKELY(nargs < 1 || !PyObject_TypeCheck(args[0], standin->owner))) {
            /* Not one of ours: asyncio's function takes whatever has the right attributes. */
            return PyObject_Vectorcall(standin->stock, args, nargsf, kwnames);
        }
        self = args[0];
    }
    return standin_returned(standin,
                            standin->function(standin->st, self, args, nargs, kwnames, standin->stock));
}

static PyObject *
standin_get(PyObject *self, PyObject *obj, PyObject *Py_UNUSED(type))
{
    return obj == NULL || obj == Py_None ? Py_NewRef(self) : PyMethod_New(self, obj);
}

static PyObject *
standin_getattro(PyObject *self, PyObject *name)
{
    PyObject *value;
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "__reduce_ex__") == 0) {
        return PyObject_GenericGetAttr(self, name);
    }
    if (((StandinObj *)self)->owner == NULL && !((StandinObj *)self)->st->coro.passes_for_asyncio &&
        PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "__module__") == 0) {
        return PyUnicode_FromString("ctask");
    }
    if (PyObject_GetOptionalAttr(((StandinObj *)self)->stock, name, &value) != 0) {
        return value;
    }
    return PyObject_GenericGetAttr(self, name);
}

/* What is written to a function is asyncio's function's, where it is read.  Not what a function runs: that is C here. */
static int
standin_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    static const char *const run[] = {"__code__", "__defaults__", "__kwdefaults__"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(run); i++) {
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, run[i]) == 0) {
            PyErr_Format(PyExc_AttributeError, "attribute '%U' of a function in C is not writable", name);
            return -1;
        }
    }
    return PyObject_SetAttr(((StandinObj *)self)->stock, name, value);
}

static PyObject *
standin_repr(PyObject *self)
{
    return PyObject_Repr(((StandinObj *)self)->stock);
}

/* Pickled by name, as functions are; a method as the attribute of its class that it is. */
static PyObject *
Standin_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    return PyObject_GetAttrString(((StandinObj *)self)->stock, "__qualname__");
}

static int
standin_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((StandinObj *)self)->module);
    Py_VISIT(((StandinObj *)self)->owner);
    Py_VISIT(((StandinObj *)self)->stock);
    return 0;
}

static void
standin_dealloc(PyObject *self)
{
    StandinObj *standin = (StandinObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_weakrefs(self, type);
    Py_DECREF(standin->module);
    Py_XDECREF(standin->owner);
    Py_XDECREF(standin->stock);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef Standin_methods[] = {
    {"__reduce_ex__", Standin_reduce, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef standin_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(StandinObj, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(StandinObj, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot standin_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, standin_dealloc},
    {Py_tp_traverse, standin_traverse},
    {Py_tp_descr_get, standin_get},
    {Py_tp_getattro, standin_getattro},
    {Py_tp_setattro, standin_setattro},
    {Py_tp_repr, standin_repr},
    {Py_tp_methods, Standin_methods},
    {Py_tp_members, standin_members},
    {0, NULL},
};

/* Without tp_clear: it is a type's or the module's, whose own tp_clear lets go of it. */
static PyType_Spec standin_spec = {
    .name = "ctask.Standin",
    .basicsize = sizeof(StandinObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = standin_slots,
};

/* `stock` is stolen; NULL is passed on. */
PART PyObject *
standin_new(ctask_state *st, PyTypeObject *owner, PyObject *stock, standin_call function)
{
    if (stock == NULL) {
        return NULL;
    }
    StandinObj *standin = PyObject_GC_New(StandinObj, st->StandinType);
    if (standin == NULL) {
        Py_DECREF(stock);
        return NULL;
    }
    standin->vectorcall = standin_vectorcall;
    standin->module = Py_NewRef(PyType_GetModule(st->StandinType));
    standin->st = st;
    standin->owner = (PyTypeObject *)Py_XNewRef(owner);
    standin->core = NULL;
    standin->stock = stock;
    standin->weakrefs = NULL;
    standin->function = function;
    PyObject_GC_Track(standin);
    return (PyObject *)standin;
}

PART int
standin_method(ctask_state *st, PyTypeObject *type, PyObject *stock, const char *name, standin_call function)
{
    PyObject *method = standin_new(st, type, PyObject_GetAttrString(stock, name), function);
    int status = method == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, name, method);
    Py_XDECREF(method);
    return status;
}

PART int
standin_function(ctask_state *st, PyObject *module, PyObject *stock, const char *name, standin_call function)
{
    PyObject *standin = standin_new(st, NULL, Py_NewRef(stock), function);
    int status = standin == NULL ? -1 : PyModule_AddObjectRef(module, name, standin);
    Py_XDECREF(standin);
    return status;
}

PART PyObject *
standin_python(PyObject **slot, const char *module, const char *name)
{
    if (UNLIKELY(*slot == NULL)) {
        PyObject *found = PyImport_ImportModule(module);
        PyObject *value = found == NULL ? NULL : PyObject_GetAttrString(found, name);
        Py_XDECREF(found);
        Py_XSETREF(*slot, value);
    }
    return *slot;
}

/* ---- overrides ---- */

PART int
standin_overrides(PyTypeObject *type, PyTypeObject *core, PyObject *stock, PyObject *const *names,
                  size_t n_names)
{
    int overridden = 0;
    for (size_t i = 0; i < n_names && !overridden; i++) {
        PyObject *ours = _PyType_Lookup(core, names[i]);
        if (ours == NULL) {
            ours = _PyType_Lookup((PyTypeObject *)stock, names[i]);
        }
        overridden = ours == NULL || _PyType_Lookup(type, names[i]) != ours;
    }
    return overridden;
}

PART int
standin_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, NULL, &st->StandinType, &standin_spec, NULL);
}
