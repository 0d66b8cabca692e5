/* TaskGroup: tasks that end together.

   The C core makes tasks, hears of their ends and waits for the last, while all goes well.  Errors, cancellations
   from outside and wrong use are left to asyncio's own methods, which work on our attributes; so is every group
   whose class or instance overrides what the core skips.  On 3.12 and earlier, where __aexit__() does things in
   another order, all of that is asyncio's.  What its first releases did wrong is made good around them. */

#include "combinators/combinators.h"
#include "coro/core.h"
#include "coro/coro.h"
#include "loop/loop.h"

#define GROUP_EXITS (PY_VERSION_HEX >= 0x030D0000)
#define GROUP_LETS_GO (PY_VERSION_HEX >= 0x030E0000) // of parent and errors, when it exits
#define GROUP_CANCELS (PY_VERSION_HEX >= 0x030F0000) // has cancel(), and suppresses what it did not raise

typedef struct {
    CORE_HEAD
    PyObject *loop; // owned; None until it is entered
    PyObject *parent_task; // owned; None until it is entered
    PyObject *tasks; // owned; set of those that are not done
    PyObject *errors; // owned; list of exceptions
    PyObject *base_error; // owned; SystemExit, KeyboardInterrupt or None
    PyObject *completed; // owned; the future that __aexit__() waits for, or None
    PyObject *task_done; // owned; the tasks' callback, while there are any
    PyObject *context; // owned; what it is called in, as long as there is one
    char entered;
    char exiting;
    char aborting;
    char parent_cancel_requested;
    char cancel_on_enter; // 3.15+
    char overridden; // an attribute of the instance took a method's place
} GroupObj;

static void group_dealloc(PyObject *self);

/* ---- overrides ---- */

static int
group_look(GroupObj *group)
{
    ctask_state *st = group->st;
    PyTypeObject *type = Py_TYPE(group);
    PyObject *names[] = {
        st->str._on_task_done,
#if GROUP_LETS_GO
        st->str._aexit,
#endif
    };
    if (standin_overrides(type, st->TaskGroupType, st->stock_TaskGroup, names, Py_ARRAY_LENGTH(names))) {
        return 0;
    }
    st->combinators.plain_group = type->tp_version_tag;
    return 1;
}

/* May the core act for asyncio's methods? */
static inline int
group_is_plain(GroupObj *group)
{
    if (UNLIKELY(group->overridden || group->tasks == NULL || !PySet_CheckExact(group->tasks))) {
        return 0;
    }
    unsigned int version = Py_TYPE(group)->tp_version_tag;
    return LIKELY(version != 0 && version == group->st->combinators.plain_group) || group_look(group);
}

static int
group_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, group_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    GroupObj *group = (GroupObj *)self;
    PyObject *names[] = {group->st->str._on_task_done, group->st->str._aexit};
    if (standin_is_one_of(name, names, Py_ARRAY_LENGTH(names))) {
        group->overridden = 1;
    }
    return PyObject_GenericSetAttr(self, name, value);
}

/* ---- tasks ---- */

/* Who waits for whom, from 3.14 on: futures.future_add_to_awaited_by(). */
static inline void
awaited_by_parent(GroupObj *group, TaskObj *task)
{
#if FUTURE_CALL_GRAPH
    PyObject *parent = group->parent_task;
    if (LIKELY(task->awaited_by == NULL && parent != NULL &&
               PyObject_TypeCheck(parent, (PyTypeObject *)group->st->stock_Future))) {
        task->awaited_by = Py_NewRef(parent);
    }
#else
    (void)group, (void)task;
#endif
}

/* Is `_tasks` still a set, and empty? */
static inline int
group_has_no_tasks(GroupObj *group)
{
    return group->tasks != NULL && PySet_CheckExact(group->tasks) && PySet_GET_SIZE(group->tasks) == 0;
}

