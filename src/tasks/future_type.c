/* The type ctask.Future: its methods.

   It derives from `_asyncio.Future` and shares its layout, so all that is cold (reprs, getters, source tracebacks,
   "exception was never retrieved") is inherited, in the shape that the running Python version gives it. */

#include "tasks/callable.h"
#include "tasks/future.h"
#include "tasks/future_iter.h"
#include "tasks/future_type.h"
#include "tasks/life.h"

static int
Future___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop", NULL};
    PyObject *loop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", keywords, &loop)) {
        return -1;
    }
    if (refuse_second_init((FutureObj *)self) < 0) {
        return -1;
    }
    return future_init((FutureObj *)self, state_of(self), loop);
}

PyDoc_STRVAR(Future_set_result_doc,
"set_result($self, result, /)\n--\n\n"
"Mark the future done with `result` and schedule its callbacks.\n\n"
"Raises asyncio.InvalidStateError if it is done already.  (asyncio.Future.set_result)");

static PyObject *
Future_set_result(PyObject *self, PyObject *result)
{
    if (future_set_result((FutureObj *)self, state_of(self), result) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_set_exception_doc,
"set_exception($self, exception, /)\n--\n\n"
"Mark the future done with an exception (a class or an instance) and schedule its callbacks.\n\n"
"Raises asyncio.InvalidStateError if it is done already, TypeError for what is no exception.\n"
"(asyncio.Future.set_exception)");

static PyObject *
Future_set_exception(PyObject *self, PyObject *exc)
{
    if (future_set_exception((FutureObj *)self, state_of(self), exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=<unrepresentable>)\n--\n\n"
"Have the loop call `fn(future)` in `context` (the current one by default) once the future is done.\n\n"
"If it is done already, the call is scheduled at once.  (asyncio.Future.add_done_callback)");

PART PyObject *
Future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FutureObj *fut = (FutureObj *)self;
    ctask_state *st = state_of(self);
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs != 1) {
        PyErr_Format(
            PyExc_TypeError, "add_done_callback() takes exactly 1 positional argument (%zd given)", nargs);
        return NULL;
    }
    if (nkw > 1 || (nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.context) != 0)) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError,
                         "add_done_callback() got an unexpected keyword argument '%U'",
                         PyTuple_GET_ITEM(kwnames, nkw - 1));
        }
        return NULL;
    }
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
        return NULL;
    }
    PyObject *context = nkw == 1 ? Py_NewRef(args[1]) : context_copy(&st->base.contexts);
    if (context == NULL) {
        return NULL;
    }
    int result = future_add_callback(fut, st, args[0], context);
    Py_DECREF(context);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Bring callback0 into the form that `_asyncio` knows. */
static int
waiter_as_callback(FutureObj *fut)
{
    if (fut->callback0 == NULL || !task_is_exact(fut->callback0)) {
        return 0;
    }
    TaskObj *task = (TaskObj *)Py_NewRef(fut->callback0);
    PyObject *context, *wakeup = task_wakeup_in_context(task, state_of((PyObject *)task), &context);
    int result = wakeup == NULL ? -1 : 0;
    if (LIKELY(wakeup != NULL && fut->callback0 == (PyObject *)task)) { /* a collection may have ended it */
        PyObject *before = fut->context0;
        fut->callback0 = wakeup;
        fut->context0 = context;
        wakeup = context = NULL;
        Py_XDECREF(before);
        Py_DECREF(task);
    }
    Py_XDECREF(wakeup);
    Py_XDECREF(context);
    Py_DECREF(task);
    return result;
}

PyDoc_STRVAR(Future_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"Remove all instances of `fn` from the callbacks; return how many there were.\n\n"
"(asyncio.Future.remove_done_callback)");

/* A comparison may run anything, also what changes the callbacks: after each we look again.  (`_asyncio`'s own, up to
   3.13.0, does not.)  From the end, as most often all or one of the last are removed. */
