/* shield(): a future that can be cancelled in place of the one that is waited for.

   Two callbacks in C (done.h) in place of asyncio's closures.  What is not one of our futures, and other loops, are
   left to asyncio's own function, and so is all if that has parts which are not known here: what becomes of an
   exception that nobody waits for any more has changed more than once. */

#include "combinators/combinators.h"
#include "coro/coro.h"
#include "tasks/done.h"
#include "combinators/ensure.h"
#include "coro/standin.h"

/* `done->owner` is the outer future. */
static int
inner_done(DoneObj *done, PyObject *inner)
{
    ctask_state *st = done->st;
    if (done->task != NULL && awaited_by_discard(st, inner, (TaskObj *)done->task) < 0) {
        return -1;
    }
    if (done->owner == NULL) {
        return 0;
    }
    int cancelled = future_is_cancelled(st, inner);
    FutureObj *outer = (FutureObj *)done->owner;
    if (cancelled < 0 || outer->state == FUTURE_CANCELLED) {
#if PY_VERSION_HEX < 0x030E0000
        if (cancelled == 0) {
            /* It counts as retrieved. */
            PyObject *exc = future_exception(st, inner);
            Py_XDECREF(exc);
            return exc == NULL ? -1 : 0;
        }
#endif
        return cancelled < 0 ? -1 : 0;
    }
    Py_INCREF(outer);
    int status;
    if (cancelled) {
        status = future_cancel_any((PyObject *)outer, st, Py_None) < 0 ? -1 : 0;
    }
    else {
        PyObject *exc = future_exception(st, inner), *result = NULL;
        if (is_set(exc)) {
            status = future_set_exception(outer, st, exc);
        }
        else {
            result = exc == NULL ? NULL : future_result(st, inner);
            status = result == NULL ? -1 : future_set_result(outer, st, result);
        }
        Py_XDECREF(exc);
        Py_XDECREF(result);
    }
    Py_DECREF(outer);
    return status;
}

/* `done->owner` is the inner future, `done->other` its callback. */
static int
outer_done(DoneObj *done, PyObject *Py_UNUSED(outer))
{
    PyObject *inner = done->owner;
    DoneObj *callback = (DoneObj *)done->other;
    if (inner == NULL || callback == NULL || ((FutureObj *)inner)->state != FUTURE_PENDING) {
        return 0;
    }
    Py_INCREF(inner);
    Py_INCREF(callback);
    int status = done_remove(callback, inner);
    if (status == 0 && callback->task != NULL) {
        status = awaited_by_discard(done->st, inner, (TaskObj *)callback->task);
    }
    Py_DECREF(callback);
    Py_DECREF(inner);
    return status;
}

/* The outer future of one of ours that is pending. */
static PyObject *
shield_pending(ctask_state *st, PyObject *inner)
{
    PyObject *loop = Py_NewRef(((FutureObj *)inner)->loop); /* up to 3.11 a collection may start it anew */
    PyObject *outer = future_create(st, loop), *context = NULL;
    DoneObj *above = NULL, *below = NULL;
    int status = -1;
    if (outer == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    below = done_new(st, inner_done, "shield.<locals>._inner_done_callback", outer);
    above = done_new(st, outer_done, "shield.<locals>._outer_done_callback", inner);
    context = context_copy(&st->base.contexts);
    if (above == NULL || below == NULL || context == NULL) {
        goto finally;
    }
    above->other = Py_NewRef(below);
    above->silent = below->silent = 1;
#if FUTURE_CALL_GRAPH
    below->task = task_for_call_graph(st, loop);
    if (below->task == NULL && PyErr_Occurred()) {
        goto finally;
    }
    if (below->task != NULL && awaited_by_add(st, inner, (TaskObj *)below->task) < 0) {
        goto finally;
    }
#endif
    status = done_add(below, inner, context);
    if (status == 0) {
        status = done_add(above, outer, context);
    }
finally:
    Py_DECREF(loop);
    Py_XDECREF(context);
    Py_XDECREF(above);
    Py_XDECREF(below);
    if (status < 0) {
        Py_CLEAR(outer);
    }
    return outer;
}

/* shield(arg) */
static PyObject *
shield_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0))) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *inner;
    if (PyCoro_CheckExact(args[0]) || Py_IS_TYPE(args[0], st->CoroType)) {
        PyObject *loop = running_loop_or_null(st);
        if (loop == NULL) {
            return PyObject_CallOneArg(stock, args[0]);
        }
        inner = ensure_future(st, args[0], loop);
        Py_DECREF(loop);
        if (inner == NULL) {
            return NULL;
        }
    }
    else {
        inner = Py_NewRef(args[0]);
    }
    PyObject *result;
    FutureObj *fut = (FutureObj *)inner;
    if (LIKELY(future_is_exact(inner) && fut->loop != NULL && loop_plain(fut->loop) != NULL)) {
        result = fut->state == FUTURE_PENDING ? shield_pending(st, inner) : Py_NewRef(inner);
    }
    else {
        result = PyObject_CallOneArg(stock, inner);
    }
    Py_DECREF(inner);
    return result;
}

/* Does asyncio's have the closures that are known here, and no other? */
static int
shield_is_known(ctask_state *st)
{
    PyObject *code = PyObject_GetAttrString(st->stock_shield, "__code__");
    PyObject *constants = code == NULL ? NULL : PyObject_GetAttrString(code, "co_consts");
    int found = 0, known = constants != NULL && PyTuple_Check(constants);
    PyErr_Clear();
    for (Py_ssize_t i = 0; known && i < PyTuple_GET_SIZE(constants); i++) {
        PyObject *inside = PyTuple_GET_ITEM(constants, i);
        if (PyCode_Check(inside)) {
            PyObject *name = ((PyCodeObject *)inside)->co_name;
            found++;
            known = PyUnicode_CompareWithASCIIString(name, "_inner_done_callback") == 0 ||
                    PyUnicode_CompareWithASCIIString(name, "_outer_done_callback") == 0 ||
                    (FUTURE_CALL_GRAPH &&
                     PyUnicode_CompareWithASCIIString(name, "_clear_awaited_by_callback") == 0);
        }
    }
    Py_XDECREF(constants);
    Py_XDECREF(code);
    return known && found == 2 + FUTURE_CALL_GRAPH;
}

PART int
shield_setup(PyObject *module, ctask_state *st)
{
    if (!shield_is_known(st)) {
        return PyModule_AddObjectRef(module, "shield", st->stock_shield);
    }
    return standin_function(st, module, st->stock_shield, "shield", shield_call);
}