/* _on_task_done(task): what a task's end calls. */
static PyObject *
TaskGroup_on_task_done(PyObject *self, PyObject *task)
{
    if (UNLIKELY(!core_is(self, group_dealloc) || core_check(self) < 0)) {
        ctask_state *state = PyErr_Occurred() ? NULL : core_state(Py_TYPE(self));
        return state == NULL ? NULL : PyObject_CallFunctionObjArgs(state->stock_on_task_done, self, task, NULL);
    }
    GroupObj *group = (GroupObj *)self;
    ctask_state *st = group->st;
    TaskObj *ours = (TaskObj *)task;
    PyObject *completed = group->completed;
    PyObject *parent = group->parent_task, *tasks = group->tasks;
    PyObject *res = NULL;
    if (UNLIKELY(parent == NULL || tasks == NULL || !PySet_CheckExact(tasks))) {
        return PyObject_CallFunctionObjArgs(st->stock_on_task_done, self, task, NULL);
    }
    Py_INCREF(self);
    Py_INCREF(parent);
    Py_INCREF(tasks); /* who is in it may compare as it likes */
    if (LIKELY(
            task_is_exact(task) && completed != NULL && (completed == Py_None || future_is_exact(completed)) &&
            (ours->state == FUTURE_CANCELLED || (ours->state == FUTURE_FINISHED && ours->exception == NULL)))) {
        /* Nothing but the end of a task: no error to remember. */
        if (PySet_Discard(tasks, task) < 0 || awaited_by_discard(st, task, (TaskObj *)parent) < 0) {
            goto finally;
        }
        completed = group->completed;
        int status = 0;
        if (completed != NULL && future_is_exact(completed) && group_has_no_tasks(group) &&
            ((FutureObj *)completed)->state == FUTURE_PENDING) {
            Py_INCREF(completed);
            status = future_set_result((FutureObj *)completed, st, Py_True);
            Py_DECREF(completed);
        }
        res = status < 0 ? NULL : Py_NewRef(Py_None);
    }
    else {
        int known = PySet_Contains(tasks, task);
        if (known > 0) {
            res = PyObject_CallFunctionObjArgs(st->stock_on_task_done, self, task, NULL);
        }
        else if (known == 0 && PySet_Add(tasks, task) == 0) {
            /* It failed in its eager start, and create_task() calls, in early releases.  The parent runs: cancelled
               now, it would be so once more after the group. */
            PyObject *method = PyObject_GetAttr(self, st->str._on_task_done);
            res = method == NULL ? NULL : PyObject_CallMethodOneArg(task, st->str.add_done_callback, method);
            Py_XDECREF(method);
        }
    }
finally:
    if (group_has_no_tasks(group)) {
        PyObject *raised = PyErr_GetRaisedException();
        Py_CLEAR(group->task_done); /* or the two would keep each other alive */
        Py_CLEAR(group->context);
        PyErr_SetRaisedException(raised);
    }
    Py_DECREF(tasks);
    Py_DECREF(parent);
    Py_DECREF(self);
    return res;
}

static PyMethodDef on_task_done_def = {"_on_task_done", TaskGroup_on_task_done, METH_O, NULL};

/* Take the task, which has its callback, among the others.  Those may compare as they like.  A set that cannot grow
   for lack of memory has it nevertheless: then the group waits for its end, which the callback tells. */
static inline int
group_add(GroupObj *group, TaskObj *task)
{
    PyObject *tasks = Py_NewRef(group->tasks);
    int status = PySet_Add(tasks, (PyObject *)task);
    if (UNLIKELY(status < 0)) {
        PyObject *raised = PyErr_GetRaisedException();
        int added = PySet_Contains(tasks, (PyObject *)task);
        if (added <= 0) {
            PyObject *callback = task->callback0, *context = task->context0;
            PyErr_Clear();
            task->callback0 = task->context0 = NULL;
            Py_XDECREF(callback);
            Py_XDECREF(context);
        }
        PyErr_SetRaisedException(raised);
    }
    Py_DECREF(tasks);
    return status;
}