static Py_ssize_t
remove_callback(FutureObj *fut, PyObject *callback)
{
    Py_ssize_t removed = 0;
    PyObject *callbacks = Py_XNewRef(fut->callbacks);
    for (Py_ssize_t i = callbacks == NULL ? 0 : PyList_GET_SIZE(callbacks); i-- > 0;) {
        if (i >= PyList_GET_SIZE(callbacks)) {
            continue;
        }
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        int equal = !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) == 0
                        ? 0
                        : PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), callback, Py_EQ);
        if (equal > 0 && i < PyList_GET_SIZE(callbacks) && PyList_GET_ITEM(callbacks, i) == pair) {
            equal = PyList_SetSlice(callbacks, i, i + 1, NULL);
            removed++;
        }
        Py_DECREF(pair);
        if (equal < 0) {
            Py_DECREF(callbacks);
            return -1;
        }
    }
    if (callbacks != NULL && fut->callbacks == callbacks && PyList_GET_SIZE(callbacks) == 0) {
        Py_CLEAR(fut->callbacks);
    }
    Py_XDECREF(callbacks);
    PyObject *first = Py_XNewRef(fut->callback0);
    int equal = first == NULL ? 0 : PyObject_RichCompareBool(first, callback, Py_EQ);
    if (equal > 0 && fut->callback0 == first) {
        PyObject *context = fut->context0;
        fut->callback0 = fut->context0 = NULL;
        Py_XDECREF(context);
        Py_DECREF(first);
        removed++;
    }
    Py_XDECREF(first);
    return equal < 0 ? -1 : removed;
}

PART PyObject *
Future_remove_done_callback(PyObject *self, PyObject *callback)
{
    FutureObj *fut = (FutureObj *)self;
    if (future_check_init(fut) < 0) {
        return NULL;
    }
    Py_ssize_t removed = waiter_as_callback(fut) < 0 ? -1 : remove_callback(fut, callback);
    return removed < 0 ? NULL : PyLong_FromSsize_t(removed);
}

PyDoc_STRVAR(Future_cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Cancel the future and schedule its callbacks; return False if it was done already.\n\n"
"(asyncio.Future.cancel)");

static PyObject *
Future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", NULL};
    PyObject *msg = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &msg)) {
        return NULL;
    }
    FutureObj *fut = (FutureObj *)self;
    if (future_check_init(fut) < 0) {
        return NULL;
    }
    int result = future_cancel(fut, state_of(self), msg);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* A list of (callback, context), always a new one, or None. */
PART PyObject *
Future_get_callbacks(PyObject *self, void *Py_UNUSED(closure))
{
    FutureObj *fut = (FutureObj *)self;
    if (future_check_init(fut) < 0) {
        return NULL;
    }
    if (waiter_as_callback(fut) < 0) {
        return NULL;
    }
    if (fut->callback0 == NULL && fut->callbacks == NULL) {
        Py_RETURN_NONE;
    }
    int collects = PyGC_Disable(); // up to 3.11 one that memory is asked for in may end the future
    PyObject *callbacks = fut->callbacks == NULL
                              ? PyList_New(0)
                              : PyList_GetSlice(fut->callbacks, 0, PyList_GET_SIZE(fut->callbacks));
    if (callbacks != NULL && fut->callback0 != NULL) {
        PyObject *first = PyTuple_Pack(2, fut->callback0, fut->context0 == NULL ? Py_None : fut->context0);
        if (first == NULL || PyList_Insert(callbacks, 0, first) < 0) {
            Py_CLEAR(callbacks);
        }
        Py_XDECREF(first);
    }
    if (collects) {
        PyGC_Enable();
    }
    return callbacks;
}

static PyMethodDef Future_methods[] = {
    {"set_result", Future_set_result, METH_O, Future_set_result_doc},
    {"set_exception", Future_set_exception, METH_O, Future_set_exception_doc},
    {"add_done_callback",
     (PyCFunction)(void (*)(void))Future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS,
     Future_add_done_callback_doc},
    {"remove_done_callback", Future_remove_done_callback, METH_O, Future_remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))Future_cancel, METH_VARARGS | METH_KEYWORDS, Future_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Future_getset[] = {
    {"_callbacks", Future_get_callbacks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Future_doc,
"Future(*, loop=None)\n--\n\n"
"A result that is not there yet; `await` it, or add callbacks.\n\n"
"Stands for asyncio.Future, which it derives from.  `loop` defaults to asyncio.get_event_loop().");

static PyType_Slot Future_slots[] = {
    {Py_tp_doc, (void *)Future_doc},
    {Py_tp_init, Future___init__},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_iter, future_iter},
    {Py_am_await, future_iter}, /* for __await__(); see future_become_iterator() */
    {Py_tp_methods, Future_methods},
    {Py_tp_getset, Future_getset},
    {0, NULL},
};

static PyType_Spec Future_spec = {
    .name = "ctask.Future",
    .basicsize = sizeof(FutureObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Future_slots,
};

PART int
future_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, "Future", &st->FutureType, &Future_spec, st->stock_Future) < 0) {
        return -1;
    }
    future_become_iterator(st->FutureType);
    return 0;
}
