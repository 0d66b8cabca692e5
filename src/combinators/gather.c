/* gather(): one future for the results of many.

   asyncio gives each child a closure; here they share one callback in C (done.h), and children that are
   coroutines become tasks of our loops without a call.  The future that is returned is asyncio's
   _GatheringFuture in C: cancelling it cancels the children.

   Arguments are told apart by their address.  Where an argument has an __eq__ or __hash__ of its own, where no
   loop runs, and for mistakes, asyncio's own function runs, which then makes the future of this type as well. */

#include "combinators/combinators.h"
#include "coro/coro.h"
#include "tasks/done.h"
#include "combinators/ensure.h"
#include "base/seen.h"
#include "coro/standin.h"

#include <structmember.h>

typedef struct {
    FUTURE_FIELDS
    PyObject **children;        // owned, each too; NULL if asyncio's gather() made it
    Py_ssize_t n_children;
    PyObject *children_given;   // owned; `_children` as Python code sees or has set it; NULL until then
    PyObject *cancel_requested; // owned; `_cancel_requested`
} GatherObj;

/* ---- a child is done ---- */

/* fut._make_cancelled_error(); owned. */
static PyObject *
cancelled_error_of(ctask_state *st, PyObject *fut)
{
    return future_is_exact(fut) ? future_cancelled_error((FutureObj *)fut, st)
                                : PyObject_CallMethodNoArgs(fut, st->str._make_cancelled_error);
}

/* The CancelledError that stands in the list of results; owned. */
static PyObject *
cancelled_result_of(ctask_state *st, PyObject *fut)
{
    PyObject *msg = future_is_exact(fut) ? Py_XNewRef(((FutureObj *)fut)->cancel_msg)
                                         : PyObject_GetAttr(fut, st->str._cancel_message);
    if (msg == NULL && PyErr_Occurred()) {
        return NULL;
    }
    if (msg == NULL || msg == Py_None) {
        Py_XDECREF(msg);
        msg = PyUnicode_New(0, 0);
    }
    PyObject *exc = msg == NULL ? NULL : PyObject_CallOneArg(st->CancelledError, msg);
    Py_XDECREF(msg);
    return exc;
}

static PyObject *
result_of_child(ctask_state *st, PyObject *fut)
{
    int cancelled = future_is_cancelled(st, fut);
    if (UNLIKELY(cancelled != 0)) {
        return cancelled < 0 ? NULL : cancelled_result_of(st, fut);
    }
    PyObject *exc = future_exception(st, fut);
    if (exc != Py_None) {
        return exc;
    }
    Py_DECREF(exc);
    return future_result(st, fut);
}

/* All children are done: the list of their results. */
static PyObject *
gather_results(GatherObj *outer, ctask_state *st)
{
    Py_ssize_t n = outer->n_children;
    PyObject *results = PyList_New(n);
    if (results == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(results); /* nobody may find it while it has gaps */
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *result = result_of_child(st, outer->children[i]);
        if (UNLIKELY(result == NULL)) {
            Py_DECREF(results);
            return NULL;
        }
        PyList_SET_ITEM(results, i, result);
    }
    PyObject_GC_Track(results);
    return results;
}

static int
gather_finish(GatherObj *outer, ctask_state *st)
{
    int status;
    PyObject *results = gather_results(outer, st);
    if (results == NULL) {
        return -1;
    }
    PyObject *flag = Py_XNewRef(outer->cancel_requested);
    int requested = flag == NULL ? 0 : PyObject_IsTrue(flag);
    Py_XDECREF(flag);
    if (requested < 0) {
        status = -1;
    }
    else if (requested && outer->n_children > 0) {
        PyObject *exc = cancelled_error_of(st, outer->children[outer->n_children - 1]);
        status = exc == NULL ? -1 : future_set_exception((FutureObj *)outer, st, exc);
        Py_XDECREF(exc);
    }
    else {
        status = future_set_result((FutureObj *)outer, st, results);
    }
    Py_DECREF(results);
    return status;
}

