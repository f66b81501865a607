#include "wire.h"

#define ONE (XS_OPF_KNOWN | XS_OPF_ONE_STRING)
#define MANY XS_OPF_KNOWN
#define PRIV XS_OPF_PRIVILEGED
#define TREE XS_OPF_TREE
#define EDIT (XS_OPF_TREE | XS_OPF_WRITES)
#define ANY 255 /* no upper bound on strings */

static const struct xs_op_info table[XS_OP_COUNT] = {
    [XS_OP_CONTROL] = {"CONTROL", MANY | PRIV, 1, ANY},
    [XS_OP_DIRECTORY] = {"DIRECTORY", ONE | TREE, 1, 1},
    [XS_OP_READ] = {"READ", ONE | TREE, 1, 1},
    [XS_OP_GET_PERMS] = {"GET_PERMS", ONE | TREE, 1, 1},
    [XS_OP_WATCH] = {"WATCH", MANY | XS_OPF_IGNORES_TX, 2, 3},
    [XS_OP_UNWATCH] = {"UNWATCH", MANY | XS_OPF_IGNORES_TX, 2, 2},
    [XS_OP_TRANSACTION_START] = {"TRANSACTION_START", MANY, 0, ANY},
    [XS_OP_TRANSACTION_END] = {"TRANSACTION_END", ONE, 1, 1},
    [XS_OP_INTRODUCE] = {"INTRODUCE", MANY | PRIV, 3, ANY},
    [XS_OP_RELEASE] = {"RELEASE", ONE | PRIV, 1, 1},
    [XS_OP_GET_DOMAIN_PATH] = {"GET_DOMAIN_PATH", ONE, 1, 1},
    [XS_OP_WRITE] = {"WRITE", MANY | EDIT, 1, ANY},
    [XS_OP_MKDIR] = {"MKDIR", ONE | EDIT, 1, 1},
    [XS_OP_RM] = {"RM", ONE | EDIT, 1, 1},
    [XS_OP_SET_PERMS] = {"SET_PERMS", MANY | EDIT, 2, ANY},
    [XS_OP_WATCH_EVENT] = {"WATCH_EVENT", 0, 0, 0},
    [XS_OP_ERROR] = {"ERROR", 0, 0, 0},
    [XS_OP_IS_DOMAIN_INTRODUCED] = {"IS_DOMAIN_INTRODUCED", ONE | PRIV, 1, 1},
    [XS_OP_RESUME] = {"RESUME", ONE | PRIV, 1, 1},
    [XS_OP_SET_TARGET] = {"SET_TARGET", MANY | PRIV, 2, ANY},
    [XS_OP_RESET_WATCHES] = {"RESET_WATCHES", MANY, 0, ANY},
    [XS_OP_DIRECTORY_PART] = {"DIRECTORY_PART", MANY | TREE, 2, 2},
    [XS_OP_GET_FEATURE] = {"GET_FEATURE", MANY, 0, 1},
    [XS_OP_SET_FEATURE] = {"SET_FEATURE", MANY | PRIV, 2, 2},
    [XS_OP_GET_QUOTA] = {"GET_QUOTA", MANY | PRIV, 0, 2},
    [XS_OP_SET_QUOTA] = {"SET_QUOTA", MANY | PRIV, 2, 3},
};

const struct xs_op_info *xs_op_info(uint32_t type)
{
    if (type >= XS_OP_COUNT || !(table[type].flags & XS_OPF_KNOWN))
        return NULL;
    return &table[type];
}

uint32_t xs_wire_count_strings(const char *p, size_t n)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += p[i] == 0;
    return count;
}

bool xs_wire_check(const struct xs_op_info *op, const char *p, size_t n, uint32_t *strings)
{
    if (op->flags & XS_OPF_ONE_STRING) {
        *strings = 1;
        return n > 0 && memchr(p, 0, n) == p + n - 1;
    }
    if (op->strings_min == 0 && op->strings_max == ANY) {
        *strings = 0;
        return true;
    }
    if (op->strings_min == 1 && op->strings_max == ANY) {
        *strings = 1; /* WRITE, CONTROL: one is enough, and the value is not searched */
        return memchr(p, 0, n) != NULL;
    }
    *strings = xs_wire_count_strings(p, n);
    return *strings >= op->strings_min &&
           (op->strings_max == ANY || *strings <= op->strings_max);
}

size_t xs_wire_next(const char **p, const char **string)
{
    size_t n = strlen(*p);

    *string = *p;
    *p += n + 1;
    return n;
}

bool xs_wire_domid(const char *p, size_t n, uint32_t *domid)
{
    uint32_t v = 0;

    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(p[i] - '0');
        if (v > 65535)
            return false;
    }
    *domid = v;
    return true;
}

int64_t xs_wire_number(const char *p, size_t n)
{
    const int64_t limit = INT64_C(1) << 62;
    bool negative = false;
    int64_t v = 0;
    size_t i = 0;

    while (i < n && (p[i] == ' ' || (p[i] >= '\t' && p[i] <= '\r')))
        i++;
    if (i < n && (p[i] == '-' || p[i] == '+'))
        negative = p[i++] == '-';
    for (; i < n && p[i] >= '0' && p[i] <= '9'; i++)
        v = v >= limit / 10 ? limit : v * 10 + (p[i] - '0');
    return negative ? -v : v;
}

size_t xs_wire_put_number(char *out, uint64_t v)
{
    char digits[20];
    size_t n = 0, len = 0;

    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    while (n != 0)
        out[len++] = digits[--n];
    out[len++] = 0;
    return len;
}
