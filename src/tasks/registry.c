/* Which tasks exist, and which one runs: the truth that asyncio.all_tasks() and current_task() read.

   Both are shared with `_asyncio`, because anybody may have imported its functions by name long before
   ctask.  From 3.14 on the truth is in the thread state and the list is `_asyncio`'s.  Before, the current
   task is in the dictionary `_asyncio._current_tasks`, and pending tasks are in a list of our own, which
   asyncio's all_tasks() sees through ctask/_registry.py; a WeakSet entry for each task would cost more
   than the task. */

#include "handles/work.h"
#include "tasks/registry.h"

/* A task has entered the list of those that are not done. */
static inline void
number_task(ctask_state *st, TaskObj *task)
{
    if (LIKELY(task->serial == 0)) {
        task->serial = ++st->tasks.serials;
    }
}

/* It has entered the list (1), or left it (-1). */
static inline void
count_task(TaskObj *task, int change)
{
    LoopObj *loop = UNLIKELY(task->loop == NULL) ? NULL : loop_cast(task->loop);
    if (LIKELY(loop != NULL)) {
        loop->counters.tasks += change > 0;
        loop->counters.tasks_pending += change;
        if (change > 0 && UNLIKELY(loop->observer != NULL)) {
            loop->st->tasks.observe_task(loop, task);
        }
    }
}

#if TASKS_IN_THREAD_STATE

static inline _PyThreadStateImpl *
thread_state(void)
{
    return (_PyThreadStateImpl *)PyThreadState_Get();
}
#endif

/* The task that is current as far as we know, owned; NULL if none is. */
static PyObject *
hold_current(ctask_state *st, PyObject *loop)
{
#if TASKS_IN_THREAD_STATE
    (void)loop;
    return st->tasks.thread_state_checked ? Py_XNewRef(thread_state()->asyncio_running_task) : NULL;
#else
    PyObject *current = Py_XNewRef(PyDict_GetItemWithError(st->current_tasks, loop));
    PyErr_Clear();
    return current;
#endif
}

