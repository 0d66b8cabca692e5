/* Cores: their objects and attributes, and what copy, pickle and vars() see of them.

   An object with a core has asyncio's attributes in fields.  Its __dict__ is filled from them when somebody asks for
   it, and what is written there is taken over before the object is used again: so it can be copied and pickled, also
   from and to asyncio's own objects.  What was not written there is not: the fields may have changed meanwhile. */

#include "coro/core.h"

/* ---- which objects have one ---- */

PART int
core_is_further(PyTypeObject *type, destructor dealloc)
{
    if (!core_fits(type)) {
        return 0;
    }
    for (PyTypeObject *base = type->tp_base; base != NULL; base = base->tp_base) {
        if (base->tp_dealloc == dealloc) {
            return 1;
        }
    }
    return 0;
}

/* Is it one of ours?  Not asked of a class whose own class is a program's: that would be asked for its hash. */
static int
is_core(ctask_state *st, PyObject *type)
{
    return Py_IS_TYPE(type, &PyType_Type) && PySet_Contains(st->core_types, type) > 0;
}

/* The core of the objects of this class, borrowed; NULL without an exception if they have none. */
static PyTypeObject *
core_find(ctask_state *st, PyTypeObject *type)
{
    if (core_fits(type)) {
        for (PyTypeObject *base = type->tp_base; base != NULL; base = base->tp_base) {
            if (is_core(st, (PyObject *)base)) {
                return base;
            }
        }
    }
    return NULL;
}

PART ctask_state *
core_state(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &ctask_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* What comes behind all cores: super(the last one, obj).name */
static PyObject *
core_super(ctask_state *st, PyTypeObject *type, PyObject *obj, const char *name)
{
    PyObject *mro = Py_NewRef(type->tp_mro), *last = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        if (is_core(st, PyTuple_GET_ITEM(mro, i))) {
            last = PyTuple_GET_ITEM(mro, i);
        }
    }
    PyObject *super = last == NULL ? NULL
                                   : PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, last, obj, NULL);
    PyObject *found = super == NULL ? NULL : PyObject_GetAttrString(super, name);
    if (last == NULL) {
        PyErr_Format(PyExc_TypeError, "%.100s has no core", type->tp_name);
    }
    Py_XDECREF(super);
    Py_DECREF(mro);
    return found;
}

/* ---- attributes ---- */

/* An attribute of a core: of an object that has it the field, of all others what is in the dictionary. */
typedef struct {
    PyObject_HEAD
    destructor dealloc; // the core's
    PyObject *name;     // owned
    PyObject *field;    // owned; the core's descriptor
    PyObject *stock;    // owned; asyncio's class
} CoreAttrObj;

static PyObject *
core_no_attribute(PyObject *obj, PyObject *name)
{
    return PyErr_Format(
        PyExc_AttributeError, "'%.100s' object has no attribute '%U'", Py_TYPE(obj)->tp_name, name);
}

/* The field's value; NULL without an exception if it has none. */
static PyObject *
core_field(CoreAttrObj *attr, PyObject *obj)
{
    PyObject *value = Py_TYPE(attr->field)->tp_descr_get(attr->field, obj, (PyObject *)Py_TYPE(obj));
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
    }
    return value;
}

static PyObject *
CoreAttr_get(PyObject *self, PyObject *obj, PyObject *Py_UNUSED(type))
{
    CoreAttrObj *attr = (CoreAttrObj *)self;
    PyObject *value;
    if (obj == NULL) {
        return PyObject_GetAttr(attr->stock, attr->name);
    }
    if (LIKELY(core_is(obj, attr->dealloc))) {
        if (core_check(obj) < 0) {
            return NULL;
        }
        value = core_field(attr, obj);
        return value != NULL || PyErr_Occurred() ? value : core_no_attribute(obj, attr->name);
    }
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
    if (dict == NULL) {
        return NULL;
    }
    value = Py_XNewRef(PyDict_GetItemWithError(dict, attr->name));
    Py_DECREF(dict);
    if (value != NULL || PyErr_Occurred() || PyObject_GetOptionalAttr(attr->stock, attr->name, &value) != 0) {
        return value;
    }
    return core_no_attribute(obj, attr->name);
}

