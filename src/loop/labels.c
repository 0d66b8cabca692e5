/* A number for each chain of coroutines and instructions that a trace has seen, and for each callable, which are written
   down once.

   They are found by a hash of addresses, and what has one of these addresses is kept by the label: code objects and
   types, no task and no coroutine.  Chains are not compared: that two of a trace have one hash of 64 bits does not
   happen, and would do no harm but a wrong name.  Nothing here runs Python code but label_callable_inside(),
   labels_free() and labels_show(); memory comes from malloc(), so that no collection begins in between. */

#include "loop/labels.h"

#include "base/frames.h"

#define MAX_DEPTH 200 // of a chain of coroutines
#define MAX_LABELS 32768
#define MAX_LINKS (1 << 18) // of all labels
#define MAX_WRAPPERS 8 // around what is called
#define BITS_AT_FIRST 12 // of a hash, which choose its slot: then nearly each is found in it at once

/* ---- the table ---- */

static inline size_t
count_slots(const struct labels *labels)
{
    return (size_t)1 << (64 - labels->shift);
}

/* The slot of a hash, or where it belongs. */
static label_slot *
find_slot(label_slot *slots, int shift, uint64_t hash)
{
    size_t i = hash >> shift, mask = ((size_t)1 << (64 - shift)) - 1;
    while (slots[i].label != 0 && slots[i].hash != hash) {
        i = (i + 1) & mask;
    }
    return &slots[i];
}

static int
grow_labels(struct labels *labels)
{
    int shift = labels->slots == NULL ? 64 - BITS_AT_FIRST : labels->shift - 1;
    size_t n = (size_t)1 << (64 - shift);
    label_slot *slots = calloc(n, sizeof(label_slot));
    label_chain *chains = slots == NULL ? NULL : realloc(labels->chains, n / 2 * sizeof(label_chain));
    if (chains == NULL) {
        free(slots);
        return -1;
    }
    for (size_t i = 0; labels->slots != NULL && i < count_slots(labels); i++) {
        if (labels->slots[i].label != 0) {
            *find_slot(slots, shift, labels->slots[i].hash) = labels->slots[i];
        }
    }
    free(labels->slots);
    labels->slots = slots;
    labels->shift = shift;
    labels->chains = chains;
    return 0;
}

static int
copy_links(struct labels *labels, const label_link *links, int n)
{
    if (labels->n_links + (size_t)n > labels->room_for_links) {
        size_t room = 2 * labels->room_for_links + MAX_DEPTH;
        label_link *more = realloc(labels->links, room * sizeof(label_link));
        if (more == NULL) {
            return -1;
        }
        labels->links = more;
        labels->room_for_links = room;
    }
    for (int i = 0; i < n; i++) {
        label_link *link = &labels->links[labels->n_links + (size_t)i];
        *link = links[i];
        if (link->name != NULL && (link->name = strdup(link->name)) == NULL) {
            for (int j = 0; j < i; j++) {
                free((char *)labels->links[labels->n_links + (size_t)j].name);
            }
            return -1;
        }
    }
    for (int i = 0; i < n; i++) {
        Py_XINCREF(links[i].object);
    }
    return 0;
}

static uint32_t
new_label(struct labels *labels, uint64_t hash, const label_link *links, int n)
{
    if (hash == 0 || labels->n_labels >= MAX_LABELS || labels->n_links + (size_t)n > MAX_LINKS ||
        (2 * (size_t)(labels->n_labels + 1) > count_slots(labels) && grow_labels(labels) < 0) ||
        copy_links(labels, links, n) < 0) {
        return 0;
    }
    uint32_t label = labels->n_labels++;
    labels->chains[label] = (label_chain){.first = labels->n_links, .length = n};
    labels->n_links += (size_t)n;
    *find_slot(labels->slots, labels->shift, hash) = (label_slot){hash, label};
    return label;
}

static uint32_t
label_of_chain(struct labels *labels, uint64_t hash, const label_link *links, int n)
{
    uint32_t label = find_slot(labels->slots, labels->shift, hash)->label;
    return label != 0 ? label : new_label(labels, hash, links, n);
}

PART uint32_t
label_of_new_link(struct labels *labels, uint64_t hash, PyObject *object, const char *name, int offset)
{
    label_link link = {.object = object, .name = name, .offset = offset};
    return label_of_chain(labels, hash, &link, 1);
}

PART int
labels_init(struct labels *labels)
{
    *labels = (struct labels){.n_labels = 1};
    if (grow_labels(labels) < 0) {
        return -1;
    }
    labels->chains[0] = (label_chain){0};
    return 0;
}

PART void
labels_free(struct labels *labels)
{
    for (size_t i = 0; i < labels->n_links; i++) {
        Py_XDECREF(labels->links[i].object);
        free((char *)labels->links[i].name);
    }
    free(labels->slots);
    free(labels->chains);
    free(labels->links);
}

/* ---- where a task waits ---- */

#define CORO_FIELD(type, object, offset) (*(type *)(void *)((char *)(object) + (offset)))

/* Of a coroutine in C, which the room above knows. */
static inline const char *
name_of_coro(ctask_state *st, PyObject *coro)
{
    return CORO_FIELD(const char *, coro, st->tasks.coro_name);
}

