/* asyncio's protocol and Process of a child without pipes: objects of asyncio's own classes, made and told of the child's
   end without running their code, which after each child is out of the caches.

   Called by process.c.  What an object has is found out by ctask/_process.py, which makes one and looks at it: so
   releases may differ.  Where a program has put something in the place of asyncio's, that is called. */

#include "io/subprocess.h"
#include "tasks/future.h"

/* What _process.py has told of asyncio's classes. */
enum {
    STREAMS_MODULE, // asyncio.subprocess
    STREAMS_PROTOCOL, // its SubprocessStreamProtocol
    STREAMS_PROCESS, // its Process
    STREAMS_LOOK, // () -> two recipes; None if the classes are not what they were
    STREAMS_EXITED, // the protocol's process_exited
    STREAMS_MAYBE_CLOSE, // its _maybe_close_transport
    STREAMS_LOST, // its connection_lost
    N_STREAMS
};

/* A recipe is a tuple: for each attribute its name, one of these, and a value. */
enum {
    RECIPE_CONSTANT, // the value
    RECIPE_MADE, // what calling the value returns
    RECIPE_FUTURE, // a new one
    RECIPE_GIVEN, // and above: the loop, the transport, the protocol, the process number
    RECIPE_END = RECIPE_GIVEN + 4,
};

PART int
attribute_is(PyObject *obj, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    int same = value == expected;
    Py_XDECREF(value);
    return value == NULL ? -1 : same;
}

PART int
method_is(PyObject *obj, PyObject *name, PyObject *function)
{
    PyObject *method = PyObject_GetAttr(obj, name);
    int same = method == NULL ? -1 : PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
    Py_XDECREF(method);
    return same;
}

/* ---- making ---- */

static int
recipe_check(PyObject *recipe)
{
    if (!PyTuple_CheckExact(recipe) || PyTuple_GET_SIZE(recipe) % 3 != 0) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(recipe); i += 3) {
        PyObject *kind = PyTuple_GET_ITEM(recipe, i + 1);
        int overflow = 0;
        long number = PyLong_CheckExact(kind) ? PyLong_AsLongAndOverflow(kind, &overflow) : -1;
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(recipe, i)) || number < 0 || number >= RECIPE_END) {
            return 0;
        }
    }
    return 1;
}

/* Is the class, an attribute of the module, the one that was looked at, and unchanged? */
static int
class_is_known(PyObject *parts, int part, PyObject *name, unsigned int version)
{
    PyTypeObject *cls = (PyTypeObject *)PyTuple_GET_ITEM(parts, part);
    int known = attribute_is(PyTuple_GET_ITEM(parts, STREAMS_MODULE), name, (PyObject *)cls);
    return known != 1 ? known : version != 0 && cls->tp_version_tag == version;
}

/* Are both? */
static int
subprocess_is_known(ctask_state *st, PyObject *parts)
{
    int known = class_is_known(
        parts, STREAMS_PROTOCOL, st->str.SubprocessStreamProtocol, st->io.subprocess_versions[0]);
    return known != 1 ? known
                      : class_is_known(parts, STREAMS_PROCESS, st->str.Process, st->io.subprocess_versions[1]);
}

/* Have _process.py look at the classes. */
static int
subprocess_look(ctask_state *st, PyObject *parts)
{
    PyObject *recipes = PyObject_CallNoArgs(PyTuple_GET_ITEM(parts, STREAMS_LOOK));
    if (recipes == NULL) {
        return -1;
    }
    if (PyTuple_CheckExact(recipes) && PyTuple_GET_SIZE(recipes) == 2 &&
        recipe_check(PyTuple_GET_ITEM(recipes, 0)) && recipe_check(PyTuple_GET_ITEM(recipes, 1))) {
        for (int i = 0; i < 2; i++) {
            PyTypeObject *cls = (PyTypeObject *)PyTuple_GET_ITEM(parts, STREAMS_PROTOCOL + i);
            st->io.subprocess_versions[i] = cls->tp_version_tag;
        }
        Py_XSETREF(st->subprocess_recipes, Py_NewRef(recipes));
    }
    Py_DECREF(recipes);
    return subprocess_is_known(st, parts);
}

PART int
subprocess_may(ctask_state *st)
{
    if (st->subprocess_parts == NULL) {
        return 0;
    }
    PyObject *parts = Py_NewRef(st->subprocess_parts);
    int may = subprocess_is_known(st, parts);
    if (UNLIKELY(may == 0)) {
        may = subprocess_look(st, parts);
    }
    Py_DECREF(parts);
    return may;
}

