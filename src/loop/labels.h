/* Places, as numbers: where tasks wait, and what is called (labels.c). */

#ifndef CTASK_LABELS_H
#define CTASK_LABELS_H

#include "tasks/tasks.h"

/* What a link is, if it is no place in code. */
enum { LABEL_IS_TYPE = -1, LABEL_IS_AWAITED_TYPE = -2, LABEL_IS_NAME = -3, LABEL_IS_FUNCTION = -4 };

typedef struct {
    PyObject *object; // a code object, a type, a str, or NULL; owned by a label
    const char *name; // NULL; or of a function in C: owned by a label
    int offset; // in the code, in bytes; or what it is instead
} label_link;

typedef struct {
    size_t first; // of its links
    int length;
} label_chain;

typedef struct {
    uint64_t hash; // 0 if it is free
    uint32_t label; // and so is this
} label_slot;

struct labels {
    label_slot *slots; // owned; open addressing, from the upper bits of a hash on
    int shift; // that leaves these bits
    uint32_t n_labels;
    label_chain *chains; // owned; of each label: the first is none, and empty
    label_link *links; // owned
    size_t n_links;
    size_t room_for_links;
};

/* -1 if there is no memory. */
PART int labels_init(struct labels *labels);
/* Gives references back, which may run anything: nobody looks for labels any more. */
PART void labels_free(struct labels *labels);
/* A list: of each label a list of (what it is, name, file, line). */
PART PyObject *labels_show(const struct labels *labels);

/* The label with that hash and one link, which is made if there is none; out of line. */
PART __attribute__((noinline)) uint32_t label_of_new_link(struct labels *labels, uint64_t hash,
                                                          PyObject *object, const char *name, int offset);

/* One address more.  Where it matters what it is the address of, `what` is among them. */
static inline uint64_t
label_mix(uint64_t hash, const void *address)
{
    return (hash + (uintptr_t)address) * UINT64_C(0x9E3779B97F4A7C15);
}

static inline uint64_t
label_mix_kind(int what, const void *address)
{
    return label_mix((uint64_t)-what, address);
}

/* 0 if it is not where it is looked for first, or not there at all. */
static inline uint32_t
label_at_once(const struct labels *labels, uint64_t hash)
{
    const label_slot *slot = &labels->slots[hash >> labels->shift];
    return LIKELY(slot->hash == hash) ? slot->label : 0;
}

/* (The link's fields by themselves: a struct would be put together in memory, to be read by nobody.) */
static inline uint32_t
label_of_link(struct labels *labels, uint64_t hash, PyObject *object, const char *name, int offset)
{
    uint32_t label = label_at_once(labels, hash);
    return LIKELY(label != 0) ? label : label_of_new_link(labels, hash, object, name, offset);
}

/* All of these are 0 if there are too many labels, or no memory; no exception is set. */
/* Where a task waits, and what for. */
PART uint32_t label_of_wait(struct labels *labels, ctask_state *st, TaskObj *task);
/* What a task is, once it is done; its coroutine may be NULL. */
PART uint32_t label_of_coroutine(struct labels *labels, ctask_state *st, PyObject *coro);
/* A function of Python's. */
static inline uint32_t
label_of_code(struct labels *labels, PyObject *code)
{
    return label_of_link(labels, label_mix_kind(0, code), code, NULL, 0);
}

static inline uint32_t
label_of_object(struct labels *labels, PyObject *object, int what)
{
    return label_of_link(labels, label_mix_kind(what, object), object, NULL, what);
}

static inline uint32_t
label_of_type(struct labels *labels, PyTypeObject *type)
{
    return label_of_object(labels, (PyObject *)type, LABEL_IS_TYPE);
}

/* What is called. */
PART uint32_t label_of_callable(struct labels *labels, PyObject *callable);
/* A method in C, of what has that type. */
PART uint32_t label_of_method(struct labels *labels, PyTypeObject *type, const char *name);

/* What bound methods and partials call in the end: owned; NULL, without an exception, if that cannot be seen.  Python
   code may run. */
PART PyObject *label_callable_inside(ctask_state *st, PyObject *callable);

#endif