/* How many links there are, and the hash of them; what they are, if `links` is not NULL. */
static inline __attribute__((always_inline)) int
look_at_wait(ctask_state *st, TaskObj *task, uint64_t *hash, label_link *links)
{
    int n = 0;
    uint64_t all = 0;
    PyObject *coro = task->coro, *next;
    while (coro != NULL && n < MAX_DEPTH - 1) {
        PyCodeObject *code;
        const _Py_CODEUNIT *at;
        if (LIKELY(frames_look(coro, &code, &at, &next))) {
            all = label_mix(all, at); // one of this code's, and of no other's
            if (links != NULL) {
                links[n] = (label_link){.object = (PyObject *)code, .offset = frames_offset(code, at)};
            }
        }
        else if (Py_IS_TYPE(coro, st->CoroType)) {
            const char *name = name_of_coro(st, coro);
            next = CORO_FIELD(PyObject *, coro, st->tasks.coro_awaiting);
            all = label_mix(all, name);
            if (links != NULL) {
                links[n] = (label_link){.name = name, .offset = LABEL_IS_FUNCTION};
            }
        }
        else {
            break;
        }
        n++;
        coro = next;
    }
    if (task->fut_waiter != NULL) {
        all = label_mix(all, Py_TYPE(task->fut_waiter));
        if (links != NULL) {
            links[n] = (label_link){.object = (PyObject *)Py_TYPE(task->fut_waiter),
                                    .offset = LABEL_IS_AWAITED_TYPE};
        }
        n++;
    }
    *hash = all;
    return n;
}

static __attribute__((noinline)) uint32_t
label_of_new_wait(struct labels *labels, ctask_state *st, TaskObj *task)
{
    label_link links[MAX_DEPTH];
    uint64_t hash;
    int n = look_at_wait(st, task, &hash, links);
    return n == 0 ? 0 : label_of_chain(labels, hash, links, n);
}

PART uint32_t
label_of_wait(struct labels *labels, ctask_state *st, TaskObj *task)
{
    uint64_t hash;
    (void)look_at_wait(st, task, &hash, NULL);
    uint32_t label = label_at_once(labels, hash);
    return LIKELY(label != 0) ? label : label_of_new_wait(labels, st, task);
}

/* ---- what is called ---- */

PART uint32_t
label_of_method(struct labels *labels, PyTypeObject *type, const char *name)
{
    return label_of_link(labels,
                         label_mix(label_mix_kind(LABEL_IS_FUNCTION, type), name),
                         (PyObject *)type,
                         name,
                         LABEL_IS_FUNCTION);
}

PART uint32_t
label_of_coroutine(struct labels *labels, ctask_state *st, PyObject *coro)
{
    if (coro == NULL) {
        return 0;
    }
    if (PyCoro_CheckExact(coro) || PyGen_CheckExact(coro)) {
        return label_of_object(labels, ((PyGenObject *)coro)->gi_qualname, LABEL_IS_NAME);
    }
    if (Py_IS_TYPE(coro, st->CoroType)) {
        return label_of_method(labels, NULL, name_of_coro(st, coro));
    }
    return label_of_type(labels, Py_TYPE(coro));
}

PART PyObject *
label_callable_inside(ctask_state *st, PyObject *callable)
{
    Py_INCREF(callable);
    for (int depth = 0; depth < MAX_WRAPPERS && callable != NULL; depth++) {
        PyObject *outer = callable;
        if (Py_IS_TYPE(callable, &PyMethod_Type)) {
            callable = Py_NewRef(PyMethod_GET_FUNCTION(callable));
        }
        else if ((PyObject *)Py_TYPE(callable) == st->partial) {
            callable = PyObject_GetAttrString(callable, "func");
        }
        else {
            break;
        }
        Py_DECREF(outer);
    }
    PyErr_Clear();
    return callable;
}

PART uint32_t
label_of_callable(struct labels *labels, PyObject *callable)
{
    if (LIKELY(PyFunction_Check(callable))) {
        return label_of_code(labels, PyFunction_GET_CODE(callable));
    }
    if (PyCFunction_CheckExact(callable) || PyCMethod_CheckExact(callable)) {
        PyObject *self = PyCFunction_GET_SELF(callable);
        return label_of_method(labels,
                               self == NULL || PyModule_Check(self) ? NULL : Py_TYPE(self),
                               ((PyCFunctionObject *)callable)->m_ml->ml_name);
    }
    return label_of_type(labels, Py_TYPE(callable));
}

/* ---- what they say ---- */

static PyObject *
show_link(const label_link *link)
{
    PyObject *object = link->object;
    if (link->offset >= 0) {
        PyCodeObject *code = (PyCodeObject *)object;
        int line = link->offset == 0 ? code->co_firstlineno : PyCode_Addr2Line(code, link->offset);
        return Py_BuildValue("iOOi", 0, code->co_qualname, code->co_filename, line);
    }
    if (link->offset == LABEL_IS_NAME) {
        return Py_BuildValue("iOsi", 1, object, "", 0);
    }
    const char *type = object == NULL ? NULL : ((PyTypeObject *)object)->tp_name;
    const char *dot = type == NULL ? NULL : strrchr(type, '.');
    type = dot == NULL ? type : dot + 1;
    int kind = link->offset == LABEL_IS_AWAITED_TYPE ? 2 : 1;
    PyObject *name = link->name == NULL ? PyUnicode_FromString(type)
                     : type == NULL     ? PyUnicode_FromString(link->name)
                                        : PyUnicode_FromFormat("%s.%s", type, link->name);
    return name == NULL ? NULL : Py_BuildValue("iNsi", kind, name, "", 0);
}

PART PyObject *
labels_show(const struct labels *labels)
{
    PyObject *all = PyList_New(0);
    for (uint32_t i = 0; all != NULL && i < labels->n_labels; i++) {
        const label_chain *chain = &labels->chains[i];
        PyObject *links = PyList_New(0);
        for (int j = 0; links != NULL && j < chain->length; j++) {
            PyObject *link = show_link(&labels->links[chain->first + (size_t)j]);
            if (link == NULL || PyList_Append(links, link) < 0) {
                Py_CLEAR(links);
            }
            Py_XDECREF(link);
        }
        if (links == NULL || PyList_Append(all, links) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(links);
    }
    return all;
}