/* An object of asyncio's protocol (0) or Process (1), as its recipe says. */
static PyObject *
subprocess_make(ctask_state *st, int which, PyObject *const given[RECIPE_END - RECIPE_GIVEN])
{
    PyObject *parts = Py_NewRef(st->subprocess_parts);
    PyObject *recipe = Py_NewRef(PyTuple_GET_ITEM(st->subprocess_recipes, which));
    PyTypeObject *cls = (PyTypeObject *)PyTuple_GET_ITEM(parts, STREAMS_PROTOCOL + which);
    PyObject *made = PyBaseObject_Type.tp_new(cls, st->empty_tuple, NULL);
    for (Py_ssize_t i = 0; made != NULL && i < PyTuple_GET_SIZE(recipe); i += 3) {
        long kind = PyLong_AsLong(PyTuple_GET_ITEM(recipe, i + 1));
        PyObject *value = PyTuple_GET_ITEM(recipe, i + 2);
        value = kind == RECIPE_CONSTANT ? Py_NewRef(value)
                : kind == RECIPE_MADE   ? PyObject_CallNoArgs(value)
                : kind == RECIPE_FUTURE ? loop_new_future(st, given[0])
                                        : Py_NewRef(given[kind - RECIPE_GIVEN]);
        if (value == NULL || PyObject_SetAttr(made, PyTuple_GET_ITEM(recipe, i), value) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(value);
    }
    Py_DECREF(recipe);
    Py_DECREF(parts);
    return made;
}

PART PyObject *
subprocess_protocol(ctask_state *st, PyObject *loop, PyObject *transport)
{
    PyObject *given[] = {loop, transport, Py_None, Py_None};
    return subprocess_make(st, 0, given);
}

PART PyObject *
subprocess_process(ctask_state *st, PyObject *transport, PyObject *protocol, PyObject *loop)
{
    PyObject *parts = Py_NewRef(st->subprocess_parts), *process = NULL;
    int known = subprocess_is_known(st, parts);
    PyObject *pid = known == 1 ? PyObject_GetAttr(transport, st->str._pid) : NULL;
    PyObject *given[] = {loop, transport, protocol, pid};
    if (pid != NULL) {
        process = subprocess_make(st, 1, given);
    }
    else if (known == 0) {
        PyObject *args[] = {PyTuple_GET_ITEM(parts, STREAMS_MODULE), transport, protocol, loop};
        process = PyObject_VectorcallMethod(st->str.Process, args, 4, NULL);
    }
    Py_XDECREF(pid);
    Py_DECREF(parts);
    return process;
}

/* ---- the end ---- */

PART int
subprocess_exited(ctask_state *st, PyObject *protocol, PyObject *transport)
{
    PyObject *parts = st->subprocess_parts;
    if (parts == NULL || (PyObject *)Py_TYPE(protocol) != PyTuple_GET_ITEM(parts, STREAMS_PROTOCOL)) {
        return 0;
    }
    Py_INCREF(parts);
    PyObject *fds = NULL, *closed = NULL;
    int ours = method_is(protocol, st->str.process_exited, PyTuple_GET_ITEM(parts, STREAMS_EXITED));
    if (ours == 1) {
        ours = method_is(
            protocol, st->str._maybe_close_transport, PyTuple_GET_ITEM(parts, STREAMS_MAYBE_CLOSE));
    }
    if (ours == 1) {
        fds = PyObject_GetAttr(protocol, st->str._pipe_fds);
        ours = fds == NULL ? -1 : PyList_CheckExact(fds) && PyList_GET_SIZE(fds) == 0;
        Py_XDECREF(fds);
    }
    if (ours == 1) {
        ours = attribute_is(protocol, st->str._transport, transport);
    }
    if (ours == 1) {
        if (PyObject_SetAttr(protocol, st->str._process_exited, Py_True) < 0 ||
            (closed = PyObject_CallMethodNoArgs(transport, st->str.close)) == NULL ||
            PyObject_SetAttr(protocol, st->str._transport, Py_None) < 0) {
            ours = -1;
        }
        Py_XDECREF(closed);
    }
    Py_DECREF(parts);
    return ours;
}

PART PyObject *
subprocess_lost(ctask_state *st, PyObject *protocol, PyObject *exc)
{
    PyObject *parts = st->subprocess_parts;
    int ours = 0;
    if (parts != NULL && (PyObject *)Py_TYPE(protocol) == PyTuple_GET_ITEM(parts, STREAMS_PROTOCOL)) {
        Py_INCREF(parts);
        ours = method_is(protocol, st->str.connection_lost, PyTuple_GET_ITEM(parts, STREAMS_LOST));
        Py_DECREF(parts);
    }
    if (ours == 1) {
        ours = attribute_is(protocol, st->str._paused, Py_False);
    }
    if (ours == 1) {
        return PyObject_SetAttr(protocol, st->str._connection_lost, Py_True) < 0 ? NULL : Py_NewRef(Py_None);
    }
    return ours < 0 ? NULL : PyObject_CallMethodOneArg(protocol, st->str.connection_lost, exc);
}

/* ---- what _process.py tells ---- */

PyDoc_STRVAR(set_subprocess_parts_doc,
"_set_subprocess_parts($module, /, *parts)\n--\n\n"
"What ctask/_process.py gives to create_subprocess_exec().");

static PyObject *
set_subprocess_parts(PyObject *module, PyObject *args)
{
    ctask_state *st = PyModule_GetState(module);
    int fit = PyTuple_GET_SIZE(args) == N_STREAMS;
    for (int i = STREAMS_PROTOCOL; fit && i <= STREAMS_PROCESS; i++) {
        PyObject *cls = PyTuple_GET_ITEM(args, i);
        fit = PyType_Check(cls) && ((PyTypeObject *)cls)->tp_new == PyBaseObject_Type.tp_new;
    }
    if (!fit) {
        PyErr_SetString(PyExc_TypeError, "_set_subprocess_parts() is called by ctask alone");
        return NULL;
    }
    st->io.subprocess_versions[0] = st->io.subprocess_versions[1] = 0;
    Py_XSETREF(st->subprocess_parts, Py_NewRef(args));
    Py_RETURN_NONE;
}

static PyMethodDef subprocess_functions[] = {
    {"_set_subprocess_parts", set_subprocess_parts, METH_VARARGS, set_subprocess_parts_doc},
    {NULL, NULL, 0, NULL},
};

PART int
subprocess_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, subprocess_functions);
}