/* _asyncio's function.  It shows the current task in what it raises, and does not hold it meanwhile. */
static int
call_stock(ctask_state *st, PyObject *function, PyObject *loop, PyObject *task)
{
    PyObject *stack[] = {loop, task}, *current = hold_current(st, loop);
    PyObject *res = PyObject_Vectorcall(function, stack, 2, NULL);
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(current);
    PyErr_SetRaisedException(raised);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

#if TASKS_IN_THREAD_STATE

PART int
registry_add(ctask_state *st, TaskObj *task)
{
    if (list_is_linked(&task->node)) {
        return 0;
    }
    if (LIKELY(st->tasks.thread_state_checked)) {
        list_append((struct list_node *)&thread_state()->asyncio_tasks_head, &task->node);
        number_task(st, task);
        count_task(task, 1);
        return 0;
    }
    PyObject *res = PyObject_CallOneArg(st->stock_register_task, (PyObject *)task);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    number_task(st, task);
    count_task(task, 1);
    return 0;
}

PART int
current_enter(ctask_state *st, PyThreadState *thread, PyObject *loop, TaskObj *task)
{
    if (LIKELY(st->tasks.thread_state_checked)) {
        _PyThreadStateImpl *ts = (_PyThreadStateImpl *)thread;
        if (LIKELY(ts->asyncio_running_loop == loop && ts->asyncio_running_task == NULL)) {
            ts->asyncio_running_task = Py_NewRef(task);
            return 0;
        }
    }
    return call_stock(st, st->stock_enter_task, loop, (PyObject *)task);
}

PART int
current_leave(ctask_state *st, PyThreadState *thread, PyObject *loop, TaskObj *task)
{
    if (LIKELY(st->tasks.thread_state_checked)) {
        _PyThreadStateImpl *ts = (_PyThreadStateImpl *)thread;
        if (LIKELY(ts->asyncio_running_loop == loop && ts->asyncio_running_task == (PyObject *)task)) {
            Py_CLEAR(ts->asyncio_running_task);
            return 0;
        }
    }
    return call_stock(st, st->stock_leave_task, loop, (PyObject *)task);
}

PART int
current_leave_later(LoopObj *loop, PyThreadState *ts, TaskObj *task)
{
    return current_leave(loop->st, ts, (PyObject *)loop, task);
}

PART int
current_flush(LoopObj *Py_UNUSED(loop))
{
    return 0;
}

/* Does the thread state look as the header we were compiled with says?  Ask `_asyncio` to change each
   field and see whether it changes where we would look. */
static int
check_thread_state(ctask_state *st)
{
    _PyThreadStateImpl *ts = thread_state();
    PyObject *set_loop = NULL, *probe = NULL, *res = NULL;
    PyObject *asyncio = PyImport_ImportModule("_asyncio");
    PyObject *before = asyncio == NULL ? NULL : PyObject_CallMethod(asyncio, "_get_running_loop", NULL);
    int result = -1;
    if (before == NULL) {
        goto finally;
    }
    if (before != Py_None) {
        /* Imported inside a running loop: nothing may be touched, but then the field must hold it. */
        st->tasks.thread_state_checked = ts->asyncio_running_loop == before;
        result = 0;
        goto finally;
    }
    /* From here on nothing asks for memory, so that all is put back. */
    set_loop = PyObject_GetAttrString(asyncio, "_set_running_loop");
    probe = PyList_New(0);
    if (set_loop == NULL || probe == NULL || (res = PyObject_CallOneArg(set_loop, probe)) == NULL) {
        goto finally;
    }
    Py_DECREF(res);
    int found = ts->asyncio_running_loop == probe;
    result = call_stock(st, st->stock_enter_task, probe, st->empty_tuple);
    if (result == 0) {
        found = found && ts->asyncio_running_task == st->empty_tuple;
        result = call_stock(st, st->stock_leave_task, probe, st->empty_tuple);
        struct list_node *head = (struct list_node *)&ts->asyncio_tasks_head;
        st->tasks.thread_state_checked = found && head->next != NULL && head->next->prev == head &&
                                         head->prev->next == head;
    }
    PyObject *raised = PyErr_GetRaisedException();
    res = PyObject_CallOneArg(set_loop, Py_None);
    if (res == NULL) {
        result = -1;
        Py_XDECREF(raised);
    }
    else {
        PyErr_SetRaisedException(raised);
    }
finally:
    Py_XDECREF(res);
    Py_XDECREF(probe);
    Py_XDECREF(set_loop);
    Py_XDECREF(before);
    Py_XDECREF(asyncio);
    return result;
}

#else /* the dictionary and our own list */

PART int
registry_add(ctask_state *st, TaskObj *task)
{
    if (!list_is_linked(&task->node)) {
        list_append(&st->tasks.pending, &task->node);
        number_task(st, task);
        count_task(task, 1);
    }
    return 0;
}

/* The loop's entry, if it is where it was found last.  `keys` is compared as an address only: memory that was
   freed and used again does not have this key in this place. */
static inline PyDictKeyEntry *
known_entry(ctask_state *st, LoopObj *loop)
{
    PyDictKeysObject *keys = ((PyDictObject *)st->current_tasks)->ma_keys;
    if (keys != loop->entry_keys || loop->entry_index >= keys->dk_nentries || DK_IS_UNICODE(keys)) {
        return NULL;
    }
    PyDictKeyEntry *entry = &DK_ENTRIES(keys)[loop->entry_index];
    return entry->me_key == (PyObject *)loop && entry->me_value != NULL ? entry : NULL;
}

static void
remember_entry(ctask_state *st, LoopObj *loop)
{
    PyDictObject *dict = (PyDictObject *)st->current_tasks;
    PyDictKeysObject *keys = dict->ma_keys;
    loop->entry_keys = NULL;
    if (dict->ma_values != NULL || DK_IS_UNICODE(keys)) {
        return;
    }
    for (Py_ssize_t i = keys->dk_nentries - 1; i >= 0 && i > keys->dk_nentries - 8; i--) {
        if (DK_ENTRIES(keys)[i].me_key == (PyObject *)loop) {
            loop->entry_keys = keys;
            loop->entry_index = i;
            return;
        }
    }
}

static __attribute__((noinline)) int
enter_unknown_entry(ctask_state *st, PyObject *loop, LoopObj *ours, TaskObj *task)
{
    PyObject *other = PyDict_GetItemWithError(st->current_tasks, loop);
    if (UNLIKELY((other != NULL && other != Py_None) || PyErr_Occurred())) {
        return other == NULL ? -1 : call_stock(st, st->stock_enter_task, loop, (PyObject *)task);
    }
    if (PyDict_SetItem(st->current_tasks, loop, (PyObject *)task) < 0) {
        return -1;
    }
    if (ours != NULL) {
        remember_entry(st, ours);
    }
    return 0;
}

PART int
current_enter(ctask_state *st, PyThreadState *Py_UNUSED(ts), PyObject *loop, TaskObj *task)
{
    LoopObj *ours = loop_cast(loop);
    if (ours != NULL && ours->left_entered) {
        ours->left_entered = 0;
        PyDictKeyEntry *entry = known_entry(st, ours);
        if (LIKELY(entry != NULL && entry->me_value == Py_None)) {
            entry->me_value = Py_NewRef(task);
            CONSTANT_DROP(Py_None);
            return 0;
        }
    }
    return enter_unknown_entry(st, loop, ours, task);
}

PART int
current_leave(ctask_state *st, PyThreadState *Py_UNUSED(ts), PyObject *loop, TaskObj *task)
{
    PyObject *current = PyDict_GetItemWithError(st->current_tasks, loop);
    if (current == (PyObject *)task) {
        return PyDict_DelItem(st->current_tasks, loop);
    }
    return current == NULL && PyErr_Occurred() ? -1
                                               : call_stock(st, st->stock_leave_task, loop, (PyObject *)task);
}

static __attribute__((noinline)) int
leave_unknown_entry(LoopObj *loop, TaskObj *task)
{
    ctask_state *st = loop->st;
    PyObject *current = PyDict_GetItemWithError(st->current_tasks, (PyObject *)loop);
    if (current != (PyObject *)task) {
        return current == NULL && PyErr_Occurred()
                   ? -1
                   : call_stock(st, st->stock_leave_task, (PyObject *)loop, (PyObject *)task);
    }
    if (PyDict_SetItem(st->current_tasks, (PyObject *)loop, Py_None) < 0) {
        return -1;
    }
    remember_entry(st, loop);
    loop->left_entered = 1;
    return 0;
}

/* Between two steps that follow each other in the ring the loop's entry stays, with None for its task, which is what
   who asks for the current task there (a finalizer) is answered either way.  The next step puts its task in its place
   (half the cost of a removal and an insertion); before a callback runs, which may be the step of a task of asyncio's
   own, the entry is removed: current_flush(). */
PART int
current_leave_later(LoopObj *loop, PyThreadState *Py_UNUSED(ts), TaskObj *task)
{
    PyDictKeyEntry *entry = known_entry(loop->st, loop);
    if (UNLIKELY(entry == NULL || entry->me_value != (PyObject *)task)) {
        return leave_unknown_entry(loop, task);
    }
    entry->me_value = CONSTANT_REF(Py_None);
    loop->left_entered = 1;
    Py_DECREF(task);
    return 0;
}

PART int
current_flush(LoopObj *loop)
{
    if (!loop->left_entered) {
        return 0;
    }
    loop->left_entered = 0;
    PyObject *exc = PyErr_GetRaisedException();
    if (PyDict_DelItem(loop->st->current_tasks, (PyObject *)loop) < 0) {
        PyErr_Clear(); /* somebody has left in our place */
    }
    PyErr_SetRaisedException(exc);
    return 0;
}

#endif

PART PyObject *
current_known(ctask_state *st, LoopObj *loop)
{
#if TASKS_IN_THREAD_STATE
    (void)loop;
    return LIKELY(st->tasks.thread_state_checked) ? thread_state()->asyncio_running_task : NULL;
#else
    PyDictKeyEntry *entry = known_entry(st, loop);
    return LIKELY(entry != NULL) ? entry->me_value : NULL;
#endif
}

/* asyncio.get_running_loop(): a new reference, or NULL with RuntimeError. */
PART PyObject *
running_loop(ctask_state *st)
{
#if TASKS_IN_THREAD_STATE
    if (LIKELY(st->tasks.thread_state_checked)) {
        PyObject *loop = thread_state()->asyncio_running_loop;
        if (LIKELY(loop != NULL && loop != Py_None)) {
            return Py_NewRef(loop);
        }
    }
#endif
    return PyObject_CallNoArgs(st->stock_get_running_loop);
}

/* What _LoopBoundMixin._get_loop() does: the first to wait binds the object, `self`, to the running loop.  Its
   `_loop` is *bound, owned.  The loop is a new reference. */
PART PyObject *
bind_loop(ctask_state *st, PyObject *self, PyObject **bound)
{
    PyObject *loop = running_loop(st);
    if (UNLIKELY(loop == NULL)) {
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            return NULL;
        }
        PyErr_Clear();
        loop = Py_NewRef(Py_None); /* which has no create_future(), as asyncio's code finds */
    }
    if (UNLIKELY(*bound == NULL || *bound == Py_None)) {
        Py_XSETREF(*bound, Py_NewRef(loop));
    }
    else if (UNLIKELY(*bound != loop)) {
        Py_DECREF(loop);
        PyErr_Format(PyExc_RuntimeError, "%R is bound to a different event loop", self);
        return NULL;
    }
    return loop;
}

