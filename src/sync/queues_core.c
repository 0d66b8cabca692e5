/* What Queue, PriorityQueue and LifoQueue are: their fields as attributes, what a class overrides, their life.

   A C core over asyncio's own classes (ctask/_queues.py), whose attributes it holds: items and waiters are in the
   deques and lists that Python code sees.  The deques of those who wait, and the event that join() waits for, are
   made when they are first needed.  The methods are in queues.c. */

#include "sync/queues_core.h"
#include "sync/queues_items.h"

#include <math.h>

/* ---- overrides ---- */

/* What asyncio's code calls on the queue itself.  The hooks are looked at apart. */
#define QUEUE_VIRTUAL(X) \
    X(_get_loop)         \
    X(_wakeup_next)      \
    X(empty)             \
    X(full)              \
    X(get_nowait)        \
    X(put_nowait)        \
    X(qsize)

/* The attributes, which a class could define otherwise. */
#if QUEUE_SHUTDOWN
#define QUEUE_SHUTDOWN_ATTRIBUTES(X) X(_is_shutdown)
#else
#define QUEUE_SHUTDOWN_ATTRIBUTES(X)
#endif
#define QUEUE_ATTRIBUTES(X)      \
    QUEUE_SHUTDOWN_ATTRIBUTES(X) \
    X(_finished)                 \
    X(_getters)                  \
    X(_loop)                     \
    X(_maxsize)                  \
    X(_putters)                  \
    X(_queue)                    \
    X(_unfinished_tasks)

/* asyncio's own class of this kind. */
static PyTypeObject *
queues_stock(ctask_state *st, queues_kind kind)
{
    PyObject *const stock[] = {st->stock_Queue, st->stock_LifoQueue, st->stock_PriorityQueue};
    return (PyTypeObject *)stock[kind];
}

/* Whose way are the hooks _put() and _get() of this class? */
static queues_kind
queues_kind_of(ctask_state *st, PyTypeObject *type)
{
    PyObject *const hooks[] = {st->str._put, st->str._get};
    for (queues_kind kind = QUEUE_FIFO; kind < QUEUE_HOOKS; kind++) {
        PyTypeObject *stock = queues_stock(st, kind);
        if (!standin_overrides(type, stock, (PyObject *)stock, hooks, Py_ARRAY_LENGTH(hooks))) {
            return kind;
        }
    }
    return QUEUE_HOOKS;
}

/* The kind of a class that was seen to override nothing, _init() included; else QUEUE_HOOKS. */
static inline queues_kind
queues_kind_known(ctask_state *st, PyTypeObject *type)
{
    queues_kind kind = QUEUE_FIFO;
    while (kind < QUEUE_HOOKS &&
           (type->tp_version_tag == 0 || st->sync.plain_queues[kind] != type->tp_version_tag)) {
        kind++;
    }
    return kind;
}

PART __attribute__((noinline)) int
queues_look(QueueObj *q)
{
    ctask_state *st = q->st;
    PyTypeObject *type = Py_TYPE(q);
    queues_kind kind = queues_kind_known(st, type);
    q->overridden = 0;
    if (kind == QUEUE_HOOKS) {
#define X(name) st->str.name,
        PyObject *names[] = {QUEUE_VIRTUAL(X) QUEUE_ATTRIBUTES(X)};
#undef X
        q->overridden = (char)standin_overrides(
            type, st->QueueType, st->stock_Queue, names, Py_ARRAY_LENGTH(names));
        kind = queues_kind_of(st, type);
        if (!q->overridden && kind != QUEUE_HOOKS &&
            !standin_overrides(type, queues_stock(st, kind), st->stock_Queue, &st->str._init, 1)) {
            st->sync.plain_queues[kind] = type->tp_version_tag;
        }
    }
    /* After the look at the class, which its metaclass might have a say in. */
    if (q->replaced || q->limit < 0 || q->items == NULL || q->maxsize == NULL) {
        return 1;
    }
    int as_expected = kind == QUEUE_FIFO ? Py_IS_TYPE(q->items, (PyTypeObject *)st->deque)
                                         : PyList_CheckExact(q->items);
    q->kind = as_expected ? kind : QUEUE_HOOKS;
    q->type_version = type->tp_version_tag;
    return q->overridden;
}

PART int
queues_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, queues_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    QueueObj *q = (QueueObj *)self;
    ctask_state *st = q->st;
    int status = PyObject_GenericSetAttr(self, name, value);
#define X(virtual) st->str.virtual,
    PyObject *names[] = {QUEUE_VIRTUAL(X) st->str._get, st->str._init, st->str._put};
