/* The frame that a coroutine in C shows to those who look at it: Task.get_stack(), reprs, the call graph.

   There is none to show, so this is an object with a frame's attributes, of asyncio's own function whose place
   the coroutine takes, at its first line.  Where asyncio's function awaits another of its own, which ours does in one, there
   are two, the second being what the first awaits.  It is made when somebody asks, and costs nothing before. */

#include "coro.h"

typedef struct {
    PyObject_HEAD
    CoroObj *coro;      // owned
    PyObject *function; // owned; has __code__ and __globals__
    char is_inner;
} CoroFrameObj;

static PyObject *
coroframe_new(CoroObj *coro, PyObject *function, int is_inner)
{
    CoroFrameObj *frame = PyObject_GC_New(CoroFrameObj, coro->st->CoroFrameType);
    if (frame == NULL) {
        return NULL;
    }
    frame->coro = (CoroObj *)Py_NewRef(coro);
    frame->function = Py_NewRef(function);
    frame->is_inner = (char)is_inner;
    PyObject_GC_Track(frame);
    return (PyObject *)frame;
}

/* What asyncio's function `coro` stands for awaits while ours waits: a method of the owner, or a function beside
   it.  NULL without an exception if nothing. */
static PyObject *
inner_function(CoroObj *coro)
{
    static const struct {
        const char *name;
        const char *inner;
    } inners[] = {
        {"TaskGroup.__aexit__", "_aexit"},
        {"_ContextManagerMixin.__aenter__", "acquire"},
        {"_AsCompletedIterator.__anext__", "_wait_for_one"},
        {"wait", "_wait"},
    };
    const char *name = NULL;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(inners) && name == NULL; i++) {
        name = strcmp(coro->name, inners[i].name) == 0 ? inners[i].inner : NULL;
    }
    if (name == NULL || coro->function == NULL) {
        return NULL;
    }
    PyObject *function = NULL;
    if (strchr(coro->name, '.') != NULL) {
        function = coro->owner == NULL ? NULL : PyObject_GetAttrString((PyObject *)Py_TYPE(coro->owner), name);
    }
    else {
        PyObject *globals = PyObject_GetAttrString(coro->function, "__globals__");
        function = globals == NULL ? NULL : PyMapping_GetItemString(globals, name);
        Py_XDECREF(globals);
    }
    if (function == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* this version of asyncio has no such function */
    }
    return function;
}

PART PyObject *
coroframe_of(CoroObj *coro)
{
    if (coro->state == CORO_CLOSED || coro->function == NULL) {
        Py_RETURN_NONE;
    }
    return coroframe_new(coro, coro->function, 0);
}

PART PyObject *
coroframe_awaited(CoroObj *coro)
{
    if (coro->awaiting == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *function = inner_function(coro);
    if (function == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(coro->awaiting);
    }
    PyObject *frame = coroframe_new(coro, function, 1);
    Py_DECREF(function);
    return frame;
}

/* ---- a frame's attributes ---- */

static PyObject *
CoroFrame_get_code(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(((CoroFrameObj *)self)->function, "__code__");
}

static PyObject *
CoroFrame_get_globals(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(((CoroFrameObj *)self)->function, "__globals__");
}

static PyObject *
CoroFrame_get_lineno(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *code = CoroFrame_get_code(self, NULL);
    PyObject *line = code == NULL ? NULL : PyObject_GetAttrString(code, "co_firstlineno");
    Py_XDECREF(code);
    return line;
}

static PyObject *
CoroFrame_get_locals(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyDict_New();
}

static PyObject *
CoroFrame_get_lasti(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(-1);
}

static PyObject *
CoroFrame_get_none(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

/* ---- what the frame belongs to, as seen from it: a coroutine with this very frame ---- */

static PyObject *
CoroFrame_get_self(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self);
}

static PyObject *
CoroFrame_get_await(PyObject *self, void *Py_UNUSED(closure))
{
    CoroFrameObj *frame = (CoroFrameObj *)self;
    if (!frame->is_inner) {
        return coroframe_awaited(frame->coro);
    }
    PyObject *awaiting = frame->coro->awaiting;
    return Py_NewRef(awaiting == NULL ? Py_None : awaiting);
}

static PyObject *
CoroFrame_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(((CoroFrameObj *)self)->function, "__qualname__");
}

static PyObject *
coroframe_repr(PyObject *self)
{
    PyObject *code = CoroFrame_get_code(self, NULL);
    PyObject *repr = code == NULL ? NULL : PyUnicode_FromFormat("<frame in C at %p, code %R>", self, code);
    Py_XDECREF(code);
    return repr;
}

/* ---- life ---- */

static int
coroframe_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((CoroFrameObj *)self)->coro);
    Py_VISIT(((CoroFrameObj *)self)->function);
    return 0;
}

/* Without tp_clear: nothing that it refers to can be made to refer to it. */
static void
coroframe_dealloc(PyObject *self)
{
    CoroFrameObj *frame = (CoroFrameObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(frame->coro);
    Py_DECREF(frame->function);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef CoroFrame_getset[] = {
    {"f_code", CoroFrame_get_code, NULL, NULL, NULL},
    {"f_globals", CoroFrame_get_globals, NULL, NULL, NULL},
    {"f_lineno", CoroFrame_get_lineno, NULL, NULL, NULL},
    {"f_locals", CoroFrame_get_locals, NULL, NULL, NULL},
    {"f_lasti", CoroFrame_get_lasti, NULL, NULL, NULL},
    {"f_back", CoroFrame_get_none, NULL, NULL, NULL},
    {"f_trace", CoroFrame_get_none, NULL, NULL, NULL},
    {"f_generator", CoroFrame_get_self, NULL, NULL, NULL},
    {"cr_frame", CoroFrame_get_self, NULL, NULL, NULL},
    {"cr_code", CoroFrame_get_code, NULL, NULL, NULL},
    {"cr_await", CoroFrame_get_await, NULL, NULL, NULL},
    {"__qualname__", CoroFrame_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot CoroFrame_slots[] = {
    {Py_tp_dealloc, coroframe_dealloc},
    {Py_tp_traverse, coroframe_traverse},
    {Py_tp_repr, coroframe_repr},
    {Py_tp_getset, CoroFrame_getset},
    {0, NULL},
};

static PyType_Spec CoroFrame_spec = {
    .name = "ctask.CoroFrame",
    .basicsize = sizeof(CoroFrameObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CoroFrame_slots,
};

PART int
coroframe_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, NULL, &st->CoroFrameType, &CoroFrame_spec, NULL);
}
