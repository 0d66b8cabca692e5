/* How work gets to a loop, from those whom it knows nothing of and those whom it runs.

   Whether it may go straight to the ring, without a call that a program could see (loop_plain()); the ring's
   entries, put there and let go of.  Nothing here runs what it puts there: that is
   run.c's, in loop/. */

#include "handles/work.h"

/* ---- may it go straight there? ---- */

/* What the methods that the fast path stands for are called; see loop_plain(). */
static PyObject *
watched_name(ctask_state *st, int i)
{
    PyObject *names[] = {st->str.call_soon,
                         st->str.get_debug,
                         st->str.call_at,
                         st->str.time,
                         st->str._run_once,
                         st->str.create_future};
    return i < (int)Py_ARRAY_LENGTH(names) ? names[i] : NULL;
}

PART PyMethodDef *
loop_method_behind(ctask_state *st, PyObject *ours)
{
    int is_one = Py_IS_TYPE(ours, &PyMethodDescr_Type) && PyDescr_TYPE(ours) == st->LoopType;
    return is_one ? ((PyMethodDescrObject *)ours)->d_method : NULL;
}

/* Is `name` still our own method on this loop?  (A bound method of ours: looking it up does not create the
   instance's dictionary, without which the interpreter finds methods faster.) */
static int
is_our_method(LoopObj *loop, PyObject *name)
{
    PyObject *ours = PyObject_GetAttr((PyObject *)loop->st->LoopType, name);
    PyObject *theirs = ours == NULL ? NULL : PyObject_GetAttr((PyObject *)loop, name);
    int result = ours != NULL && theirs != NULL && PyCFunction_CheckExact(theirs) &&
                 PyCFunction_GET_SELF(theirs) == (PyObject *)loop &&
                 ((PyCFunctionObject *)theirs)->m_ml == loop_method_behind(loop->st, ours);
    Py_XDECREF(theirs);
    Py_XDECREF(ours);
    return result;
}

/* Is any of the watched methods not ours?  The answer holds until the type changes (its version tag tells)
   or an attribute of the instance is set (loop_setattro() sees it). */
static int
look_for_overrides(LoopObj *loop)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *name;
    int known = 1; // what was not seen for lack of memory is looked at again
    loop->overridden = 0;
    for (int i = 0; (name = watched_name(loop->st, i)) != NULL; i++) {
        if (!is_our_method(loop, name)) {
            loop->overridden = 1;
            known &= !PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_MemoryError);
            PyErr_Clear();
        }
    }
    loop->tasks_overridden = (char)!is_our_method(loop, loop->st->str.create_task);
    known &= !PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_MemoryError);
    loop->type_version = known ? Py_TYPE(loop)->tp_version_tag : 0;
    PyErr_SetRaisedException(raised);
    return loop->overridden;
}

PART int
loop_check_overrides(LoopObj *loop)
{
    if (LIKELY(loop->type_version != 0 && loop->type_version == Py_TYPE(loop)->tp_version_tag)) {
        return loop->overridden;
    }
    return look_for_overrides(loop);
}

PART int
loop_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    int result = PyObject_GenericSetAttr(self, name, value);
    LoopObj *loop = (LoopObj *)self;
    PyObject *watched;
    for (int i = 0; (watched = watched_name(loop->st, i)) != NULL; i++) {
        if (PyUnicode_Check(name) && PyUnicode_Compare(name, watched) == 0) {
            loop->type_version = 0; /* look again */
        }
    }
    if (PyUnicode_Check(name) && PyUnicode_Compare(name, loop->st->str.create_task) == 0) {
        loop->type_version = 0;
    }
    if (PyUnicode_Check(name) && PyUnicode_Compare(name, loop->st->str._transports) == 0) {
        Py_CLEAR(loop->transports);
    }
    return result;
}

/* ---- the ready queue ---- */

PART __attribute__((noinline)) void
timer_call_free(timer_call *call)
{
    PyObject *callback = call->callback, *args = call->args, *context = call->context;
    PyMem_Free(call);
    Py_DECREF(callback);
    Py_DECREF(args);
    Py_XDECREF(context);
}

PART void
entry_forget(ring_entry *entry)
{
    if (ring_kind(entry) == READY_TIMER) {
        timer_call_free(ring_subject(entry));
        return;
    }
    Py_DECREF((PyObject *)ring_subject(entry));
    if (ring_kind(entry) < READY_READ) {
        Py_XDECREF((PyObject *)entry->arg);
    }
    Py_XDECREF((PyObject *)entry->context);
}

/* Forget what is ready, and what becomes ready meanwhile. */
PART void
loop_forget_ready(LoopObj *loop)
{
    while (ring_length(&loop->ready) > 0) {
        ring_entry entry = ring_pop(&loop->ready);
        entry_forget(&entry);
    }
}

/* Steals its references, also when it fails (with MemoryError). */
PART int
loop_ready(LoopObj *loop, void *subject, unsigned kind, PyObject *arg, PyObject *context)
{
    if (LIKELY(ring_push(&loop->ready, ring_make(subject, kind, arg, context)) == 0)) {
        return 0;
    }
    ring_entry entry = ring_make(subject, kind, arg, context);
    entry_forget(&entry);
    PyErr_NoMemory();
    return -1;
}