/* The first exception ends the whole; steals it. */
static int
gather_fail(GatherObj *outer, ctask_state *st, PyObject *task, PyObject *exc)
{
    if (exc == NULL) {
        return -1;
    }
    int status = 0;
    if (task != NULL) {
        for (Py_ssize_t i = 0; i < outer->n_children && status == 0; i++) {
            status = awaited_by_discard(st, outer->children[i], (TaskObj *)task);
        }
    }
    if (status == 0) {
        status = future_set_exception((FutureObj *)outer, st, exc);
    }
    Py_DECREF(exc);
    return status;
}

static int
child_done(DoneObj *done, PyObject *fut)
{
    ctask_state *st = done->st;
    GatherObj *outer = (GatherObj *)done->owner;
    done->n++;
    if (done->task != NULL && awaited_by_discard(st, fut, (TaskObj *)done->task) < 0) {
        return -1;
    }
    if (outer == NULL || outer->loop == NULL || outer->state != FUTURE_PENDING) {
        /* Nobody will ask any more: its exception counts as retrieved. */
        int cancelled = future_is_cancelled(st, fut);
        if (cancelled == 0) {
            PyObject *exc = future_exception(st, fut);
            Py_XDECREF(exc);
            return exc == NULL ? -1 : 0;
        }
        return cancelled < 0 ? -1 : 0;
    }
    if (!done->flag) {
        int cancelled = future_is_cancelled(st, fut);
        if (UNLIKELY(cancelled != 0)) {
            return cancelled < 0 ? -1 : gather_fail(outer, st, done->task, cancelled_error_of(st, fut));
        }
        PyObject *exc = future_exception(st, fut);
        if (UNLIKELY(exc != Py_None)) {
            return gather_fail(outer, st, done->task, exc);
        }
        Py_DECREF(exc);
    }
    if (done->n != done->total) {
        return 0;
    }
    Py_INCREF(outer);
    int status = gather_finish(outer, st);
    if (UNLIKELY(status < 0) && outer->state == FUTURE_PENDING && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyObject *exc = PyErr_GetRaisedException(); // nobody else would end it
        status = future_set_exception((FutureObj *)outer, st, exc);
        Py_DECREF(exc);
    }
    Py_DECREF(outer);
    return status;
}

/* ---- gather() ---- */

static GatherObj *
gather_new(ctask_state *st, Py_ssize_t n)
{
    GatherObj *outer = (GatherObj *)st->GatherType->tp_alloc(st->GatherType, 0);
    if (outer == NULL) {
        return NULL;
    }
    outer->cancel_requested = Py_NewRef(Py_False);
    outer->children = PyMem_Calloc((size_t)n, sizeof(PyObject *));
    if (outer->children == NULL) {
        Py_DECREF(outer);
        PyErr_NoMemory();
        return NULL;
    }
    return outer;
}

/* A task that nobody else has: no warning if it is destroyed while it waits. */
static int
hide_from_reports(ctask_state *st, PyObject *fut)
{
    if (LIKELY(task_is_exact(fut))) {
        ((TaskObj *)fut)->log_destroy_pending = 0;
        return 0;
    }
    return PyObject_SetAttr(fut, st->str._log_destroy_pending, Py_False);
}

/* What the steps of gather() hand on to each other. */
typedef struct {
    ctask_state *st;
    GatherObj *outer;  // owned
    DoneObj *done;     // owned
    PyObject *context; // owned; a copy of the current one, which the callbacks share
    PyObject *running; // owned
    PyObject *loop;    // owned; the children's; NULL until there is one
    Py_ssize_t n_done; // of the children, when they came
} gathering;

