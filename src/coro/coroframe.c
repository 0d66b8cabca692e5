/* The frame that a coroutine in C shows to those who look at it: Task.get_stack(), reprs, the call graph.

   There is none to show, so this is an object with a frame's attributes, of asyncio's own function whose place
   the coroutine takes, at its first line.  Where asyncio's function awaits another of its own, which ours does in one, there
   are two, the second being what the first awaits.  It is made when somebody asks, and costs nothing before. */

#include "coro/coroframe.h"

typedef struct {
    PyObject_HEAD
    CoroObj *coro;      // owned
    PyObject *function; // owned; has __code__ and __globals__
    const char *name; // whose awaited function it shows next (inner_of), or NULL
} CoroFrameObj;

static PyObject *
coroframe_new(CoroObj *coro, PyObject *function, const char *name)
{
    CoroFrameObj *frame = PyObject_GC_New(CoroFrameObj, coro->st->CoroFrameType);
    if (frame == NULL) {
        return NULL;
    }
    frame->coro = (CoroObj *)Py_NewRef(coro);
    frame->function = Py_NewRef(function);
    frame->name = name;
    PyObject_GC_Track(frame);
    return (PyObject *)frame;
}

/* What an asyncio function awaits while ours, in its place, waits for a future. */
typedef struct {
    const char *name; // qualified
    const char *inner;
    enum { OF_OWNER, OF_MODULE, OF_QUEUE } where; // the owner's method, a function beside it, a queue's method
    const char *inner_name; // under which it is itself in this list, or NULL
} inner_call;

static const inner_call inner_calls[] = {
    {"TaskGroup.__aexit__", "_aexit", OF_OWNER, NULL},
    {"_ContextManagerMixin.__aenter__", "acquire", OF_OWNER, NULL},
    {"_AsCompletedIterator.__anext__", "_wait_for_one", OF_OWNER, "_AsCompletedIterator._wait_for_one"},
    {"_AsCompletedIterator._wait_for_one", "get", OF_QUEUE, NULL},
    {"as_completed.<locals>._wait_for_one", "get", OF_QUEUE, NULL},
    {"wait", "_wait", OF_MODULE, NULL},
};

static const inner_call *
inner_of(const char *name)
{
    for (size_t i = 0; name != NULL && i < Py_ARRAY_LENGTH(inner_calls); i++) {
        if (strcmp(name, inner_calls[i].name) == 0) {
            return &inner_calls[i];
        }
    }
    return NULL;
}

/* NULL without an exception if there is none.  The look-up may run anything: the coroutine may have ended then. */
static PyObject *
inner_function(CoroObj *coro, const inner_call *call)
{
    PyObject *function = NULL;
    if (call->where == OF_OWNER) {
        PyObject *type = coro->owner == NULL ? NULL : Py_NewRef(Py_TYPE(coro->owner));
        function = type == NULL ? NULL : PyObject_GetAttrString(type, call->inner);
        Py_XDECREF(type);
    }
    else if (call->where == OF_QUEUE) {
        function = PyObject_GetAttrString(coro->st->stock_Queue, call->inner);
    }
    else {
        PyObject *globals = PyObject_GetAttrString(coro->function, "__globals__");
        function = globals == NULL ? NULL : PyMapping_GetItemString(globals, call->inner);
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
    return coroframe_new(coro, coro->function, coro->name);
}

/* What the function `name` awaits: a frame of another function that ours has no coroutine for, or what `coro`
   waits for.  (That may be a coroutine of asyncio's, which shows the rest itself.) */
static PyObject *
awaited_by_name(CoroObj *coro, const char *name)
{
    if (coro->awaiting == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *awaiting = Py_NewRef(coro->awaiting);
    const inner_call *call = coro->function == NULL ? NULL : inner_of(name);
    PyObject *function = call == NULL || (call->where == OF_QUEUE && PyCoro_CheckExact(awaiting))
                             ? NULL
                             : inner_function(coro, call);
    if (function == NULL) {
        if (PyErr_Occurred()) {
            Py_CLEAR(awaiting);
        }
        return awaiting;
    }
    PyObject *frame = coroframe_new(coro, function, call->inner_name);
    Py_DECREF(function);
    Py_DECREF(awaiting);
    return frame;
}

PART PyObject *
coroframe_awaited(CoroObj *coro)
{
    return awaited_by_name(coro, coro->name);
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
    return awaited_by_name(frame->coro, frame->name);
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
