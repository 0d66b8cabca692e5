/* The type of the loop: its object from the first to the last, the plain methods, and the private attributes that
   others use.

   It owns the ring, the timers and the descriptors' handles; iterate.c runs it.  What runs once per program
   (executors, shutdown of async generators, the exception handler, start and end of run_forever()) is asyncio's,
   inherited by ctask.EventLoop, which is this type over asyncio.SelectorEventLoop. */

#include "loop/loop.h"
#include "handles/clock.h"
#include "loop/loops.h"
#include "loop/observer.h"
#include "loop/watchdog.h"
#include "loop/blocking.h"

#include <unistd.h>

/* ---- letting go ---- */

static void
spare_drop(spare_list *spare)
{
    while (spare->length > 0) {
        Py_DECREF(spare->handles[--spare->length]);
    }
}

static int
spare_traverse(spare_list *spare, visitproc visit, void *arg)
{
    for (int i = 0; i < spare->length; i++) {
        Py_VISIT(spare->handles[i]);
    }
    return 0;
}

/* Let go of all work and of the descriptors; the object stays usable for questions. */
static void
release(LoopObj *loop)
{
    loop->is_open = 0;
    loops_leave(loop);
    loop_forget_ready(loop);
    while (loop->timers.length > 0) {
        loop->last_timer = NULL; // each time: what is let go may open the loop again, and set another
        (void)timers_first(&loop->timers);
        heap_node *node = timers_pop(&loop->timers);
        if (timer_call_of(node) != NULL) {
            timer_call_free(timer_call_of(node));
        }
        else {
            Py_DECREF(list_entry(node, TimerObj, node));
        }
    }
    spare_drop(&loop->spare);
#if THREADSAFE_HANDLES
    spare_drop(&loop->spare_threadsafe);
#endif
    watch_clear(loop);
}

/* ---- methods ---- */

PyDoc_STRVAR(release_doc,
"_release($self, /)\n--\n\n"
"Forget everything that is scheduled and close the poller's descriptors; the end of close().");

static PyObject *
Loop_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    if (!loop->poll.asking) {
        release(loop);
        blocking_let_all_go(loop->st, loop);
    }
    if (loop->poll.asking) { // or does now, as letting go may run anything
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    poll_close(&loop->poll);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(check_closed_doc, "_check_closed($self, /)\n--\n\nRaise RuntimeError if the loop is closed.");

static PyObject *
Loop_check_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_check_open((LoopObj *)self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_closed_doc,
"is_closed($self, /)\n--\n\nReturn True if the loop was closed.  (asyncio.loop.is_closed)");

static PyObject *
Loop_is_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!((LoopObj *)self)->is_open);
}

PyDoc_STRVAR(is_running_doc,
"is_running($self, /)\n--\n\nReturn True while the loop runs.  (asyncio.loop.is_running)");

static PyObject *
Loop_is_running(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LoopObj *)self)->thread_ident != Py_None);
}

PyDoc_STRVAR(get_debug_doc,
"get_debug($self, /)\n--\n\nReturn whether the loop is in debug mode.  (asyncio.loop.get_debug)");

static PyObject *
Loop_get_debug(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *value = ((LoopObj *)self)->debug_value;
    return Py_NewRef(value == NULL ? Py_False : value); // the collector has cleared it
}

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Have run_forever() return after the iteration that runs.  (asyncio.loop.stop)");

static PyObject *
Loop_stop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ((LoopObj *)self)->stopping = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(adopt_methods_doc,
"_adopt_methods($self, /)\n--\n\n"
"Give this class method objects of its own for the methods of _ctask.Loop that it does not override.\n\n"
"The interpreter calls a C method without detour only if it belongs to the very class of the object.");

