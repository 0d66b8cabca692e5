/* What read(), drain() and their relatives return: coroutines without a frame.

   A StreamCoro does one of the steps that streamreader.c and streamwriter.c define.  If the data is there it
   ends at once; otherwise it waits for one future and goes on.  It has everything that makes a coroutine to
   those who ask (asyncio.iscoroutine(), collections.abc.Coroutine): send(), throw(), close(), __await__(),
   names, and the warning if it was never awaited.  It has no cr_frame and no cr_code.

   The methods that return one are objects of a type of their own, so that inspect and unittest.mock see
   coroutine functions: what is asked about such a method is answered by asyncio's own. */

#include "streams.h"

/* ---- the coroutine ---- */

PART PyObject *
streamcoro_new(ctask_state *st, PyObject *owner, streamcoro_step step, const char *name, Py_ssize_t n,
               PyObject *arg)
{
    StreamCoroObj *coro = (StreamCoroObj *)freelist_take(&st->free_stream_coros, st->StreamCoroType);
    if (coro == NULL) {
        return NULL;
    }
    coro->owner = Py_NewRef(owner);
    coro->awaiting = NULL;
    coro->arg = Py_XNewRef(arg);
    coro->st = st;
    coro->step = step;
    coro->name = name;
    coro->n = n;
    coro->offset = 0;
    coro->started = coro->running = coro->is_waiter = 0;
    PyObject_GC_Track(coro);
    return (PyObject *)coro;
}

/* The iterator that `await` would use. */
static PyObject *
awaitable_iter(PyObject *obj)
{
    if (PyCoro_CheckExact(obj) || PyGen_CheckExact(obj)) {
        return Py_NewRef(obj);
    }
    PyAsyncMethods *methods = Py_TYPE(obj)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        PyErr_Format(
            PyExc_TypeError, "object %.100s can't be used in 'await' expression", Py_TYPE(obj)->tp_name);
        return NULL;
    }
    return methods->am_await(obj);
}

PART int
streamcoro_await(StreamCoroObj *coro, PyObject *awaitable, streamcoro_step next)
{
    if (awaitable == NULL) {
        return -1;
    }
    coro->awaiting = awaitable_iter(awaitable);
    coro->step = next;
    Py_DECREF(awaitable);
    return coro->awaiting == NULL ? -1 : 0;
}

/* It does not wait any more, whatever the reason. */
static inline void
coro_end_wait(StreamCoroObj *coro)
{
    PyObject *waiter = NULL, *awaiting = coro->awaiting;
    coro->awaiting = NULL;
    if (coro->is_waiter) {
        StreamReaderObj *reader = (StreamReaderObj *)coro->owner;
        coro->is_waiter = 0;
        waiter = reader->waiter;
        reader->waiter = Py_NewRef(Py_None);
        reader->wanted = 0;
    }
    Py_XDECREF(awaiting);
    Py_XDECREF(waiter);
}

static inline void
coro_end(StreamCoroObj *coro)
{
    PyObject *owner = coro->owner, *arg = coro->arg;
    coro->running = 0;
    coro->owner = coro->arg = NULL;
    Py_XDECREF(arg);
    Py_XDECREF(owner);
}

/* What `awaiting` has answered, and all that follows until it has to wait again. */
static PySendResult
coro_go_on(StreamCoroObj *coro, PySendResult outcome, PyObject **result)
{
    for (;;) {
        if (outcome == PYGEN_NEXT) {
            coro->running = 0;
            return PYGEN_NEXT;
        }
        coro_end_wait(coro);
        if (UNLIKELY(outcome == PYGEN_ERROR || coro->step == NULL)) {
            coro_end(coro);
            return outcome;
        }
        Py_CLEAR(*result);
        int status = coro->step(coro, result);
        if (status != 0) {
            coro_end(coro);
            return status > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        }
        outcome = PyIter_Send(coro->awaiting, Py_None, result);
    }
}