/* create_task() where nobody has a say in it.  NULL without an exception if that is not so. */
static PyObject *
group_create(GroupObj *group, PyObject *coro, PyObject *name, PyObject *context)
{
    ctask_state *st = group->st;
    /* First what may run Python code. */
    if (UNLIKELY(!group_is_plain(group) || group->loop == NULL)) {
        return NULL;
    }
    LoopObj *loop = loop_plain(group->loop);
    if (UNLIKELY(loop == NULL || !schedule_creates_tasks(loop) || !group->entered || group->aborting ||
                 group->loop != (PyObject *)loop || group->parent_task == NULL ||
                 (group->exiting && group_has_no_tasks(group)))) {
        return NULL;
    }
    if (UNLIKELY(group->task_done == NULL || group->context == NULL)) {
        Py_XSETREF(group->context, context_copy(&st->base.contexts));
        if (group->context == NULL) {
            return NULL;
        }
        Py_XSETREF(group->task_done, PyCFunction_New(&on_task_done_def, (PyObject *)group));
        if (group->task_done == NULL) {
            return NULL;
        }
    }
    PyObject *obj = task_create(st, (PyObject *)loop, coro, name, context, 0);
    if (obj == NULL) {
        return NULL;
    }
    TaskObj *task = (TaskObj *)obj;
    if (UNLIKELY(group->task_done == NULL || group->context == NULL || group->tasks == NULL ||
                 !PySet_CheckExact(group->tasks) || task->callback0 != NULL || task->callbacks != NULL)) {
        /* str(name) has done strange things. */
        Py_DECREF(obj);
        PyErr_SetString(PyExc_RuntimeError, "the TaskGroup was changed while it made a task");
        return NULL;
    }
    awaited_by_parent(group, task);
    /* task.add_done_callback(self._on_task_done).  The callback has no use for a context: one does for all. */
    task->callback0 = Py_NewRef(group->task_done);
    task->context0 = Py_NewRef(group->context);
    if (UNLIKELY(group_add(group, task) < 0)) {
        Py_DECREF(obj);
        return NULL;
    }
    return obj;
}

static PyObject *
TaskGroup_create_task(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, PyObject *stock)
{
    PyObject *name = NULL, *context = NULL;
    int known = nargs == 2;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < nkw && known; k++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, k);
        if (PyUnicode_Compare(key, st->str.name) == 0) {
            name = args[nargs + k];
        }
        else if (PyUnicode_Compare(key, st->str.context) == 0) {
            context = args[nargs + k];
        }
        else {
            known = 0;
        }
    }
    if (LIKELY(known)) {
        PyObject *task = group_create((GroupObj *)self, args[1], name, context);
        if (LIKELY(task != NULL) || PyErr_Occurred()) {
            return task;
        }
    }
    return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

/* ---- entering ---- */

static int
group_enter(CoroObj *coro, PyObject **result)
{
    ctask_state *st = coro->st;
    GroupObj *group = (GroupObj *)coro->owner;
    PyObject *loop = NULL, *task = NULL;
    if (LIKELY(!group->entered && !group->cancel_on_enter && group->loop != NULL)) {
        loop = group->loop == Py_None ? running_loop(st) : Py_NewRef(group->loop);
        task = loop == NULL ? NULL : current_task(st, loop);
        if (task == NULL) {
            Py_XDECREF(loop);
            return CORO_ERROR;
        }
    }
    if (UNLIKELY(!is_set(task))) {
        Py_XDECREF(loop);
        Py_XDECREF(task);
        return coro_await(coro, PyObject_CallOneArg(st->stock_group_aenter, coro->owner), NULL);
    }
    Py_XSETREF(group->loop, loop);
    Py_XSETREF(group->parent_task, task);
    group->entered = 1;
    *result = Py_NewRef(group);
    return CORO_RETURN;
}

static PyObject *
TaskGroup_aenter(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, group_enter, "TaskGroup.__aenter__", 0, NULL);
}

/* ---- leaving ---- */

