/* `await fut`: what the interpreter does with a future, which is its own iterator, and the iterator for Python code
   that asks for one. */

#include "tasks/future_iter.h"
#include "tasks/life.h"

/* ---- for the interpreter ---- */

/* One turn of `await fut`: the future itself while it is pending, then its result.  Whether it was yielded
   already is in `blocking`, so no state is needed but the future. */
static PySendResult
future_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    FutureObj *fut = (FutureObj *)self;
    if (fut->state == FUTURE_PENDING) {
        if (LIKELY(!fut->blocking)) {
            fut->blocking = 1;
            *result = Py_NewRef(self);
            return PYGEN_NEXT;
        }
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        *result = NULL;
        return PYGEN_ERROR;
    }
    if (LIKELY(fut->state == FUTURE_FINISHED && fut->exception == NULL)) {
        fut->log_traceback = 0;
        *result = Py_NewRef(fut->result);
        return PYGEN_RETURN;
    }
    *result = PyObject_CallOneArg(state_of(self)->stock_result, self);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PyObject *
future_iternext(PyObject *self)
{
    PyObject *result;
    if (future_send(self, Py_None, &result) == PYGEN_RETURN) {
        /* Returning NULL with nothing set stands for StopIteration(None). */
        if (result != Py_None) {
            (void)set_stop_iteration(result);
        }
        Py_CLEAR(result);
    }
    return result;
}

/* What the interpreter calls for `await fut`: the future is its own iterator, and nothing is made.  Python
   code that asks for an iterator by name gets a FutureIter, with send() and throw(). */
static PyObject *
future_await(PyObject *self)
{
    return future_check_init((FutureObj *)self) < 0 ? NULL : Py_NewRef(self);
}

/* Set when the type is ready: `__await__` and `__iter__` have been made for future_iter() by then, no
   `__next__` appears, and a future is no Iterator to who asks. */
PART void
future_become_iterator(PyTypeObject *type)
{
    type->tp_iternext = future_iternext;
    type->tp_as_async->am_await = future_await;
    type->tp_as_async->am_send = future_send;
}

/* ---- for Python code ---- */

/* The iterator of Python code: drives the future until it is exhausted. */
typedef struct {
    PyObject_HEAD
    FutureObj *fut; // owned; NULL when exhausted
} FutureIterObj;

PART PyObject *
future_iter(PyObject *self)
{
    ctask_state *st = state_of(self);
    if (future_check_init((FutureObj *)self) < 0) {
        return NULL;
    }
    FutureIterObj *iter = PyObject_GC_New(FutureIterObj, st->FutureIterType);
    if (iter == NULL) {
        return NULL;
    }
    iter->fut = (FutureObj *)Py_NewRef(self);
    PyObject_GC_Track(iter);
    return (PyObject *)iter;
}

static PyObject *
FutureIter_iternext(PyObject *self)
{
    FutureIterObj *iter = (FutureIterObj *)self;
    if (iter->fut == NULL) {
        return NULL; /* exhausted: StopIteration */
    }
    PyObject *fut = Py_NewRef(iter->fut);
    PyObject *result = future_iternext(fut);
    if (result == NULL && ((FutureObj *)fut)->state != FUTURE_PENDING) {
        Py_CLEAR(iter->fut);
    }
    Py_DECREF(fut);
    return result;
}

static PyObject *
FutureIter_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    PyObject *result = FutureIter_iternext(self);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

/* Set what throw(exception) is to raise, or throw(type, value, traceback), which generators accept as well.
   Returns -1 with another exception if the arguments are wrong. */
PART int
future_throw_arguments(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type, *value = NULL, *tb = NULL;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError,
                     "throw expected at %s argument%s, got %zd",
                     nargs < 1 ? "least 1" : "most 3",
                     nargs < 1 ? "" : "s",
                     nargs);
        return -1;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (nargs > 1 && PyErr_WarnEx(PyExc_DeprecationWarning,
                                  "the (type, exc, tb) signature of throw() is deprecated, "
                                  "use the single-arg signature instead.",
                                  1) < 0) {
        return -1;
    }
#endif
    type = args[0];
    if (nargs > 1 && args[1] != Py_None) {
        value = args[1];
    }
    if (nargs > 2 && args[2] != Py_None) {
        tb = args[2];
        if (!PyTraceBack_Check(tb)) {
            PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback");
            return -1;
        }
    }
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return -1;
        }
        value = type;
        type = PyExceptionInstance_Class(value);
    }
    else if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must be classes deriving BaseException or instances of such a class");
        return -1;
    }
    Py_XINCREF(tb);
    if (tb == NULL && value != NULL && PyExceptionInstance_Check(value)) {
        tb = PyException_GetTraceback(value);
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), tb);
    return 0;
}

static PyObject *
FutureIter_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (future_throw_arguments(args, nargs) == 0) {
        Py_CLEAR(((FutureIterObj *)self)->fut);
    }
    return NULL;
}

static PyObject *
FutureIter_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((FutureIterObj *)self)->fut);
    Py_RETURN_NONE;
}

static int
FutureIter_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((FutureIterObj *)self)->fut);
    return 0;
}

static int
FutureIter_clear(PyObject *self)
{
    Py_CLEAR(((FutureIterObj *)self)->fut);
    return 0;
}

static void
FutureIter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(((FutureIterObj *)self)->fut);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef FutureIter_methods[] = {
    {"send", FutureIter_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))FutureIter_throw, METH_FASTCALL, NULL},
    {"close", FutureIter_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot FutureIter_slots[] = {
    {Py_tp_dealloc, FutureIter_dealloc},
    {Py_tp_traverse, FutureIter_traverse},
    {Py_tp_clear, FutureIter_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, FutureIter_iternext},
    {Py_tp_methods, FutureIter_methods},
    {0, NULL},
};

static PyType_Spec FutureIter_spec = {
    .name = "ctask.FutureIter",
    .basicsize = sizeof(FutureIterObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = FutureIter_slots,
};

PART int
future_iter_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, NULL, &st->FutureIterType, &FutureIter_spec, NULL);
}