static int
coro_check(StreamCoroObj *coro)
{
    if (UNLIKELY(coro->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (UNLIKELY(coro->owner == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    return 0;
}

static PySendResult
streamcoro_send(PyObject *self, PyObject *value, PyObject **result)
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    *result = NULL;
    if (coro_check(coro) < 0) {
        return PYGEN_ERROR;
    }
    if (LIKELY(!coro->started)) {
        if (UNLIKELY(value != Py_None)) {
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        coro->started = coro->running = 1;
        int status = coro->step(coro, result);
        if (status != 0) {
            coro_end(coro);
            return status > 0 ? PYGEN_RETURN : PYGEN_ERROR;
        }
    }
    coro->running = 1;
    return coro_go_on(coro, PyIter_Send(coro->awaiting, value, result), result);
}

/* The three outcomes as a method returns them. */
static PyObject *
coro_outcome(PySendResult outcome, PyObject *result, int explicit)
{
    if (outcome != PYGEN_RETURN) {
        return result;
    }
    if (result == Py_None && !explicit) {
        Py_DECREF(result); /* NULL with nothing set stands for StopIteration(None) */
        return NULL;
    }
    if (result == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    else {
        (void)set_stop_iteration(result);
    }
    Py_DECREF(result);
    return NULL;
}

static PyObject *
streamcoro_iternext(PyObject *self)
{
    PyObject *result;
    PySendResult outcome = streamcoro_send(self, Py_None, &result);
    return coro_outcome(outcome, result, 0);
}

static PyObject *
StreamCoro_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult outcome = streamcoro_send(self, value, &result);
    return coro_outcome(outcome, result, 1);
}

/* awaiting.close(), if it has that. */
static int
coro_close_awaiting(StreamCoroObj *coro)
{
    if (future_is_exact(coro->awaiting)) {
        return 0;
    }
    PyObject *method;
    if (PyObject_GetOptionalAttr(coro->awaiting, coro->st->str.close, &method) <= 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *res = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static PyObject *
StreamCoro_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    if (coro_check(coro) < 0) {
        return NULL;
    }
    int started = coro->started != 0;
    coro->started = 1;
    if (coro->awaiting == NULL) {
        if (future_throw_arguments(args, nargs) == 0) {
            coro_end(coro);
        }
        else if (!started) {
            coro->started = 0;
        }
        return NULL;
    }
    coro->running = 1;
    PyObject *result = NULL, *method = NULL;
    PySendResult outcome = PYGEN_ERROR;
    if (nargs > 0 && PyErr_GivenExceptionMatches(args[0], PyExc_GeneratorExit)) {
        if (coro_close_awaiting(coro) == 0) {
            (void)future_throw_arguments(args, nargs);
        }
    }
    else if (future_is_exact(coro->awaiting)) {
        if (future_throw_arguments(args, nargs) < 0) {
            coro->running = 0; /* a mistake of the caller's */
            return NULL;
        }
    }
    else if (PyObject_GetOptionalAttr(coro->awaiting, coro->st->str.throw, &method) >= 0) {
        if (method == NULL) {
            (void)future_throw_arguments(args, nargs);
        }
        else {
            result = PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
            Py_DECREF(method);
            if (result != NULL) {
                outcome = PYGEN_NEXT;
            }
            else if (_PyGen_FetchStopIterationValue(&result) == 0) {
                outcome = PYGEN_RETURN;
            }
        }
    }
    outcome = coro_go_on(coro, outcome, &result);
    return coro_outcome(outcome, result, 1);
}

static PyObject *
StreamCoro_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    if (coro->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    int status = 0;
    coro->started = 1;
    if (coro->awaiting != NULL) {
        coro->running = 1;
        status = coro_close_awaiting(coro);
        coro_end_wait(coro);
    }
    coro_end(coro);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
streamcoro_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object %s at %p>", ((StreamCoroObj *)self)->name, self);
}

static PyObject *
StreamCoro_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((StreamCoroObj *)self)->name);
}

static PyObject *
StreamCoro_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(strchr(((StreamCoroObj *)self)->name, '.') + 1);
}

static int
streamcoro_traverse(PyObject *self, visitproc visit, void *arg)
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(coro->owner);
    Py_VISIT(coro->awaiting);
    Py_VISIT(coro->arg);
    return 0;
}

static int
streamcoro_clear(PyObject *self)
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    if (coro->owner != NULL) {
        coro_end_wait(coro);
        coro_end(coro);
    }
    return 0;
}

/* No code of ours can refer to the object here, so a warning cannot bring it back to life. */
static __attribute__((noinline)) void
coro_warn(StreamCoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", coro->name) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_SetRaisedException(raised);
}

static void
streamcoro_dealloc(PyObject *self)
{
    StreamCoroObj *coro = (StreamCoroObj *)self;
    PyObject_GC_UnTrack(self);
    if (UNLIKELY(!coro->started && coro->owner != NULL)) {
        coro_warn(coro);
    }
    (void)streamcoro_clear(self);
    freelist_give(&coro->st->free_stream_coros, self, 0);
}