#if PY_VERSION_HEX < 0x030E0000
/* It has raised.  Early releases leave that in a variable of the frame, from where it refers to itself. */
static int
group_leave_failed(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *res = PyObject_CallMethodNoArgs(coro->subject, coro->st->str.clear);
    Py_XDECREF(res);
    PyErr_SetRaisedException(raised); // instead of an error of clear(), which nobody could do anything about
    return CORO_ERROR;
}

static int
group_leave_start(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    PyObject *args = coro->arg;
    coro->arg = NULL;
    PyObject *kind = cancellation_or(coro->st, PyTuple_GET_ITEM(args, 1));
    PyObject *stack[] = {coro->owner, kind, PyTuple_GET_ITEM(args, 2), PyTuple_GET_ITEM(args, 3)};
    PyObject *rest = PyObject_Vectorcall(coro->st->stock_group_aexit, stack, 4, NULL);
    Py_DECREF(args);
    PyObject *frame = rest == NULL ? NULL : PyObject_GetAttrString(rest, "cr_frame");
    if (frame == NULL) {
        Py_XDECREF(rest);
        return CORO_ERROR;
    }
    Py_XSETREF(coro->subject, frame);
    coro->failed = group_leave_failed;
    return coro_await(coro, rest, NULL);
}
#endif

/* asyncio's __aexit__(), or the same without what early releases have wrong there. */
static PyObject *
group_leave(ctask_state *st, PyObject *const *args)
{
#if PY_VERSION_HEX < 0x030E0000
    if (!st->combinators.group_exit_is_mended) {
        PyObject *all = PyTuple_Pack(4, args[0], args[1], args[2], args[3]);
        PyObject *coro = all == NULL ? NULL
                                     : coro_new(st, args[0], group_leave_start, "TaskGroup.__aexit__", 0, all);
        Py_XDECREF(all);
        return coro;
    }
#endif
    return PyObject_Vectorcall(st->stock_group_aexit, args, 4, NULL);
}

#if GROUP_EXITS

static int group_wait(CoroObj *coro, PyObject **result);

static void
group_let_go(GroupObj *group)
{
#if GROUP_LETS_GO
    PyObject *parent = group->parent_task, *errors = group->errors, *base_error = group->base_error;
    group->parent_task = Py_NewRef(Py_None);
    group->errors = Py_NewRef(Py_None);
    group->base_error = Py_NewRef(Py_None);
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(parent);
    Py_XDECREF(errors);
    Py_XDECREF(base_error);
    PyErr_SetRaisedException(raised);
#else
    (void)group;
#endif
}

/* All tasks are done.  coro->arg is the CancelledError that is to go on, coro->waiter the last one; or NULL. */
static int
group_end(CoroObj *coro, PyObject **result)
{
    GroupObj *group = (GroupObj *)coro->owner;
    PyObject *propagated = coro->arg, *last = coro->waiter;
    coro->arg = coro->waiter = NULL;
    if (LIKELY(propagated == NULL && !group->parent_cancel_requested && group->base_error == Py_None &&
               group->errors != NULL && PyList_CheckExact(group->errors) &&
               PyList_GET_SIZE(group->errors) == 0 && group_has_no_tasks(group))) {
        Py_XDECREF(last);
        group_let_go(group);
        *result = Py_NewRef(GROUP_CANCELS ? Py_True : Py_None);
        return CORO_RETURN;
    }
    /* What asyncio's code has in these two variables it would find there if the cancellation had struck before. */
    if (GROUP_CANCELS && propagated == NULL && group->parent_cancel_requested) {
        propagated = Py_XNewRef(last);
    }
    Py_XDECREF(last);
    PyObject *type = propagated == NULL ? Py_None : (PyObject *)Py_TYPE(propagated);
    PyObject *stack[] = {coro->owner, type, propagated == NULL ? Py_None : propagated, Py_None};
    PyObject *rest = group_leave(coro->st, stack);
    Py_XDECREF(propagated);
    return coro_await(coro, rest, NULL);
}