/* The future of an argument that was not there before. */
static int
gather_child(gathering *g, PyObject *arg)
{
    ctask_state *st = g->st;
    GatherObj *outer = g->outer;
    /* asyncio asks for the loop that runs when an argument needs one and none is known yet. */
    PyObject *loop = g->loop;
    if (loop == NULL && !future_is_exact(arg)) {
        loop = PyCoro_CheckExact(arg) || Py_IS_TYPE(arg, st->CoroType) ? g->running : NULL;
    }
    PyObject *fut = loop == NULL && future_is_exact(arg) ? Py_NewRef(arg) : ensure_future(st, arg, loop);
    if (fut == NULL) {
        return -1;
    }
    outer->children[outer->n_children++] = fut;
    if (g->loop == NULL) {
        g->loop = future_is_exact(fut) && ((FutureObj *)fut)->loop != NULL ? Py_NewRef(((FutureObj *)fut)->loop)
                                                                           : future_get_loop(st, fut);
        if (g->loop == NULL) {
            return -1;
        }
    }
    if (fut != arg && hide_from_reports(st, fut) < 0) {
        return -1;
    }
    g->done->total++;
    if (UNLIKELY(!future_is_exact(fut))) {
        g->done->silent = 0;
    }
#if PY_VERSION_HEX >= 0x030C0000
    int is_done = future_is_done(st, fut);
    if (UNLIKELY(is_done != 0)) {
        g->n_done++;
        return is_done < 0 ? -1 : 0;
    }
#endif
    if (g->done->task != NULL && awaited_by_add(st, fut, (TaskObj *)g->done->task) < 0) {
        return -1;
    }
    return done_add(g->done, fut, g->context);
}

static PyObject *
gather_run(gathering *g, PyObject *const *args, Py_ssize_t nargs)
{
    GatherObj *outer = g->outer;
    seen_table seen;
    /* The futures that were done already, in order; borrowed from the children. */
    PyObject **done_futs = NULL;
    Py_ssize_t n_done = 0;
    int status = seen_open(&seen, (size_t)nargs);
    if (status < 0) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; status == 0 && i < nargs; i++) {
        Py_ssize_t before = seen_before(&seen, (void *const *)args, (size_t)i);
        if (UNLIKELY(before >= 0)) {
            outer->children[outer->n_children++] = Py_NewRef(outer->children[before]);
            continue;
        }
        status = gather_child(g, args[i]);
        if (UNLIKELY(status == 0 && g->n_done != n_done)) {
            if (done_futs == NULL) {
                done_futs = PyMem_Malloc((size_t)nargs * sizeof(PyObject *));
                if (done_futs == NULL) {
                    PyErr_NoMemory();
                    status = -1;
                    break;
                }
            }
            done_futs[n_done++] = outer->children[i];
        }
    }
    seen_close(&seen);
    if (status == 0) {
        status = future_init((FutureObj *)outer, g->st, g->loop);
        if (UNLIKELY(status < 0)) {
            Py_CLEAR(outer->loop); /* the tasks that were made have no future to tell */
        }
    }
    /* They count now that the future is there, which may then be done itself. */
    for (Py_ssize_t i = 0; status == 0 && i < n_done; i++) {
        status = child_done(g->done, done_futs[i]);
    }
    PyMem_Free(done_futs);
    return UNLIKELY(status < 0) ? NULL : Py_NewRef(outer);
}

/* Who runs now, for the call graph: NULL if nobody does, or the version has none. */
static int
gather_find_task(gathering *g)
{
#if FUTURE_CALL_GRAPH
    g->loop = Py_NewRef(g->running);
    g->done->task = task_for_call_graph(g->st, g->running);
    if (g->done->task == NULL && PyErr_Occurred()) {
        return -1;
    }
#else
    (void)g;
#endif
    return 0;
}