/* asyncio.current_task(loop): a new reference, None if no task of the loop runs, NULL with an exception. */
PART PyObject *
current_task(ctask_state *st, PyObject *loop)
{
#if TASKS_IN_THREAD_STATE
    if (LIKELY(st->tasks.thread_state_checked && thread_state()->asyncio_running_loop == loop)) {
        PyObject *task = thread_state()->asyncio_running_task;
        return Py_NewRef(task == NULL ? Py_None : task);
    }
    return PyObject_CallOneArg(st->stock_current_task, loop);
#else
    PyObject *task = PyDict_GetItemWithError(st->current_tasks, loop);
    if (task == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(task == NULL ? Py_None : task);
#endif
}

/* Is it for this thread to say which is the loop's current task?  Up to 3.13 not of a loop that does not run here: its
   thread may be in the midst of a step.  Later versions refuse to.  -1 with an exception. */
PART int
current_is_ours(ctask_state *st, PyObject *loop)
{
#if TASKS_IN_THREAD_STATE
    (void)st, (void)loop;
    return 1;
#else
    PyObject *running = running_loop(st);
    if (running == NULL && !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return -1;
    }
    PyErr_Clear();
    Py_XDECREF(running);
    return running == loop;
#endif
}

/* Has the loop's current task be `task`, None for none, and returns which it was; NULL with an exception.  (From 3.12
   on.) */
PART PyObject *
current_swap(ctask_state *st, PyObject *loop, PyObject *task)
{
    PyObject *stack[] = {loop, task};
    return PyObject_Vectorcall(st->swap_current_task, stack, 2, NULL);
}

PART void
registry_remove(TaskObj *task)
{
    if (list_is_linked(&task->node)) {
        list_remove(&task->node);
        count_task(task, -1);
    }
}

PyDoc_STRVAR(registered_tasks_doc,
"_registered_tasks($module, /)\n--\n\n"
"A list of ctask's tasks that are not done, of all loops; empty on 3.14 and later, where _asyncio lists them.");

static PyObject *
registered_tasks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = PyModule_GetState(module);
    PyObject *tasks = PyList_New(0);
    if (tasks == NULL) {
        return NULL;
    }
    for (struct list_node *node = st->tasks.pending.next; node != &st->tasks.pending; node = node->next) {
        TaskObj *task = list_entry(node, TaskObj, node);
        /* Appending may start a collection, which may end any task but one that we hold. */
        Py_INCREF(task);
        int result = PyList_Append(tasks, (PyObject *)task);
        Py_DECREF(task);
        if (result < 0) {
            Py_DECREF(tasks);
            return NULL;
        }
    }
    return tasks;
}

PyDoc_STRVAR(task_serial_doc,
"_task_serial($module, task, /)\n--\n\n"
"Return the number of a task, which no other of ctask's tasks in this interpreter has, or None if it is not ctask's.");

static PyObject *
task_serial(PyObject *module, PyObject *obj)
{
    ctask_state *st = PyModule_GetState(module);
    if (!PyObject_TypeCheck(obj, st->TaskType)) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(((TaskObj *)obj)->serial);
}

static PyMethodDef registry_functions[] = {
    {"_task_serial", task_serial, METH_O, task_serial_doc},
    {"_registered_tasks", registered_tasks, METH_NOARGS, registered_tasks_doc},
    {NULL, NULL, 0, NULL},
};

PART int
registry_setup(PyObject *module, ctask_state *st)
{
    list_init(&st->tasks.pending);
#if TASKS_IN_THREAD_STATE
    if (check_thread_state(st) < 0) {
        return -1;
    }
#endif
    return PyModule_AddFunctions(module, registry_functions);
}