static int
group_woken(CoroObj *coro, PyObject **result)
{
    GroupObj *group = (GroupObj *)coro->owner;
    Py_XSETREF(group->completed, Py_NewRef(Py_None));
    return group_wait(coro, result);
}

static int
group_failed(CoroObj *coro, PyObject **result)
{
    GroupObj *group = (GroupObj *)coro->owner;
    if (UNLIKELY(!PyErr_ExceptionMatches(coro->st->CancelledError))) {
        group_let_go(group);
        return CORO_ERROR;
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_XSETREF(coro->waiter, raised);
    if (!group->aborting) {
        Py_XSETREF(coro->arg, Py_NewRef(raised));
        PyObject *res = PyObject_CallMethodNoArgs(coro->owner, coro->st->str._abort);
        if (res == NULL) {
            raised_while(Py_NewRef(raised));
            group_let_go(group);
            return CORO_ERROR;
        }
        Py_DECREF(res);
    }
    return group_woken(coro, result);
}

static int
group_wait(CoroObj *coro, PyObject **result)
{
    GroupObj *group = (GroupObj *)coro->owner;
    if (group->tasks == NULL || !PySet_CheckExact(group->tasks) || PySet_GET_SIZE(group->tasks) == 0) {
        return group_end(coro, result);
    }
    PyObject *fut = Py_XNewRef(group->completed);
    if (fut == NULL || fut == Py_None) {
        PyObject *loop = PyObject_GetAttr(coro->owner, coro->st->str._loop);
        Py_XSETREF(fut, loop == NULL ? NULL : loop_new_future(coro->st, loop));
        Py_XDECREF(loop);
        if (fut == NULL) {
            group_let_go(group);
            return CORO_ERROR;
        }
        Py_XSETREF(group->completed, Py_NewRef(fut));
    }
    coro->failed = group_failed;
    return coro_await(coro, fut, group_woken);
}

static int
group_exit(CoroObj *coro, PyObject **result)
{
    ((GroupObj *)coro->owner)->exiting = 1;
    return group_wait(coro, result);
}

#endif

static PyObject *
TaskGroup_aexit(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                PyObject *stock)
{
    if (UNLIKELY(nargs != 4 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
#if GROUP_EXITS
    if (LIKELY(args[1] == Py_None && args[2] == Py_None && group_is_plain((GroupObj *)self) &&
               is_set(((GroupObj *)self)->loop))) {
        return coro_new(st, self, group_exit, "TaskGroup.__aexit__", 0, NULL);
    }
#else
    (void)self;
#endif
    return group_leave(st, args);
}

/* ---- attributes ---- */

static PyObject *
group_get_flag(PyObject *self, void *offset)
{
    return PyBool_FromLong(((char *)self)[(size_t)offset]);
}

static int
group_set_flag(PyObject *self, PyObject *value, void *offset)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    int flag = PyObject_IsTrue(value);
    if (flag >= 0) {
        ((char *)self)[(size_t)offset] = (char)flag;
    }
    return flag < 0 ? -1 : 0;
}

#define FLAG(name) {"_" #name, group_get_flag, group_set_flag, NULL, (void *)offsetof(GroupObj, name)}

static PyGetSetDef TaskGroup_getset[] = {
    FLAG(entered),
    FLAG(exiting),
    FLAG(aborting),
    FLAG(parent_cancel_requested),
#if GROUP_CANCELS
    FLAG(cancel_on_enter),
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef TaskGroup_members[] = {
    {"_loop", T_OBJECT_EX, offsetof(GroupObj, loop), 0, NULL},
    {"_parent_task", T_OBJECT_EX, offsetof(GroupObj, parent_task), 0, NULL},
    {"_tasks", T_OBJECT_EX, offsetof(GroupObj, tasks), 0, NULL},
    {"_errors", T_OBJECT_EX, offsetof(GroupObj, errors), 0, NULL},
    {"_base_error", T_OBJECT_EX, offsetof(GroupObj, base_error), 0, NULL},
    {"_on_completed_fut", T_OBJECT_EX, offsetof(GroupObj, completed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* No standin: it has to equal what task_done is. */
static PyMethodDef TaskGroup_methods[] = {
    {"_on_task_done", TaskGroup_on_task_done, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- life ---- */

static PyObject *
TaskGroup___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return core_new(type, group_dealloc, sizeof(GroupObj));
}

static int
group_drop(PyObject *self)
{
    GroupObj *group = (GroupObj *)self;
    Py_CLEAR(group->loop);
    Py_CLEAR(group->parent_task);
    Py_CLEAR(group->tasks);
    Py_CLEAR(group->errors);
    Py_CLEAR(group->base_error);
    Py_CLEAR(group->completed);
    Py_CLEAR(group->task_done);
    Py_CLEAR(group->context);
    return 0;
}

static int
TaskGroup___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    GroupObj *group = (GroupObj *)self;
    if (UNLIKELY(PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0))) {
        return core_init_stock(self, args, kwargs, group->st->stock_TaskGroup);
    }
    PyObject *tasks = PySet_New(NULL), *errors = PyList_New(0);
    if (tasks == NULL || errors == NULL) {
        Py_XDECREF(tasks);
        Py_XDECREF(errors);
        return -1;
    }
    (void)group_drop(self);
    group->entered = group->exiting = group->aborting = 0;
    group->parent_cancel_requested = group->cancel_on_enter = 0;
    Py_XSETREF(group->tasks, tasks);
    Py_XSETREF(group->errors, errors);
    Py_XSETREF(group->loop, Py_NewRef(Py_None));
    Py_XSETREF(group->parent_task, Py_NewRef(Py_None));
    Py_XSETREF(group->base_error, Py_NewRef(Py_None));
    Py_XSETREF(group->completed, Py_NewRef(Py_None));
    return 0;
}

static int
group_visit(PyObject *self, visitproc visit, void *arg)
{
    GroupObj *group = (GroupObj *)self;
    Py_VISIT(group->loop);
    Py_VISIT(group->parent_task);
    Py_VISIT(group->tasks);
    Py_VISIT(group->errors);
    Py_VISIT(group->base_error);
    Py_VISIT(group->completed);
    Py_VISIT(group->task_done);
    Py_VISIT(group->context);
    return 0;
}

CORE_LIFE(static, group)

static PyType_Slot TaskGroup_slots[] = {
    {Py_tp_new, TaskGroup___new__},
    {Py_tp_init, TaskGroup___init__},
    {Py_tp_dealloc, group_dealloc},
    {Py_tp_traverse, group_traverse},
    {Py_tp_clear, group_clear},
    {Py_tp_setattro, group_setattro},
    {Py_tp_methods, TaskGroup_methods},
    {Py_tp_members, TaskGroup_members},
    {Py_tp_getset, TaskGroup_getset},
    {0, NULL},
};

static PyType_Spec TaskGroup_spec = {
    .name = "ctask._ctask.TaskGroup",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = TaskGroup_slots,
};

PART int
taskgroup_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"__aenter__", TaskGroup_aenter},
        {"__aexit__", TaskGroup_aexit},
        {"create_task", TaskGroup_create_task},
    };
    PyObject *stock = st->stock_TaskGroup;
    if ((st->stock_group_aenter = PyObject_GetAttrString(stock, "__aenter__")) == NULL ||
        (st->stock_group_aexit = PyObject_GetAttrString(stock, "__aexit__")) == NULL ||
        (st->stock_on_task_done = PyObject_GetAttr(stock, st->str._on_task_done)) == NULL) {
        return -1;
    }
    st->combinators.group_exit_is_mended = (char)PyObject_HasAttr(st->stock_TaskGroup, st->str._aexit);
    return core_add(module,
                    st,
                    "TaskGroup",
                    &st->TaskGroupType,
                    &TaskGroup_spec,
                    NULL,
                    st->stock_TaskGroup,
                    methods,
                    Py_ARRAY_LENGTH(methods));
}
