/* The step and the wake-up of a task as Python callables, for a loop that is not ours and for those who look at what a
   future calls or a loop will run.

   They are made without knowing what a step is: task.c makes that known in the module's state. */

#include "tasks/callable.h"
#include "tasks/life.h"

typedef struct {
    PyObject_HEAD
    TaskObj *task; // owned
    PyObject *exc; // owned, or NULL
} TaskStepObj;

static PyObject *
wakeup_callback(PyObject *self, PyObject *fut)
{
    return state_of(self)->tasks.run_as_callback((TaskObj *)self, NULL, fut);
}

static PyMethodDef wakeup_def = {"task_wakeup", wakeup_callback, METH_O, NULL};

/* task_wakeup(future), as asyncio shows it in the repr of a future that a task waits for. */
PART PyObject *
task_wakeup_callback(TaskObj *task)
{
    return PyCFunction_New(&wakeup_def, (PyObject *)task);
}

PART PyObject *
task_wakeup_in_context(TaskObj *task, ctask_state *st, PyObject **context)
{
    *context = Py_XNewRef(task_context(task, st));
    PyObject *wakeup = *context == NULL ? NULL : task_wakeup_callback(task);
    if (wakeup == NULL) {
        Py_CLEAR(*context);
    }
    return wakeup;
}

PART PyObject *
task_step_callback(TaskObj *task, ctask_state *st, PyObject *exc)
{
    TaskStepObj *step = PyObject_GC_New(TaskStepObj, st->TaskStepType);
    if (step == NULL) {
        return NULL;
    }
    step->task = (TaskObj *)Py_NewRef(task);
    step->exc = Py_XNewRef(exc);
    PyObject_GC_Track(step);
    return (PyObject *)step;
}

PART TaskObj *
callable_task(ctask_state *st, PyObject *callable)
{
    if (Py_IS_TYPE(callable, st->TaskStepType)) {
        return ((TaskStepObj *)callable)->task;
    }
    if (PyCFunction_CheckExact(callable) && ((PyCFunctionObject *)callable)->m_ml == &wakeup_def) {
        return (TaskObj *)PyCFunction_GET_SELF(callable);
    }
    return NULL;
}

static PyObject *
TaskStep_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    TaskStepObj *step = (TaskStepObj *)self;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "function takes no keyword arguments");
        return NULL;
    }
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "function takes no positional arguments");
        return NULL;
    }
    if (step->task == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return NULL;
    }
    TaskObj *task = (TaskObj *)Py_NewRef(step->task);
    PyObject *exc = Py_XNewRef(step->exc);
    PyObject *res = state_of(self)->tasks.run_as_callback(task, exc, NULL);
    Py_XDECREF(exc);
    Py_DECREF(task);
    return res;
}

static int
TaskStep_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((TaskStepObj *)self)->task);
    Py_VISIT(((TaskStepObj *)self)->exc);
    return 0;
}

static int
TaskStep_clear(PyObject *self)
{
    Py_CLEAR(((TaskStepObj *)self)->task);
    Py_CLEAR(((TaskStepObj *)self)->exc);
    return 0;
}

static void
TaskStep_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)TaskStep_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
TaskStep_get_self(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *task = (PyObject *)((TaskStepObj *)self)->task;
    return Py_NewRef(task == NULL ? Py_None : task);
}

static PyGetSetDef TaskStep_getset[] = {
    {"__self__", TaskStep_get_self, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot TaskStep_slots[] = {
    {Py_tp_call, TaskStep_call},
    {Py_tp_traverse, TaskStep_traverse},
    {Py_tp_clear, TaskStep_clear},
    {Py_tp_dealloc, TaskStep_dealloc},
    {Py_tp_getset, TaskStep_getset},
    {0, NULL},
};

static PyType_Spec TaskStep_spec = {
    .name = "ctask.TaskStepMethWrapper",
    .basicsize = sizeof(TaskStepObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = TaskStep_slots,
};

PART int
callable_setup(PyObject *module, ctask_state *st)
{
    return add_type(module, NULL, &st->TaskStepType, &TaskStep_spec, NULL);
}
