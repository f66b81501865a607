/* Payloads: how they are cut, numbers, permission lists. The first byte is an operation, the
 * second a domain, the third its target; the rest is the payload. */
#include "fuzz.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "err.h"
#include "perms.h"
#include "wire.h"

static struct xs_mem mem;

/* Strict decimal, no more than 65535. */
static bool naive_domid(const char *p, size_t n, uint32_t *domid)
{
    uint32_t v = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)p[i]))
            return false;
        v = v > 65535 ? v : v * 10 + (uint32_t)(p[i] - '0');
    }
    *domid = v;
    return v <= 65535;
}

/* A letter and what strtoul reads as a whole, in C's notations, without sign or blanks. */
static bool naive_perm(const char *p, uint32_t *access, uint32_t *domid)
{
    static const char letters[] = "nrwb";
    const char *letter = *p == 0 ? NULL : strchr(letters, *p);
    unsigned long v;
    char *end;

    if (letter == NULL || !isdigit((unsigned char)p[1]))
        return false;
    errno = 0;
    v = strtoul(p + 1, &end, 0);
    if (*end != 0 || errno != 0 || v > 65535)
        return false;
    *access = (uint32_t)(letter - letters);
    *domid = (uint32_t)v;
    return true;
}

static void look_at_numbers(const char *p, size_t n)
{
    uint32_t got = 0, want = 0;
    char text[40];
    int64_t value;
    long long naive;

    CHECK_EQ(xs_wire_domid(p, n, &got), naive_domid(p, n, &want));
    if (naive_domid(p, n, &want))
        CHECK_EQ(got, want);
    value = xs_wire_number(p, n);
    if (n < sizeof(text)) {
        memcpy(text, p, n);
        text[n] = 0;
        errno = 0;
        naive = strtoll(text, NULL, 10);
        if (naive > -(INT64_C(1) << 60) && naive < (INT64_C(1) << 60))
            CHECK_EQ(value, naive);
        else
            CHECK((value < 0) == (naive < 0));
    }
    CHECK_EQ(xs_error_name(xs_error_from_name(p, n)) == NULL, 0);
}

static void look_at_list(struct xs_permtab *table, const char *p, uint32_t strings,
                         uint32_t domid, uint32_t target)
{
    static struct xs_perm entry[XS_PERMS_MAX], back[XS_PERMS_MAX];
    static char text[XS_PERMS_MAX * 8];
    const char *at = p;
    bool legal = strings <= XS_PERMS_MAX;
    struct xs_perms *list, *again;
    uint32_t also;
    unsigned want;
    size_t n;

    memset(entry, 0xff, (legal ? strings : 0) * sizeof(*entry));
    for (uint32_t i = 0; legal && i < strings; i++, at += strlen(at) + 1) {
        uint32_t access, of;

        legal = naive_perm(at, &access, &of);
        if (legal)
            back[i] = (struct xs_perm){(uint8_t)access, 0, (uint16_t)of};
    }
    CHECK_EQ(xs_perms_parse(p, strings, entry), legal ? XS_OK : XS_EINVAL);
    if (!legal || strings == 0)
        return;
    CHECK(memcmp(entry, back, strings * sizeof(*entry)) == 0);

    CHECK_EQ(xs_perms_intern(table, entry, strings, &list), XS_OK);
    CHECK_EQ(xs_perms_intern(table, back, strings, &again), XS_OK);
    CHECK(list == again);
    CHECK_EQ(xs_perms_owner(list), entry[0].domid);
    xs_perms_unref(table, again);
    n = xs_perms_text_len(list);
    CHECK(n < sizeof(text));
    text[n] = 0x55;
    xs_perms_text(list, text);
    CHECK(text[n] == 0x55);
    CHECK_EQ(xs_wire_count_strings(text, n), strings);
    CHECK_EQ(xs_perms_parse(text, strings, entry), XS_OK);
    CHECK(memcmp(entry, back, strings * sizeof(*entry)) == 0);

    /* It has none, even if a list names what stands for that. */
    also = target == XS_DOMID_INVALID ? domid : target;
    want = entry[0].access; /* the first entry that names one gives the right */
    for (uint32_t i = strings; i-- > 1;)
        if (entry[i].domid == domid || entry[i].domid == XS_DOMID_ANY || entry[i].domid == also)
            want = entry[i].access;
    if (entry[0].domid == domid || entry[0].domid == also)
        want = XS_ACCESS_READ | XS_ACCESS_WRITE | XS_ACCESS_OWNER;
    CHECK_EQ(xs_perms_access(list, domid, target), want);
    for (uint32_t i = 0; i < strings; i++)
        CHECK(list->mentions & xs_perms_mention(entry[i].domid));
    xs_perms_unref(table, list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xs_permtab table;
    const struct xs_op_info *op;
    const char *p, *s;
    uint32_t nuls = 0, strings = 0, domid, target;
    size_t n, last = 0;
    bool good;

    if (size < 3) {
        CHECK(xs_op_info(XS_OP_COUNT) == NULL);
        return 0;
    }
    if (table.mem == NULL) {
        xs_mem_init(&mem);
        CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    }
    op = xs_op_info(data[0]);
    domid = data[1];
    target = data[2] == 0xff ? XS_DOMID_INVALID : data[2];
    p = (const char *)data + 3;
    n = size - 3;
    for (size_t i = 0; i < n; i++)
        if (p[i] == 0) {
            nuls++;
            last = i;
        }
    CHECK_EQ(xs_wire_count_strings(p, n), nuls);
    if (op != NULL) {
        if (op->flags & XS_OPF_ONE_STRING)
            good = nuls == 1 && last == n - 1;
        else
            good =
                nuls >= op->strings_min && (op->strings_max == 255 || nuls <= op->strings_max);
        CHECK_EQ(xs_wire_check(op, p, n, &strings), good);
        CHECK(!good || strings <= nuls);
    }
    look_at_numbers(p, n);
    s = p;
    for (uint32_t i = 0; i < nuls; i++) {
        const char *string, *before = s;
        size_t len = xs_wire_next(&s, &string);

        CHECK(string == before && len == strlen(before) && s == before + len + 1);
        look_at_numbers(string, len);
    }
    look_at_list(&table, p, nuls, domid, target);
    CHECK_EQ(table.count, 0);
    return 0;
}
