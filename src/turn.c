/* A bare yield: what `await sleep(0)` gives the loop its turn with.

   asyncio makes a generator for it each time.  This object yields None once; it refers to nothing, so the
   garbage collector need not know it. */

#include "ctask.h"

typedef struct {
    PyObject_HEAD
    char yielded;
} TurnObj;

static PySendResult
turn_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    TurnObj *turn = (TurnObj *)self;
    *result = Py_NewRef(Py_None);
    if (turn->yielded) {
        return PYGEN_RETURN;
    }
    turn->yielded = 1;
    return PYGEN_NEXT;
}

static PyObject *
turn_iternext(PyObject *self)
{
    TurnObj *turn = (TurnObj *)self;
    if (turn->yielded) {
        return NULL; /* StopIteration(None) */
    }
    turn->yielded = 1;
    Py_RETURN_NONE;
}

static void
turn_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot turn_slots[] = {
    {Py_tp_dealloc, turn_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, turn_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, turn_send},
    {0, NULL},
};

static PyType_Spec turn_spec = {
    .name = "ctask.Turn",
    .basicsize = sizeof(TurnObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = turn_slots,
};

PyDoc_STRVAR(turn_doc,
"_turn($module, /)\n--\n\n"
"Return an awaitable that lets the loop run everything else that is ready once.");

static PyObject *
turn(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = PyModule_GetState(module);
    TurnObj *obj = PyObject_New(TurnObj, st->TurnType);
    if (obj != NULL) {
        obj->yielded = 0;
    }
    return (PyObject *)obj;
}

static PyMethodDef turn_functions[] = {
    {"_turn", turn, METH_NOARGS, turn_doc},
    {NULL, NULL, 0, NULL},
};

PART int
turn_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, NULL, &st->TurnType, &turn_spec, NULL) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, turn_functions);
}