static PyObject *
Loop_adopt_methods(PyObject *cls, PyObject *Py_UNUSED(ignored))
{
    PyObject *module = PyType_GetModuleByDef((PyTypeObject *)cls, &ctask_module);
    if (module == NULL) {
        return NULL;
    }
    ctask_state *st = PyModule_GetState(module);
    static const char *const names[] = {"call_soon",
                                        "call_later",
                                        "call_at",
                                        "call_soon_threadsafe",
                                        "time",
                                        "create_future",
                                        "create_task",
                                        "get_debug"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *ours = PyObject_GetAttrString((PyObject *)st->LoopType, names[i]);
        PyObject *theirs = ours == NULL ? NULL : PyObject_GetAttrString(cls, names[i]);
        PyObject *method = NULL;
        PyMethodDef *def = theirs != NULL && theirs == ours ? loop_method_behind(st, ours) : NULL;
        if (def != NULL) {
            method = PyDescr_NewMethod((PyTypeObject *)cls, def);
            if (method != NULL && PyObject_SetAttrString(cls, names[i], method) < 0) {
                Py_CLEAR(method);
            }
        }
        int failed = theirs == NULL || (def != NULL && method == NULL);
        Py_XDECREF(method);
        Py_XDECREF(theirs);
        Py_XDECREF(ours);
        if (failed) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"_adopt_methods", Loop_adopt_methods, METH_NOARGS | METH_CLASS, adopt_methods_doc},
    {"_release", Loop_release, METH_NOARGS, release_doc},
    {"_check_closed", Loop_check_closed, METH_NOARGS, check_closed_doc},
    {"is_closed", Loop_is_closed, METH_NOARGS, is_closed_doc},
    {"is_running", Loop_is_running, METH_NOARGS, is_running_doc},
    {"get_debug", Loop_get_debug, METH_NOARGS, get_debug_doc},
    {"stop", Loop_stop, METH_NOARGS, stop_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- the private attributes that asyncio's own methods, and a few libraries, use ---- */

/* The handle of a timer, borrowed.  One that is made for a call which has lost its own takes its place. */
static TimerObj *
timer_show(LoopObj *loop, const heap_item *item)
{
    timer_call *call = timer_call_of(item->node);
    if (call == NULL) {
        return list_entry(item->node, TimerObj, node);
    }
    TimerObj *timer = timer_of_call(loop, item->when, call);
    if (timer != NULL) {
        timers_replace(&loop->timers, item->when, &call->node, &timer->node);
        timer->node.order &= ~(uint32_t)1;
        timer_call_free(call);
    }
    return timer;
}

static int
timer_compare(const void *first, const void *second)
{
    TimerObj *a = *(TimerObj *const *)first, *b = *(TimerObj *const *)second;
    heap_item one = {a->when_seconds, &a->node}, other = {b->when_seconds, &b->node};
    return heap_before(&one, &other) ? -1 : heap_before(&other, &one);
}

/* In their order: asyncio's list is a heap, and who takes the first from it (nest_asyncio) expects the next there. */
static PyObject *
Loop_get_scheduled(PyObject *self, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    PyObject *handles = PyList_New(0);
    int collects = PyGC_Disable();
    timers_cursor cursor = {0};
    const heap_bag *bag;
    while (handles != NULL && (bag = timers_next_bag(&loop->timers, &cursor)) != NULL) {
        for (size_t i = 0; handles != NULL && i < bag->length; i++) {
            TimerObj *timer = timer_show(loop, &bag->items[i]);
            if (timer == NULL || PyList_Append(handles, (PyObject *)timer) < 0) {
                Py_CLEAR(handles);
            }
        }
    }
    if (handles != NULL && PyList_GET_SIZE(handles) > 0) {
        PyObject **items = ((PyListObject *)handles)->ob_item;
        qsort(items, (size_t)PyList_GET_SIZE(handles), sizeof(PyObject *), timer_compare);
    }
    if (collects) {
        PyGC_Enable();
    }
    return handles;
}

/* asyncio's __init__ puts an empty queue there. */
static int
Loop_ignore(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), void *Py_UNUSED(closure))
{
    return 0;
}

static int
set_flag(char *flag, PyObject *value)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    *flag = (char)truth;
    return 0;
}

static PyObject *
Loop_get_stopping(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObj *)self)->stopping);
}

static int
Loop_set_stopping(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_flag(&((LoopObj *)self)->stopping, value);
}

static PyObject *
Loop_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!((LoopObj *)self)->is_open);
}

static int
Loop_set_closed(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    char closed;
    if (set_flag(&closed, value) < 0) {
        return -1;
    }
    loop->is_open = !closed && loop->poll.fd >= 0;
    return 0;
}

static PyObject *
Loop_get_debug_value(PyObject *self, void *Py_UNUSED(closure))
{
    return Loop_get_debug(self, NULL);
}

static int
Loop_set_debug_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    LoopObj *loop = (LoopObj *)self;
    if (set_flag(&loop->debug, value) < 0) {
        return -1;
    }
    Py_XSETREF(loop->debug_value, Py_NewRef(value == NULL ? Py_False : value));
    return 0;
}

/* An owned field that reads as None when empty. */
static PyObject *
get_field(PyObject *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (size_t)offset);
    return Py_NewRef(value == NULL ? Py_None : value);
}

static int
set_field(PyObject *self, PyObject *value, void *offset)
{
    PyObject **field = (PyObject **)((char *)self + (size_t)offset);
    Py_XSETREF(*field, Py_NewRef(value == NULL ? Py_None : value));
    return 0;
}

#define FIELD(name, field) {name, get_field, set_field, NULL, (void *)offsetof(LoopObj, field)}