static int
CoreAttr_set(PyObject *self, PyObject *obj, PyObject *value)
{
    CoreAttrObj *attr = (CoreAttrObj *)self;
    if (LIKELY(core_is(obj, attr->dealloc))) {
        return core_check(obj) < 0 ? -1 : Py_TYPE(attr->field)->tp_descr_set(attr->field, obj, value);
    }
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
    if (dict == NULL) {
        return -1;
    }
    int status = value == NULL ? PyDict_DelItem(dict, attr->name) : PyDict_SetItem(dict, attr->name, value);
    if (status < 0 && value == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        (void)core_no_attribute(obj, attr->name);
    }
    Py_DECREF(dict);
    return status;
}

static int
coreattr_traverse(PyObject *self, visitproc visit, void *arg)
{
    CoreAttrObj *attr = (CoreAttrObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(attr->field);
    Py_VISIT(attr->stock);
    return 0;
}

static void
coreattr_dealloc(PyObject *self)
{
    CoreAttrObj *attr = (CoreAttrObj *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(attr->name);
    Py_XDECREF(attr->field);
    Py_XDECREF(attr->stock);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef CoreAttr_members[] = {
    {"__name__", T_OBJECT, offsetof(CoreAttrObj, name), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot CoreAttr_slots[] = {
    {Py_tp_dealloc, coreattr_dealloc},
    {Py_tp_traverse, coreattr_traverse},
    {Py_tp_descr_get, CoreAttr_get},
    {Py_tp_descr_set, CoreAttr_set},
    {Py_tp_members, CoreAttr_members},
    {0, NULL},
};

/* Without tp_clear: it is a core's, whose own tp_clear lets go of it. */
static PyType_Spec CoreAttr_spec = {
    .name = "ctask._ctask.CoreAttribute",
    .basicsize = sizeof(CoreAttrObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CoreAttr_slots,
};

/* ---- __dict__ ---- */

/* Write the fields of one core to the dictionary. */
static int
core_show_fields(ctask_state *st, PyTypeObject *core, PyObject *obj, PyObject *dict)
{
    PyObject *all = PyDict_Values(core->tp_dict);
    int status = all == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(all); i++) {
        CoreAttrObj *attr = (CoreAttrObj *)PyList_GET_ITEM(all, i);
        if (!Py_IS_TYPE(attr, st->CoreAttrType)) {
            continue;
        }
        PyObject *value = core_field(attr, obj), *usual = NULL;
        if (value == NULL) {
            status = PyErr_Occurred() ? -1 : PyDict_Contains(dict, attr->name);
            status = status > 0 ? PyDict_DelItem(dict, attr->name) : status;
            continue;
        }
        /* What the class says anyhow is in the dictionary only if it was there. */
        status = PyObject_GetOptionalAttr(attr->stock, attr->name, &usual) < 0 ? -1 : 0;
        int known = status == 0 && usual == value ? PyDict_Contains(dict, attr->name) : 1;
        if (status == 0 && known != 0) {
            status = known < 0 ? -1 : PyDict_SetItem(dict, attr->name, value);
        }
        Py_XDECREF(usual);
        Py_DECREF(value);
    }
    Py_XDECREF(all);
    return status;
}

/* Its dictionary is given out.  Steals `shown`. */
static int
core_remember(PyObject *self, PyObject *shown)
{
    Py_XSETREF(((CoreObj *)self)->shown, shown);
    return shown == NULL ? -1 : 0;
}

/* The object's dictionary, in which its fields are now. */
static PyObject *
core_show(ctask_state *st, PyObject *self)
{
    PyObject *dict = core_check(self) < 0 ? NULL : PyObject_GenericGetDict(self, NULL);
    for (PyTypeObject *base = Py_TYPE(self)->tp_base; dict != NULL && base != NULL; base = base->tp_base) {
        if (is_core(st, (PyObject *)base) && core_show_fields(st, base, self, dict) < 0) {
            Py_CLEAR(dict);
        }
    }
    if (dict != NULL && core_remember(self, PyDict_Copy(dict)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* One entry of the dictionary: a field, or what takes the place of something that the class has.  It was written already:
   neither a __setattr__() of the program's is called again, nor what a descriptor that hides the entry does. */
static int
core_take_item(ctask_state *st, PyTypeObject *core, PyObject *self, PyObject *name, PyObject *value)
{
    if (!PyUnicode_Check(name)) {
        return 0;
    }
    name = PyUnicode_FromObject(name); /* the lookup wants no subclass's */
    PyObject *found = name == NULL ? NULL : Py_XNewRef(_PyType_Lookup(Py_TYPE(self), name));
    int status = name == NULL ? -1 : 0;
    if (found == NULL) {
        Py_XDECREF(name);
        return status;
    }
    if (Py_IS_TYPE(found, st->CoreAttrType)) {
        CoreAttrObj *attr = (CoreAttrObj *)found;
        int is_field = core_is(self, attr->dealloc); /* or another base's, which stays in the dictionary */
        PyObject *before = is_field ? core_field(attr, self) : NULL;
        if (before == NULL && PyErr_Occurred()) {
            status = -1;
        }
        else if (is_field && before != value) {
            status = Py_TYPE(attr->field)->tp_descr_set(attr->field, self, value);
        }
        Py_XDECREF(before);
    }
    else if (Py_TYPE(found)->tp_descr_set == NULL) {
        status = core->tp_setattro(self, name, value);
    }
    Py_DECREF(found);
    Py_DECREF(name);
    return status;
}

PART int
core_take_back(PyObject *self)
{
    ctask_state *st = ((CoreObj *)self)->st;
    PyTypeObject *core = core_find(st, Py_TYPE(self));
    if (core == NULL) {
        return PyErr_Occurred() ? -1 : 0; // its class has become another's: nothing of it is ours
    }
    PyObject *shown = ((CoreObj *)self)->shown;
    ((CoreObj *)self)->shown = NULL;
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    PyObject *items = dict == NULL ? NULL : PyDict_Items(dict);
    int status = items == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *name = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 0);
        PyObject *value = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 1);
        PyObject *before = PyDict_GetItemWithError(shown, name);
        if (before == NULL && PyErr_Occurred()) {
            status = -1;
        }
        else if (before != value) {
            status = core_take_item(st, core, self, name, value);
        }
    }
    Py_XDECREF(items);
    Py_DECREF(shown);
    Py_XDECREF(dict);
    return status;
}

static PyObject *
Core_get_dict(PyObject *self, void *Py_UNUSED(closure))
{
    ctask_state *st = core_state(Py_TYPE(self));
    if (st == NULL) {
        return NULL;
    }
    return core_find(st, Py_TYPE(self)) == NULL ? PyObject_GenericGetDict(self, NULL) : core_show(st, self);
}

static int
Core_set_dict(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    ctask_state *st = core_state(Py_TYPE(self));
    if (st == NULL || PyObject_GenericSetDict(self, value, NULL) < 0) {
        return -1;
    }
    return core_find(st, Py_TYPE(self)) == NULL ? 0 : core_remember(self, PyDict_New());
}

static PyGetSetDef core_dict_def = {"__dict__", Core_get_dict, Core_set_dict, NULL, NULL};

/* ---- copy and pickle ---- */

static PyObject *
Core_getstate(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = core_state(Py_TYPE(self));
    if (st == NULL) {
        return NULL;
    }
    if (core_find(st, Py_TYPE(self)) == NULL) {
        PyObject *next = core_super(st, Py_TYPE(self), self, "__getstate__");
        PyObject *state = next == NULL ? NULL : PyObject_CallNoArgs(next);
        Py_XDECREF(next);
        return state;
    }
    PyObject *dict = core_show(st, self);
    if (dict != NULL && PyDict_GET_SIZE(dict) == 0) {
        Py_DECREF(dict);
        Py_RETURN_NONE;
    }
    return dict;
}

/* Older protocols than 2 would make the object by object.__new__(). */
static PyObject *
Core_reduce_ex(PyObject *self, PyObject *protocol)
{
    long version = PyLong_AsLong(protocol);
    if (version == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ctask_state *st = core_state(Py_TYPE(self));
    PyObject *next = st == NULL ? NULL : core_super(st, Py_TYPE(self), self, "__reduce_ex__");
    if (next != NULL && version < 2 && core_find(st, Py_TYPE(self)) != NULL) {
        version = 2;
    }
    PyObject *reduced = next == NULL ? NULL : PyObject_CallFunction(next, "l", version);
    Py_XDECREF(next);
    return reduced;
}

static PyMethodDef core_methods[] = {
    {"__getstate__", Core_getstate, METH_NOARGS, NULL},
    {"__reduce_ex__", Core_reduce_ex, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- making and ending ---- */

/* The attributes of an object of this class would lie where our fields do, from 3.13 on.  The class has no objects
   yet but those that got it by assignment to __class__, which have none there (CORE_HEAD). */
static inline void
core_claim(PyTypeObject *type)
{
#ifdef Py_TPFLAGS_INLINE_VALUES
    if (UNLIKELY(type->tp_flags & Py_TPFLAGS_INLINE_VALUES)) {
        type->tp_flags &= ~Py_TPFLAGS_INLINE_VALUES;
        PyType_Modified(type);
    }
#else
    (void)type;
#endif
}

PART PyObject *
core_make(ctask_state *st, PyTypeObject *type, size_t size)
{
    core_claim(type);
    state_keep(st);
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *self = PyUnstable_Object_GC_NewWithExtraData(type, size - (size_t)type->tp_basicsize);
    if (self != NULL) {
        PyObject_GC_Track(self);
    }
#else
    /* A collection could run Python code while the type says what is not so. */
    int collecting = PyGC_Disable();
    type->tp_basicsize = (Py_ssize_t)size;
    PyObject *self = type->tp_alloc(type, 0);
    type->tp_basicsize = CORE_BASICSIZE;
    if (collecting) {
        PyGC_Enable();
    }
#endif
    if (self != NULL) {
        ((CoreObj *)self)->st = st;
    }
    return self;
}

PART PyObject *
core_new(PyTypeObject *type, destructor dealloc, size_t size)
{
    if (UNLIKELY(!core_is_of(type, dealloc))) {
        if (type->tp_dealloc == dealloc) {
            PyErr_Format(
                PyExc_TypeError, "cannot create '%.100s' instances", type->tp_name); /* a core by itself */
            return NULL;
        }
        return type->tp_alloc(type, 0);
    }
    ctask_state *st = core_state(type);
    return st == NULL ? NULL : core_make(st, type, size);
}

PART void
core_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Core.__new__(cls, ...), also for classes whose objects have no core: these are made by who comes next. */
static PyObject *
Core_new(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *core = (PyTypeObject *)self;
    PyObject *cls = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (cls == NULL || !PyType_Check(cls) || !PyType_IsSubtype((PyTypeObject *)cls, core)) {
        PyErr_Format(PyExc_TypeError, "%.100s.__new__(X): X is not a subtype of it", core->tp_name);
        return NULL;
    }
    for (PyTypeObject *base = (PyTypeObject *)cls; base != NULL; base = base->tp_base) {
        if (base == core) {
            return core->tp_new((PyTypeObject *)cls, args, kwargs);
        }
    }
    ctask_state *st = core_state(core);
    PyObject *next = st == NULL ? NULL : core_super(st, (PyTypeObject *)cls, cls, "__new__");
    PyObject *objects = next == NULL ? NULL : PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__new__");
    PyObject *obj = NULL;
    if (objects != NULL && next == objects) {
        obj = PyObject_CallOneArg(next, cls); /* the arguments are for __init__() */
    }
    else if (objects != NULL) {
        obj = PyObject_Call(next, args, kwargs);
    }
    Py_XDECREF(objects);
    Py_XDECREF(next);
    return obj;
}

static PyMethodDef core_new_def = {
    "__new__", (PyCFunction)(void (*)(void))Core_new, METH_VARARGS | METH_KEYWORDS, NULL};

/* A class that derives from a core was made: at once, or __class__ could not be set between two such. */
static PyObject *
Core_init_subclass(PyObject *cls, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *type = (PyTypeObject *)cls;
    ctask_state *st = core_state(type);
    PyObject *next = st == NULL ? NULL : core_super(st, type, cls, "__init_subclass__");
    if (next != NULL && core_find(st, type) != NULL) {
        core_claim(type);
    }
    PyObject *res = next == NULL ? NULL : PyObject_Call(next, args, kwargs);
    Py_XDECREF(next);
    return res;
}

static PyMethodDef core_class_methods[] = {
    {"__init_subclass__", (PyCFunction)(void (*)(void))Core_init_subclass, METH_VARARGS | METH_KEYWORDS, NULL},
};

PART int
core_init_stock(PyObject *self, PyObject *args, PyObject *kwargs, PyObject *stock)
{
    PyObject *init = PyObject_GetAttrString(stock, "__init__");
    PyObject *head = PyTuple_Pack(1, self);
    PyObject *all = head == NULL ? NULL : PySequence_Concat(head, args);
    PyObject *res = init == NULL || all == NULL ? NULL : PyObject_Call(init, all, kwargs);
    Py_XDECREF(init);
    Py_XDECREF(head);
    Py_XDECREF(all);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* __init__() where it is looked up: of classes that derive from ours. */
static PyObject *
Core_init(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
          PyObject *stock)
{
    PyTypeObject *core = core_find(st, Py_TYPE(self));
    PyObject *positional = PyTuple_New(nargs - 1), *named = kwnames == NULL ? NULL : PyDict_New();
    int status = core == NULL || positional == NULL || (kwnames != NULL && named == NULL) ? -1 : 0;
    for (Py_ssize_t i = 1; status == 0 && i < nargs; i++) {
        PyTuple_SET_ITEM(positional, i - 1, Py_NewRef(args[i]));
    }
    for (Py_ssize_t i = 0; status == 0 && named != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        status = PyDict_SetItem(named, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]);
    }
    if (status == 0) {
        status = core->tp_init(self, positional, named);
    }
    (void)stock;
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- methods ---- */

/* standin_vectorcall() for a method of a core: only for objects that have one. */
static PyObject *
core_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    StandinObj *standin = (StandinObj *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (UNLIKELY(nargs < 1 || !core_is(args[0], standin->core))) {
        return PyObject_Vectorcall(standin->stock, args, nargsf, kwnames);
    }
    if (UNLIKELY(core_check(args[0]) < 0)) {
        return NULL;
    }
    return standin_returned(standin,
                            standin->function(standin->st, args[0], args, nargs, kwnames, standin->stock));
}

/* A method of a core, which passes for that of `stock`.  A new reference. */
static PyObject *
core_standin(ctask_state *st, PyTypeObject *core, PyObject *stock, const char *name, standin_call function)
{
    PyObject *method = standin_new(st, core, PyObject_GetAttrString(stock, name), function);
    if (method != NULL) {
        ((StandinObj *)method)->core = core->tp_dealloc;
        ((StandinObj *)method)->vectorcall = core_vectorcall;
    }
    return method;
}

/* ---- types ---- */

/* Put `value` (stolen) into the type as it is: its slots stay C. */
static int
core_put(PyTypeObject *type, const char *name, PyObject *value)
{
    int status = value == NULL ? -1 : PyDict_SetItemString(type->tp_dict, name, value);
    Py_XDECREF(value);
    PyType_Modified(type);
    return status;
}

static int
core_wrap_attribute(ctask_state *st, PyTypeObject *core, PyObject *stock, PyObject *field)
{
    CoreAttrObj *attr = PyObject_GC_New(CoreAttrObj, st->CoreAttrType);
    if (attr == NULL) {
        return -1;
    }
    attr->dealloc = core->tp_dealloc;
    attr->name = Py_NewRef(((PyDescrObject *)field)->d_name);
    attr->field = Py_NewRef(field);
    attr->stock = Py_NewRef(stock);
    PyObject_GC_Track(attr);
    int status = PyDict_SetItem(core->tp_dict, attr->name, (PyObject *)attr);
    Py_DECREF(attr);
    return status;
}

static int
core_wrap_attributes(ctask_state *st, PyTypeObject *core, PyObject *stock)
{
    PyObject *all = PyDict_Values(core->tp_dict);
    int status = all == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(all); i++) {
        PyObject *field = PyList_GET_ITEM(all, i);
        if (Py_IS_TYPE(field, &PyGetSetDescr_Type) || Py_IS_TYPE(field, &PyMemberDescr_Type)) {
            status = core_wrap_attribute(st, core, stock, field);
        }
    }
    Py_XDECREF(all);
    PyType_Modified(core);
    return status;
}

PART int
core_add(PyObject *module, ctask_state *st, const char *name, PyTypeObject **slot, PyType_Spec *spec,
         PyTypeObject *base, PyObject *stock, const core_method *methods, size_t n_methods)
{
    if (add_type(module, name, slot, spec, (PyObject *)base) < 0) {
        return -1;
    }
    PyTypeObject *core = *slot;
    /* Two cores look alike to who compares layouts.  Slots of different names do not: __bases__ cannot be set from
       one to the other, which would have the fields of one read as the other's. */
    ((PyHeapTypeObject *)core)->ht_slots = Py_BuildValue("(s)", name);
    if (((PyHeapTypeObject *)core)->ht_slots == NULL || PySet_Add(st->core_types, (PyObject *)core) < 0 ||
        core_wrap_attributes(st, core, stock) < 0 || add_methods(core, core_methods) < 0 ||
        core_put(core, "__init_subclass__", PyDescr_NewClassMethod(core, core_class_methods)) < 0 ||
        core_put(core, "__new__", PyCFunction_New(&core_new_def, (PyObject *)core)) < 0 ||
        core_put(core, "__init__", core_standin(st, core, stock, "__init__", Core_init)) < 0) {
        return -1;
    }
    for (size_t i = 0; i < n_methods; i++) {
        PyObject *method = core_standin(st, core, stock, methods[i].name, methods[i].function);
        if (core_put(core, methods[i].name, method) < 0) {
            return -1;
        }
    }
    return 0;
}

PART int
core_seal(ctask_state *st)
{
    PyObject *cores = PyObject_GetIter(st->core_types), *core;
    while (cores != NULL && (core = PyIter_Next(cores)) != NULL) {
        ((PyTypeObject *)core)->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
        Py_DECREF(core); // the set has it
    }
    Py_XDECREF(cores);
    return PyErr_Occurred() ? -1 : 0;
}

PART PyTypeObject *
core_class(PyObject **slot, const char *module, const char *name, PyTypeObject *core)
{
    if (LIKELY(*slot != NULL)) {
        return (PyTypeObject *)*slot;
    }
    PyObject *class = standin_python(slot, module, name);
    if (class != NULL && !(PyType_Check(class) && core_is_of((PyTypeObject *)class, core->tp_dealloc))) {
        Py_CLEAR(*slot);
        PyErr_Format(PyExc_TypeError, "%s.%s is another class than ctask's", module, name);
        return NULL;
    }
    return (PyTypeObject *)class;
}

/* _over(cls, stock): `cls`, a class in Python over a core and asyncio's class, is complete. */
static PyObject *
core_over(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyType_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a class and asyncio's are expected");
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)args[0];
    ctask_state *st = core_state(type);
    PyTypeObject *core = st == NULL ? NULL : core_find(st, type);
    PyObject *doc = core == NULL ? NULL : PyObject_GetAttrString(args[1], "__doc__");
    int status = doc == NULL ? -1 : PyObject_SetAttrString(args[0], "__doc__", doc);
    Py_XDECREF(doc);
    int own_dict = status < 0 ? -1 : PyMapping_HasKeyString(type->tp_dict, "__dict__");
    if (own_dict < 0 ||
        (own_dict > 0 && core_put(type, "__dict__", PyDescr_NewGetSet(type, &core_dict_def)) < 0)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "the class has no core");
        }
        return NULL;
    }
    /* What its slots would look up is the core's. */
    type->tp_new = core->tp_new;
    type->tp_init = core->tp_init;
    return Py_NewRef(args[0]);
}

/* _pass_for_asyncio(yes): do functions of ours say that they are asyncio's? */
static PyObject *
core_pass_for_asyncio(PyObject *module, PyObject *yes)
{
    ((ctask_state *)PyModule_GetState(module))->coro.passes_for_asyncio = (char)(yes == Py_True);
    Py_RETURN_NONE;
}

static PyMethodDef core_functions[] = {
    {"_pass_for_asyncio", core_pass_for_asyncio, METH_O, NULL},
    {"_over", (PyCFunction)(void (*)(void))core_over, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PART int
core_setup(PyObject *module, ctask_state *st)
{
    st->core_types = PySet_New(NULL);
    if (st->core_types == NULL || PyModule_AddFunctions(module, core_functions) < 0) {
        return -1;
    }
    return add_type(module, NULL, &st->CoreAttrType, &CoreAttr_spec, NULL);
}
