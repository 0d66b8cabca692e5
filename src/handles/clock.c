/* The clock that a program may have replaced: time.monotonic, as asyncio finds it each time.

   It is looked up where it was found last: the entry in the dictionary of the module `time`.  The table of keys is
   compared as an address only; one that was freed and made again has this function there, or not. */

#include "handles/clock.h"

/* The same as clock_is_real(), by looking it up; 0 also if it cannot be told. */
PART __attribute__((noinline)) int
clock_look(ctask_state *st)
{
    st->handles.clock_keys = NULL;
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *found = PyDict_GetItemWithError(st->time_names, st->str.monotonic);
    PyErr_Clear();
    PyErr_SetRaisedException(raised);
    if (found == NULL || found != st->monotonic || found == Py_None ||
        ((PyCFunctionObject *)found)->m_ml->ml_meth != st->handles.monotonic_method) {
        return 0;
    }
    PyDictObject *dict = (PyDictObject *)st->time_names;
    PyDictKeysObject *keys = dict->ma_keys;
    if (dict->ma_values == NULL && DK_IS_UNICODE(keys)) {
        for (Py_ssize_t i = 0; i < keys->dk_nentries; i++) {
            if (DK_UNICODE_ENTRIES(keys)[i].me_value == found) {
                st->handles.clock_keys = keys;
                st->handles.clock_index = i;
                break;
            }
        }
    }
    return 1;
}

/* Under the name that the module gives it in C, whatever stands there now. */
PART int
clock_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    PyObject *time = PyImport_ImportModule("time");
    if (time == NULL) {
        return -1;
    }
    st->time_names = Py_XNewRef(PyModule_GetDict(time));
    Py_DECREF(time);
    PyObject *found = PyDict_GetItemWithError(st->time_names, st->str.monotonic);
    if (found == NULL || !PyCFunction_CheckExact(found)) { // replaced already: it is asked each time
        st->monotonic = Py_NewRef(Py_None);
        return PyErr_Occurred() ? -1 : 0;
    }
    st->monotonic = Py_NewRef(found);
    st->handles.monotonic_method = ((PyCFunctionObject *)found)->m_ml->ml_meth;
    return 0;
}
