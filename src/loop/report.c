/* What the loop says of what it runs: the handle that asyncio would have made for an entry of its ring, the call of the
   exception handler, and the warning about a slow callback, in the words of asyncio.Handle.

   Nothing here is called while all goes well and nobody looks. */

#include "loop/report.h"
#include "loop/watch.h"
#include "tasks/tasks.h"

/* ---- entries as handles ---- */

/* The time of an entry of the kind READY_TIMER. */
static double
entry_when(const ring_entry *entry)
{
    static_assert(sizeof(double) == sizeof(void *), "a time fits in a word of the ring");
    double when;
    memcpy(&when, &entry->arg, sizeof(when));
    return when;
}

PART PyObject *
entry_as_handle(LoopObj *loop, ring_entry *entry)
{
    if (ring_kind(entry) == READY_TIMER) {
        return (PyObject *)timer_of_call(loop, entry_when(entry), ring_subject(entry));
    }
    PyObject *subject = ring_subject(entry);
    PyObject *callback, *context = entry->context;
    PyObject *arg = entry->arg;
    if (ring_kind(entry) == READY_STEP || (ring_kind(entry) == READY_WAKE && task_is_exact(subject))) {
        context = task_context((TaskObj *)subject, loop->st);
        if (context == NULL) {
            return NULL;
        }
    }
    switch (ring_kind(entry)) {
    case READY_HANDLE:
        return Py_NewRef(subject);
    case READY_APPLY:
        return (PyObject *)handle_create(
            loop, subject, &PyTuple_GET_ITEM(arg, 0), PyTuple_GET_SIZE(arg), context, 0);
    case READY_STEP:
        callback = task_step_callback((TaskObj *)subject, loop->st, arg);
        arg = NULL;
        break;
    case READY_WAKE:
        callback = task_is_exact(subject) ? task_wakeup_callback((TaskObj *)subject) : Py_NewRef(subject);
        break;
    case READY_READ:
    case READY_WRITE:
        if ((io_ready)(void *)arg == watch_wake) {
            callback = PyObject_GetAttrString((PyObject *)loop, "_sock_ready");
            arg = subject;
            break;
        }
        callback = context != NULL
                       ? PyObject_GetAttrString(subject, "_lost_ready")
                       : PyObject_GetAttr(subject,
                                          ring_kind(entry) == READY_READ ? loop->st->str._read_ready
                                                                         : loop->st->str._write_ready);
        arg = context = NULL;
        break;
    default:
        callback = Py_NewRef(subject);
        break;
    }
    if (callback == NULL) {
        return NULL;
    }
    HandleObj *handle = handle_create(loop, callback, &arg, arg == NULL ? 0 : 1, context, 0);
    Py_DECREF(callback);
    return (PyObject *)handle;
}

/* ---- exceptions ---- */

/* Where the handle was made, for the exception handler: any object, as anybody may have set it. */
static int
report_source(ctask_state *st, PyObject *context, PyObject *source)
{
    Py_XINCREF(source);
    int status = source == NULL ? 0 : PyObject_IsTrue(source);
    if (status > 0) {
        status = PyDict_SetItem(context, st->str.source_traceback, source);
    }
    Py_XDECREF(source);
    return status;
}

PART PyObject *
loop_tell_handler(ctask_state *st, PyObject *loop, PyObject *report, PyObject *exc)
{
    PyObject *before = PyErr_GetHandledException();
    PyErr_SetHandledException(exc);
    PyObject *res = PyObject_CallMethodOneArg(loop, st->str.call_exception_handler, report);
    PyErr_SetHandledException(before);
    Py_XDECREF(before);
    return res;
}

/* A callback raised.  SystemExit and KeyboardInterrupt end the loop (-1, still set); all else goes to the
   exception handler, in the words of asyncio.Handle. */