/* gather(*coros_or_futures, return_exceptions=False) */
static PyObject *
gather_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    int return_exceptions = 0, known = nargs > 0 && nargs < INT32_MAX;
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        known = known && PyTuple_GET_SIZE(kwnames) == 1 &&
                PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.return_exceptions) == 0;
    }
    for (Py_ssize_t i = 0; known && i < nargs; i++) {
        known = is_told_by_address(args[i]);
    }
    gathering g = {.st = st, .running = known ? running_loop_or_null(st) : NULL};
    if (UNLIKELY(g.running == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *result = NULL;
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        return_exceptions = PyObject_IsTrue(args[nargs]);
    }
    g.outer = return_exceptions < 0 ? NULL : gather_new(st, nargs);
    g.done = g.outer == NULL ? NULL
                             : done_new(st, child_done, "gather.<locals>._done_callback", (PyObject *)g.outer);
    g.context = g.done == NULL ? NULL : context_copy(&st->base.contexts);
    if (g.context != NULL && gather_find_task(&g) == 0) {
        g.done->flag = (char)return_exceptions;
        g.done->silent = 1;
        result = gather_run(&g, args, nargs);
    }
    Py_XDECREF(g.loop);
    Py_DECREF(g.running);
    Py_XDECREF(g.context);
    Py_XDECREF(g.done);
    Py_XDECREF(g.outer);
    return result;
}

/* ---- _GatheringFuture ---- */

static int
Gather___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"children", "loop", NULL};
    PyObject *children, *loop;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$O:_GatheringFuture", keywords, &children, &loop)) {
        return -1;
    }
    if (loop == Py_None) {
        PyErr_SetNone(PyExc_AssertionError);
        return -1;
    }
    GatherObj *outer = (GatherObj *)self;
    if (refuse_second_init((FutureObj *)self) < 0 || future_init((FutureObj *)self, state_of(self), loop) < 0) {
        return -1;
    }
    Py_XSETREF(outer->children_given, Py_NewRef(children));
    Py_XSETREF(outer->cancel_requested, Py_NewRef(Py_False));
    return 0;
}

/* child.cancel(msg=msg): 1, 0, or -1. */
static int
cancel_given(GatherObj *outer, ctask_state *st, PyObject *msg)
{
    int any = 0;
    PyObject *given = Py_NewRef(outer->children_given), *child;
    PyObject *iterator = PyObject_GetIter(given);
    Py_DECREF(given);
    if (iterator == NULL) {
        return -1;
    }
    while ((child = PyIter_Next(iterator)) != NULL) {
        int cancelled = future_cancel_any(child, st, msg);
        Py_DECREF(child);
        if (cancelled < 0) {
            break;
        }
        any |= cancelled;
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : any;
}

static int
cancel_children(GatherObj *outer, ctask_state *st, PyObject *msg)
{
    int any = 0;
    for (Py_ssize_t i = 0; i < outer->n_children; i++) {
        PyObject *child = Py_NewRef(outer->children[i]);
        int cancelled = future_cancel_any(child, st, msg);
        Py_DECREF(child);
        if (cancelled < 0) {
            return -1;
        }
        any |= cancelled;
    }
    return any;
}

static int
gather_cancel(PyObject *self, ctask_state *st, PyObject *msg)
{
    GatherObj *outer = (GatherObj *)self;
    if (future_check_init((FutureObj *)outer) < 0) {
        return -1;
    }
    if (outer->state != FUTURE_PENDING) {
        return 0;
    }
    if (Py_EnterRecursiveCall(" while cancelling a future")) {
        return -1; /* the children may be of gather(), too */
    }
    int any = outer->children_given != NULL ? cancel_given(outer, st, msg) : cancel_children(outer, st, msg);
    Py_LeaveRecursiveCall();
    if (any > 0) {
        Py_XSETREF(outer->cancel_requested, Py_NewRef(Py_True));
    }
    return any;
}

PyDoc_STRVAR(Gather_cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Cancel all children; return whether any was not done.  (asyncio's _GatheringFuture.cancel)");

static PyObject *
Gather_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", NULL};
    PyObject *msg = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &msg)) {
        return NULL;
    }
    int result = gather_cancel(self, state_of(self), msg);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
Gather_get_children(PyObject *self, void *Py_UNUSED(closure))
{
    GatherObj *outer = (GatherObj *)self;
    if (outer->children_given == NULL) {
        PyObject *children = PyList_New(outer->n_children);
        if (children == NULL) {
            return NULL;
        }
        for (Py_ssize_t i = 0; i < outer->n_children; i++) {
            PyList_SET_ITEM(children, i, Py_NewRef(outer->children[i]));
        }
        return keep_first(&outer->children_given, children);
    }
    return Py_NewRef(outer->children_given);
}

static int
Gather_set_children(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_children");
        return -1;
    }
    Py_XSETREF(((GatherObj *)self)->children_given, Py_NewRef(value));
    return 0;
}