static PyGetSetDef loop_getset[] = {
    {"_scheduled", Loop_get_scheduled, Loop_ignore, NULL, NULL},
    {"_stopping", Loop_get_stopping, Loop_set_stopping, NULL, NULL},
    {"_closed", Loop_get_closed, Loop_set_closed, NULL, NULL},
    {"_debug", Loop_get_debug_value, Loop_set_debug_value, NULL, NULL},
    FIELD("_thread_id", thread_ident),
    FIELD("_task_factory", task_factory),
    FIELD("_current_handle", current_handle),
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- life ---- */

static PyObject *
Loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    LoopObj *loop = (LoopObj *)instance_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    timers_init(&loop->timers);
    loop->poll = (poll_state){.fd = -1, .wake_fd = -1};
    loop->task_factory = Py_NewRef(Py_None);
    loop->current_handle = Py_NewRef(Py_None);
    loop->thread_ident = Py_NewRef(Py_None);
    loop->debug_value = Py_NewRef(Py_False);
    PyObject *module = PyType_GetModuleByDef(type, &ctask_module);
    if (module == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    loop->st = PyModule_GetState(module);
    int err = poll_open(&loop->poll, &loop->st->loop.forks);
    if (err < 0) {
        Py_DECREF(loop);
        return poll_raise(err);
    }
    loop->heap_end = sbrk(0);
    loop->is_open = 1;
    loops_enter(loop);
    return (PyObject *)loop;
}

static int
call_traverse(const timer_call *call, visitproc visit, void *arg)
{
    Py_VISIT(call->callback);
    Py_VISIT(call->args);
    Py_VISIT(call->context);
    return 0;
}

static int
Loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    LoopObj *loop = (LoopObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->corked);
    Py_VISIT(loop->current_handle);
    Py_VISIT(loop->thread_ident);
    Py_VISIT(loop->debug_value);
    Py_VISIT(loop->transports);
    for (size_t i = 0; i < ring_length(&loop->ready); i++) {
        ring_entry *entry = ring_at(&loop->ready, i);
        if (ring_kind(entry) == READY_TIMER) {
            int stop = call_traverse(ring_subject(entry), visit, arg);
            if (stop != 0) {
                return stop;
            }
            continue;
        }
        Py_VISIT((PyObject *)ring_subject(entry));
        if (ring_kind(entry) < READY_READ) {
            Py_VISIT((PyObject *)entry->arg);
        }
        Py_VISIT((PyObject *)entry->context);
    }
    int stop = spare_traverse(&loop->spare, visit, arg);
#if THREADSAFE_HANDLES
    if (stop == 0) {
        stop = spare_traverse(&loop->spare_threadsafe, visit, arg);
    }
#endif
    if (stop != 0) {
        return stop;
    }
    timers_cursor cursor = {0};
    const heap_bag *bag;
    while ((bag = timers_next_bag(&loop->timers, &cursor)) != NULL) {
        for (size_t i = 0; i < bag->length; i++) {
            const timer_call *call = timer_call_of(bag->items[i].node);
            if (call == NULL) {
                Py_VISIT((PyObject *)list_entry(bag->items[i].node, TimerObj, node));
            }
            else if ((stop = call_traverse(call, visit, arg)) != 0) {
                return stop;
            }
        }
    }
    return watch_traverse(loop, visit, arg);
}

static int
Loop_clear(PyObject *self)
{
    LoopObj *loop = (LoopObj *)self;
    release(loop);
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->corked);
    Py_CLEAR(loop->current_handle);
    Py_CLEAR(loop->thread_ident);
    Py_CLEAR(loop->debug_value);
    Py_CLEAR(loop->transports);
    return 0;
}

static void
Loop_dealloc(PyObject *self)
{
    LoopObj *loop = (LoopObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)Loop_clear(self);
    poll_close(&loop->poll);
    loop_unmap_read_buffer(loop->read_buffer);
    free(loop->ready.entries);
    free(loop->moments.all);
    watchdog_free(loop->watchdog);
    observer_free(loop->observer);
    timers_free(&loop->timers);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Loop_doc,
"The part of the event loop that is C: running, scheduling, timers, polling, waking.\n\n"
"ctask.EventLoop puts it in front of asyncio.SelectorEventLoop; it is no loop by itself.");

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, (void *)Loop_doc},
    {Py_tp_new, Loop_new},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_traverse, Loop_traverse},
    {Py_tp_clear, Loop_clear},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

static PyType_Spec Loop_spec = {
    .name = "ctask._ctask.Loop",
    .basicsize = sizeof(LoopObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Loop_slots,
};

PART int
loop_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, "Loop", &st->LoopType, &Loop_spec, NULL);
}