PART int
report_exception(LoopObj *loop, PyObject *handle)
{
    if (raised_is_exit()) {
        return -1;
    }
    ctask_state *st = loop->st;
    PyObject *exc = PyErr_GetRaisedException();
    HandleObj *h = (HandleObj *)handle;
    PyObject *callback = Py_NewRef(h->callback == NULL ? Py_None : h->callback);
    PyObject *arguments = Py_NewRef(h->args == NULL ? Py_None : h->args);
    PyObject *source = NULL, *message = NULL, *context = NULL, *res = NULL;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *keywords = PyTuple_Pack(1, st->str.debug);
    PyObject *stack[] = {callback, arguments, loop->debug ? Py_True : Py_False};
    if (keywords != NULL) {
        source = PyObject_Vectorcall(st->format_callback_source, stack, 2, keywords);
        Py_DECREF(keywords);
    }
#else
    PyObject *stack[] = {callback, arguments};
    source = PyObject_Vectorcall(st->format_callback_source, stack, 2, NULL);
#endif
    if (source != NULL) {
        message = PyUnicode_FromFormat("Exception in callback %S", source);
        Py_DECREF(source);
    }
    if (message != NULL) {
        context = PyDict_New();
    }
    if (context != NULL && PyDict_SetItem(context, st->str.message, message) == 0 &&
        PyDict_SetItem(context, st->str.exception, exc) == 0 &&
        PyDict_SetItem(context, st->str.handle, handle) == 0 &&
        report_source(st, context, h->source_traceback) == 0) {
        res = loop_tell_handler(st, (PyObject *)loop, context, exc);
    }
    Py_XDECREF(context);
    Py_XDECREF(message);
    Py_DECREF(arguments);
    Py_DECREF(callback);
    Py_DECREF(exc);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
report_entry(LoopObj *loop, ring_entry *entry)
{
    if (raised_is_exit()) {
        return -1;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *handle = entry_as_handle(loop, entry);
    if (handle == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    PyErr_SetRaisedException(raised);
    int status = report_exception(loop, handle);
    Py_DECREF(handle);
    return status;
}

PART int
loop_report(LoopObj *loop, PyObject *callback, PyObject *arg)
{
    ring_entry entry = ring_make(callback, READY_CALL, arg, NULL);
    return report_entry(loop, &entry);
}

/* ---- slow callbacks ---- */

/* What asyncio says of the handle, and of a step where its task is now: ctask/_messages.py. */
static PyObject *
format_step(ctask_state *st, PyObject *handle)
{
    PyObject *text = PyObject_CallOneArg(st->format_handle, handle);
    PyObject *messages = text == NULL ? NULL : PyImport_ImportModule("ctask._messages");
    PyObject *longer = messages == NULL ? NULL
                                        : PyObject_CallMethod(messages, "place_step", "OO", text, handle);
    Py_XDECREF(messages);
    Py_XDECREF(text);
    return longer;
}

/* asyncio's warning about a callback that took longer than loop.slow_callback_duration. */
PART int
report_slow(LoopObj *loop, PyObject *handle, double seconds)
{
    ctask_state *st = loop->st;
    int result = -1;
    PyObject *slow = NULL, *text = NULL, *res = NULL;
    PyObject *limit = PyObject_GetAttr((PyObject *)loop, st->str.slow_callback_duration);
    PyObject *took = PyFloat_FromDouble(seconds);
    if (limit == NULL || took == NULL || (slow = PyObject_RichCompare(took, limit, Py_GE)) == NULL) {
        goto finally;
    }
    result = PyObject_IsTrue(slow);
    if (result > 0) {
        text = format_step(st, handle);
        if (text != NULL) {
            res = PyObject_CallMethod(
                st->logger, "warning", "sOO", "Executing %s took %.3f seconds", text, took);
        }
        result = res == NULL ? -1 : 0;
    }
finally:
    Py_XDECREF(res);
    Py_XDECREF(text);
    Py_XDECREF(slow);
    Py_XDECREF(took);
    Py_XDECREF(limit);
    return result;
}