#undef X
    if (UNLIKELY(standin_is_one_of(name, names, Py_ARRAY_LENGTH(names)))) {
        q->replaced = 1;
        q->type_version = 0;
    }
    return status;
}

/* ---- attributes ---- */

static PyObject *
queues_attribute_error(const char *name)
{
    PyErr_SetString(PyExc_AttributeError, name);
    return NULL;
}

static int
queues_cannot_delete(const char *name)
{
    PyErr_Format(PyExc_AttributeError, "cannot delete %s", name);
    return -1;
}

/* `_getters` and `_putters`: the closure is the field's offset. */

static PyObject *
Queue_get_waiters(PyObject *self, void *offset)
{
    QueueObj *q = (QueueObj *)self;
    PyObject **waiters = (PyObject **)((char *)self + (size_t)offset);
    if (*waiters == NULL && q->maxsize == NULL) {
        return queues_attribute_error(waiters == &q->getters ? "_getters" : "_putters");
    }
    return queues_waiters(q, waiters);
}

static int
Queue_set_waiters(PyObject *self, PyObject *value, void *offset)
{
    PyObject **waiters = (PyObject **)((char *)self + (size_t)offset);
    if (value == NULL) {
        return queues_cannot_delete("waiters");
    }
    Py_XSETREF(*waiters, Py_NewRef(value));
    return 0;
}

static PyObject *
Queue_get_items(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *items = ((QueueObj *)self)->items;
    return items == NULL ? queues_attribute_error("_queue") : Py_NewRef(items);
}

/* Steals `items`.  What is under way may know the queue's kind already: by the hooks any items will do. */
static void
queues_set_items(QueueObj *q, PyObject *items)
{
    q->type_version = 0;
    q->kind = QUEUE_HOOKS;
    Py_XSETREF(q->items, items);
}

static int
Queue_set_items(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    queues_set_items((QueueObj *)self, Py_XNewRef(value));
    return 0;
}

static PyObject *
Queue_get_maxsize(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *maxsize = ((QueueObj *)self)->maxsize;
    return maxsize == NULL ? queues_attribute_error("_maxsize") : Py_NewRef(maxsize);
}

/* Whether a queue of n items is full is whether n >= maxsize, but never if that is 0 or less. */
static Py_ssize_t
queues_limit(PyObject *maxsize)
{
    if (PyFloat_CheckExact(maxsize)) {
        double limit = ceil(PyFloat_AS_DOUBLE(maxsize));
        return limit > 0 && limit < (double)PY_SSIZE_T_MAX ? (Py_ssize_t)limit : 0;
    }
    if (!PyLong_CheckExact(maxsize) && !PyBool_Check(maxsize)) {
        return -1;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(maxsize);
    if (UNLIKELY(limit == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0; /* there are never that many; below zero means none as well */
    }
    return limit > 0 ? limit : 0;
}

static int
Queue_set_maxsize(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (value == NULL) {
        return queues_cannot_delete("_maxsize");
    }
    q->limit = queues_limit(value);
    q->type_version = 0;
    Py_XSETREF(q->maxsize, Py_NewRef(value));
    return 0;
}

static PyObject *
Queue_get_finished(PyObject *self, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (q->finished == NULL && q->maxsize == NULL) {
        return queues_attribute_error("_finished");
    }
    q->finished_shown = 1;
    return q->finished == NULL ? queues_make_finished(q) : Py_NewRef(q->finished);
}

static int
Queue_set_finished(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    QueueObj *q = (QueueObj *)self;
    if (value == NULL) {
        return queues_cannot_delete("_finished");
    }
    q->finished_shown = 1;
    Py_XSETREF(q->finished, Py_NewRef(value));
    return 0;
}

#if QUEUE_SHUTDOWN
static PyObject *
Queue_get_is_shutdown(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((QueueObj *)self)->is_shutdown);
}

static int
Queue_set_is_shutdown(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        return queues_cannot_delete("_is_shutdown");
    }
    int is_true = PyObject_IsTrue(value);
    if (is_true < 0) {
        return -1;
    }
    ((QueueObj *)self)->is_shutdown = (char)is_true;
    return 0;
}
#endif

