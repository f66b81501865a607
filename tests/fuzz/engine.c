/*
 * A libFuzzer target around a module in Cython, which is linked in: the interpreter comes from
 * its shared library and is not instrumented, ours is.
 *
 * FUZZ_MODULE names the module that has the target; modules.h, made while building, lists all.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <malloc.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>

#include "spare.h"
#undef calloc
#undef free

#define STRING2(x) #x
#define STRING(x) STRING2(x)

#define MODULE(name, init) PyMODINIT_FUNC init(void);
#include "modules.h"
#undef MODULE

static int (*one)(const uint8_t *data, size_t size);
static void (*between)(int place);

/* Called by the ring code of this build wherever the other side may get a word in. */
void xs_fuzz_between(int place);

void xs_fuzz_between(int place)
{
    if (between != NULL)
        between(place);
}

/* Called by the engine's module of this build; see spare.h. */
enum { SPARE_FROM = 256 * 1024 };

static void *spare;
static size_t spare_size;

void *xs_fuzz_calloc(size_t n, size_t size)
{
    void *p = spare;

    if (p == NULL || n * size != spare_size)
        return calloc(n, size);
    spare = NULL;
    ASAN_UNPOISON_MEMORY_REGION(p, spare_size);
    return memset(p, 0, spare_size);
}

void xs_fuzz_free(void *p)
{
    size_t size = malloc_usable_size(p);

    if (spare != NULL || size < SPARE_FROM) {
        free(p);
        return;
    }
    spare = p;
    spare_size = size;
    ASAN_POISON_MEMORY_REGION(p, size);
}

/* The interpreter keeps much until it ends; and an engine is a megabyte, so that what is kept
 * unused after free must be bounded. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "detect_leaks=0:quarantine_size_mb=24:allocator_may_return_null=1";
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The packages are those of the checkout, and their compiled modules ours. */
static const char bootstrap[] =
    "import sys\n"
    "from importlib.machinery import BuiltinImporter, ModuleSpec\n"
    "class Linked:\n"
    "    def find_spec(name, path=None, target=None):\n"
    "        if name.startswith(('xsd.', 'fuzz_')) and name in sys.builtin_module_names:\n"
    "            return ModuleSpec(name, BuiltinImporter, origin='built-in')\n"
    "sys.meta_path.insert(0, Linked)\n"
    "sys.path.insert(0, '" STRING(FUZZ_ROOT) "')\n";

static void must(int good)
{
    if (good)
        return;
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyConfig config;
    PyObject *module, *number;

    (void)argc;
    (void)argv;
#define MODULE(name, init) must(PyImport_AppendInittab(name, init) == 0);
#include "modules.h"
#undef MODULE
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.site_import = 0;
    (void)PyConfig_SetBytesString(&config, &config.home, STRING(FUZZ_PYTHON));
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    must(PyRun_SimpleString(bootstrap) == 0);
    module = PyImport_ImportModule(STRING(FUZZ_MODULE));
    must(module != NULL);
    number = PyObject_GetAttrString(module, "address");
    must(number != NULL);
    one = (int (*)(const uint8_t *, size_t))PyLong_AsVoidPtr(number);
    if (PyObject_HasAttrString(module, "between")) {
        number = PyObject_GetAttrString(module, "between");
        between = (void (*)(int))PyLong_AsVoidPtr(number);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    must(one(data, size) == 0);
    return 0;
}
