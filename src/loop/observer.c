/* How long things take and wait: timers, what is ready, callbacks, steps.

   run.c and iterate.c tell of each while a loop has an observer, which it has while somebody measures.  When something
   was pushed is not kept with it: after each callback it is known up to where the ready queue had come then. */

#include "loop/observer.h"

#include <string.h>

#define MARKS_AT_FIRST 64

/* ---- histograms ---- */

static void
histogram_add(histogram *h, int64_t nanoseconds)
{
    uint64_t value = nanoseconds > 0 ? (uint64_t)nanoseconds : 0;
    int bucket = value < 2 ? 0 : 63 - __builtin_clzll(value);
    h->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    h->count++;
    h->sum += (int64_t)value;
    if ((int64_t)value > h->longest) {
        h->longest = (int64_t)value;
    }
}

/* (count, sum, longest, counts of the buckets) */
static PyObject *
histogram_show(const histogram *h)
{
    PyObject *buckets = PyTuple_New(BUCKETS);
    if (buckets == NULL) {
        return NULL;
    }
    for (int i = 0; i < BUCKETS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(h->buckets[i]);
        if (count == NULL) {
            Py_DECREF(buckets);
            return NULL;
        }
        PyTuple_SET_ITEM(buckets, i, count);
    }
    return Py_BuildValue(
        "KLLN", (unsigned long long)h->count, (long long)h->sum, (long long)h->longest, buckets);
}

/* ---- what happens ---- */

PART struct observer *
observer_new(void)
{
    return PyMem_RawCalloc(1, sizeof(struct observer));
}

PART void
observer_free(struct observer *observer)
{
    if (observer != NULL) {
        PyMem_RawFree(observer->marks);
        PyMem_RawFree(observer);
    }
}

PART void
observer_leave(LoopObj *loop)
{
    struct observer *observer = loop->observer;
    if (observer != NULL && !observer->measuring && observer->traced.trace == NULL) {
        loop->observer = NULL;
        observer_free(observer);
    }
}

static int
grow_marks(struct observer *observer)
{
    size_t n = observer->n_marks, bigger = n == 0 ? MARKS_AT_FIRST : 2 * n;
    loop_moment *marks = PyMem_RawMalloc(bigger * sizeof(loop_moment));
    if (marks == NULL) {
        return -1;
    }
    for (size_t i = observer->first; i != observer->last; i++) {
        marks[i & (bigger - 1)] = observer->marks[i & (n - 1)];
    }
    PyMem_RawFree(observer->marks);
    observer->marks = marks;
    observer->n_marks = bigger;
    return 0;
}

PART void
observer_mark_pushed(LoopObj *loop, int64_t now)
{
    struct observer *observer = loop->observer;
    size_t position = loop->ready.tail;
    if (observer->first != observer->last &&
        observer->marks[(observer->last - 1) & (observer->n_marks - 1)].position == position) {
        return; // nothing was
    }
    if (observer->last - observer->first == observer->n_marks && grow_marks(observer) < 0) {
        return; // what was pushed counts as if it were pushed with what comes next
    }
    observer->marks[observer->last++ & (observer->n_marks - 1)] = (loop_moment){position, now};
}

PART void
observer_starts(LoopObj *loop, int64_t now)
{
    struct observer *observer = loop->observer;
    while (observer != NULL && observer->first != observer->last) {
        loop_moment *mark = &observer->marks[observer->first & (observer->n_marks - 1)];
        if (mark->position >= loop->ready.head) {
            histogram_add(&observer->waits, now - mark->clock);
            return;
        }
        observer->first++;
    }
}

PART void
observer_ran(LoopObj *loop, int is_step, int64_t began, int64_t ended)
{
    if (loop->observer != NULL && loop->observer->measuring) { // it may have gone meanwhile
        histogram_add(is_step ? &loop->observer->steps : &loop->observer->callbacks, ended - began);
        observer_mark_pushed(loop, ended);
    }
}

PART void
observer_timer_fires(LoopObj *loop, double late)
{
    if (!loop->observer->measuring) {
        return;
    }
    histogram_add(&loop->observer->timers, late < 1e9 ? (int64_t)(late * 1e9) : INT64_MAX);
}

/* ---- methods of the loop ---- */

PyDoc_STRVAR(observe_doc,
"_observe($self, yes, /)\n--\n\n"
"Begin to measure, from nothing, or stop it and forget what was measured.");

static PyObject *
Loop_observe(PyObject *self, PyObject *yes)
{
    LoopObj *loop = (LoopObj *)self;
    int on = PyObject_IsTrue(yes);
    if (on < 0) {
        return NULL;
    }
    struct observer *observer = loop->observer;
    if (on && observer == NULL && (observer = loop->observer = observer_new()) == NULL) {
        return PyErr_NoMemory();
    }
    if (observer != NULL) {
        PyMem_RawFree(observer->marks);
        *observer = (struct observer){.traced = observer->traced, .measuring = (char)on};
        observer_leave(loop);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(histograms_doc,
"_histograms($self, /)\n--\n\n"
"Return what was measured, of timers, waits, callbacks and steps: each (count, sum, longest, counts by powers of two),\n"
"in nanoseconds; None if nothing is.");

static PyObject *
Loop_histograms(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    if (loop->observer == NULL || !loop->observer->measuring) {
        Py_RETURN_NONE;
    }
    struct observer now = *loop->observer; // making numbers may run anything
    return Py_BuildValue("NNNN",
                         histogram_show(&now.timers),
                         histogram_show(&now.waits),
                         histogram_show(&now.callbacks),
                         histogram_show(&now.steps));
}

static PyMethodDef observer_methods[] = {
    {"_observe", Loop_observe, METH_O, observe_doc},
    {"_histograms", Loop_histograms, METH_NOARGS, histograms_doc},
    {NULL, NULL, 0, NULL},
};

PART int
observer_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, observer_methods);
}