static int
gather_traverse(PyObject *self, visitproc visit, void *arg)
{
    GatherObj *outer = (GatherObj *)self;
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < outer->n_children; i++) {
        Py_VISIT(outer->children[i]);
    }
    Py_VISIT(outer->children_given);
    Py_VISIT(outer->cancel_requested);
    FUTURE_VISIT_DICT((FutureObj *)self);
    return future_traverse_fields((FutureObj *)self, visit, arg);
}

static int
gather_clear(PyObject *self)
{
    GatherObj *outer = (GatherObj *)self;
    PyObject **children = outer->children;
    Py_ssize_t n = outer->n_children;
    outer->children = NULL;
    outer->n_children = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_DECREF(children[i]);
    }
    PyMem_Free(children);
    Py_CLEAR(outer->children_given);
    Py_CLEAR(outer->cancel_requested);
    future_clear_fields((FutureObj *)self);
    FUTURE_CLEAR_DICT((FutureObj *)self);
    return 0;
}

static PyMethodDef Gather_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))Gather_cancel, METH_VARARGS | METH_KEYWORDS, Gather_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Gather_members[] = {
    {"_cancel_requested", T_OBJECT_EX, offsetof(GatherObj, cancel_requested), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Gather_getset[] = {
    {"_children", Gather_get_children, Gather_set_children, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Gather_doc,
"_GatheringFuture(children, *, loop)\n--\n\n"
"What gather() returns.  Stands for asyncio's, which it derives from.");

static PyType_Slot Gather_slots[] = {
    {Py_tp_doc, (void *)Gather_doc},
    {Py_tp_init, Gather___init__},
    {Py_tp_dealloc, future_derived_dealloc},
    {Py_tp_traverse, gather_traverse},
    {Py_tp_clear, gather_clear},
    {Py_tp_iter, future_iter},
    {Py_am_await, future_iter}, /* for __await__(); see future_become_iterator() */
    {Py_tp_methods, Gather_methods},
    {Py_tp_members, Gather_members},
    {Py_tp_getset, Gather_getset},
    {0, NULL},
};

/* Not immutable, as asyncio's class, its base, is not. */
static PyType_Spec Gather_spec = {
    .name = "ctask._GatheringFuture",
    .basicsize = sizeof(GatherObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Gather_slots,
};

PART int
gather_setup(PyObject *module, ctask_state *st)
{
    static const future_kind kind = {gather_cancel, gather_clear};
    st->tasks.derived_future = &kind;
    PyObject *bases = PyTuple_Pack(2, st->stock_GatheringFuture, (PyObject *)st->FutureType);
    if (bases == NULL) {
        return -1;
    }
    int result = add_type(module, "_GatheringFuture", &st->GatherType, &Gather_spec, bases);
    Py_DECREF(bases);
    if (result < 0) {
        return -1;
    }
    st->GatherType->tp_name = "_GatheringFuture"; // in messages, as of a class that Python made
    future_become_iterator(st->GatherType);
    return standin_function(st, module, st->stock_gather, "gather", gather_call);
}