static PyGetSetDef Queue_getset[] = {
    {"_getters", Queue_get_waiters, Queue_set_waiters, NULL, (void *)offsetof(QueueObj, getters)},
    {"_putters", Queue_get_waiters, Queue_set_waiters, NULL, (void *)offsetof(QueueObj, putters)},
    {"_queue", Queue_get_items, Queue_set_items, NULL, NULL},
    {"_maxsize", Queue_get_maxsize, Queue_set_maxsize, NULL, NULL},
    {"_finished", Queue_get_finished, Queue_set_finished, NULL, NULL},
#if QUEUE_SHUTDOWN
    {"_is_shutdown", Queue_get_is_shutdown, Queue_set_is_shutdown, NULL, NULL},
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Queue_members[] = {
    {"_loop", T_OBJECT, offsetof(QueueObj, loop), 0, NULL},
    {"_unfinished_tasks", T_PYSSIZET, offsetof(QueueObj, unfinished), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

static PyObject *
Queue___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = core_new(type, queues_dealloc, sizeof(QueueObj));
    if (self != NULL && core_is(self, queues_dealloc)) {
        ((QueueObj *)self)->is_finished = 1;
    }
    return self;
}

/* _init(maxsize): what holds the items is made here unless the class has a way of its own. */
static int
queues_make_items(QueueObj *q, PyObject *maxsize)
{
    ctask_state *st = q->st;
    queues_kind kind = queues_kind_known(st, Py_TYPE(q));
    if (kind != QUEUE_HOOKS && !q->replaced && Py_TYPE(q)->tp_setattro == queues_setattro) {
        PyObject *items = kind == QUEUE_FIFO ? queues_new_deque(st) : PyList_New(0);
        if (items == NULL) {
            return -1;
        }
        queues_set_items(q, items);
        return 0;
    }
    PyObject *res = PyObject_CallMethodOneArg((PyObject *)q, st->str._init, maxsize);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
Queue___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"maxsize", NULL};
    QueueObj *q = (QueueObj *)self;
    PyObject *maxsize = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Queue", keywords, &maxsize)) {
        PyErr_Clear();
        return core_init_stock(self, args, kwargs, q->st->stock_Queue);
    }
    maxsize = maxsize == NULL ? PyLong_FromLong(0) : Py_NewRef(maxsize);
    PyObject *before[] = {q->maxsize, q->getters, q->putters, q->finished};
    q->maxsize = Py_NewRef(maxsize);
    q->limit = queues_limit(maxsize);
    q->getters = q->putters = q->finished = NULL;
    q->is_finished = 1;
    q->finished_shown = 0;
    q->unfinished = 0;
    q->is_shutdown = 0;
    q->type_version = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(before); i++) {
        Py_XDECREF(before[i]);
    }
    int status = queues_make_items(q, maxsize);
    Py_DECREF(maxsize);
    return status;
}

static int
queues_visit(PyObject *self, visitproc visit, void *arg)
{
    QueueObj *q = (QueueObj *)self;
    Py_VISIT(q->loop);
    Py_VISIT(q->maxsize);
    Py_VISIT(q->items);
    Py_VISIT(q->getters);
    Py_VISIT(q->putters);
    Py_VISIT(q->finished);
    return 0;
}

static int
queues_drop(PyObject *self)
{
    QueueObj *q = (QueueObj *)self;
    q->type_version = 0; /* look anew: it has no items */
    Py_CLEAR(q->loop);
    Py_CLEAR(q->maxsize);
    Py_CLEAR(q->items);
    Py_CLEAR(q->getters);
    Py_CLEAR(q->putters);
    Py_CLEAR(q->finished);
    return 0;
}

CORE_LIFE(PART, queues)

static PyType_Slot Queue_slots[] = {
    {Py_tp_new, Queue___new__},
    {Py_tp_init, Queue___init__},
    {Py_tp_dealloc, queues_dealloc},
    {Py_tp_traverse, queues_traverse},
    {Py_tp_clear, queues_clear},
    {Py_tp_setattro, queues_setattro},
    {Py_tp_members, Queue_members},
    {Py_tp_getset, Queue_getset},
    {0, NULL},
};

static PyType_Spec Queue_spec = {
    .name = "ctask._ctask.Queue",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Queue_slots,
};

PART int
queues_add_type(PyObject *module, ctask_state *st, const core_method *methods, size_t n_methods)
{
    if (!PyType_Check(st->stock_Queue)) {
        PyErr_SetString(PyExc_TypeError, "asyncio.Queue is no class");
        return -1;
    }
    if (core_add(module, st, "Queue", &st->QueueType, &Queue_spec, NULL, st->stock_Queue, methods, n_methods) <
        0) {
        return -1;
    }
    /* For the class in Python, which is generic, too. */
    PyObject *subscript = PyDict_GetItemString(((PyTypeObject *)st->stock_Queue)->tp_dict, "__class_getitem__");
    return subscript == NULL
               ? 0
               : PyObject_SetAttrString((PyObject *)st->QueueType, "__class_getitem__", subscript);
}