static PyMethodDef StreamCoro_methods[] = {
    {"send", StreamCoro_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))StreamCoro_throw, METH_FASTCALL, NULL},
    {"close", StreamCoro_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef StreamCoro_getset[] = {
    {"__name__", StreamCoro_get_name, NULL, NULL, NULL},
    {"__qualname__", StreamCoro_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot StreamCoro_slots[] = {
    {Py_tp_dealloc, streamcoro_dealloc},
    {Py_tp_traverse, streamcoro_traverse},
    {Py_tp_clear, streamcoro_clear},
    {Py_tp_repr, streamcoro_repr},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, streamcoro_send},
    {Py_tp_methods, StreamCoro_methods},
    {Py_tp_getset, StreamCoro_getset},
    {0, NULL},
};

static PyType_Spec StreamCoro_spec = {
    .name = "ctask.StreamCoro",
    .basicsize = sizeof(StreamCoroObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = StreamCoro_slots,
};

/* ---- the method ---- */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    ctask_state *st;     // borrowed from the type's module
    PyTypeObject *owner; // owned; whose method it is
    PyObject *stock;     // owned; asyncio's function
    streammethod function;
} StreamMethodObj;

static PyObject *
streammethod_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    StreamMethodObj *method = (StreamMethodObj *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (UNLIKELY(nargs < 1 || !PyObject_TypeCheck(args[0], method->owner))) {
        /* Not one of ours: asyncio's function takes whatever has the right attributes. */
        return PyObject_Vectorcall(method->stock, args, nargsf, kwnames);
    }
    return method->function(method->st, args[0], args, nargs, kwnames, method->stock);
}

static PyObject *
streammethod_get(PyObject *self, PyObject *obj, PyObject *Py_UNUSED(type))
{
    return obj == NULL || obj == Py_None ? Py_NewRef(self) : PyMethod_New(self, obj);
}

static PyObject *
streammethod_getattro(PyObject *self, PyObject *name)
{
    PyObject *value;
    if (PyObject_GetOptionalAttr(((StreamMethodObj *)self)->stock, name, &value) != 0) {
        return value;
    }
    return PyObject_GenericGetAttr(self, name);
}

static PyObject *
streammethod_repr(PyObject *self)
{
    return PyObject_Repr(((StreamMethodObj *)self)->stock);
}

static int
streammethod_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((StreamMethodObj *)self)->owner);
    Py_VISIT(((StreamMethodObj *)self)->stock);
    return 0;
}

static void
streammethod_dealloc(PyObject *self)
{
    StreamMethodObj *method = (StreamMethodObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(method->owner);
    Py_XDECREF(method->stock);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef streammethod_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(StreamMethodObj, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot streammethod_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, streammethod_dealloc},
    {Py_tp_traverse, streammethod_traverse},
    {Py_tp_descr_get, streammethod_get},
    {Py_tp_getattro, streammethod_getattro},
    {Py_tp_repr, streammethod_repr},
    {Py_tp_members, streammethod_members},
    {0, NULL},
};

/* Without tp_clear: it is a type's, and the type's own tp_clear lets go of it. */
static PyType_Spec streammethod_spec = {
    .name = "ctask.StreamMethod",
    .basicsize = sizeof(StreamMethodObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = streammethod_slots,
};

PART int
streammethod_add(ctask_state *st, PyTypeObject *type, PyObject *stock, const char *name, streammethod function)
{
    PyObject *stock_function = PyObject_GetAttrString(stock, name);
    if (stock_function == NULL) {
        return -1;
    }
    StreamMethodObj *method = PyObject_GC_New(StreamMethodObj, st->StreamMethodType);
    if (method == NULL) {
        Py_DECREF(stock_function);
        return -1;
    }
    method->vectorcall = streammethod_vectorcall;
    method->st = st;
    method->owner = (PyTypeObject *)Py_NewRef(type);
    method->stock = stock_function;
    method->function = function;
    PyObject_GC_Track(method);
    int status = PyObject_SetAttrString((PyObject *)type, name, (PyObject *)method);
    Py_DECREF(method);
    return status;
}

/* ---- overrides ---- */

PART int
stream_overrides(PyTypeObject *type, PyTypeObject *core, PyObject *stock, PyObject *const *names,
                 size_t n_names)
{
    PyObject *raised = PyErr_GetRaisedException();
    int overridden = 0;
    for (size_t i = 0; i < n_names && !overridden; i++) {
        PyObject *found = PyObject_GetAttr((PyObject *)type, names[i]);
        PyObject *ours;
        if (PyObject_GetOptionalAttr((PyObject *)core, names[i], &ours) == 0) {
            ours = PyObject_GetAttr(stock, names[i]);
        }
        overridden = found == NULL || found != ours;
        Py_XDECREF(found);
        Py_XDECREF(ours);
    }
    PyErr_Clear();
    PyErr_SetRaisedException(raised);
    return overridden;
}

/* ---- arguments ---- */

PART PyObject *
stream_data_argument(ctask_state *st, const char *method, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (LIKELY(nargs == 1 && nkw == 0)) {
        return args[0];
    }
    if (nargs == 0 && nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.data) == 0) {
        return args[0];
    }
    PyErr_Format(PyExc_TypeError, "%s() takes one argument, 'data' (%zd given)", method, nargs + nkw);
    return NULL;
}

PART int
streamcoro_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, NULL, &st->StreamCoroType, &StreamCoro_spec, NULL) < 0 ||
        add_type(module, NULL, &st->StreamMethodType, &streammethod_spec, NULL) < 0) {
        return -1;
    }
    /* After the type is ready, so that no __next__ and no __iter__ appear: a coroutine is no Iterator. */
    st->StreamCoroType->tp_iternext = streamcoro_iternext;
    st->StreamCoroType->tp_iter = PyObject_SelfIter;
    return 0;
}
