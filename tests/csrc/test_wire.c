/*
 * The wire: the table of operations, cutting payloads, numbers, permission lists as text,
 * names of errors; and the allocator under all of it.
 */
#include <limits.h>
#include <string.h>

#include "check.h"
#include "err.h"
#include "mem.h"
#include "perms.h"
#include "wire.h"

static struct xs_mem mem;

static void test_headers(void)
{
    struct xs_header h = {1, 0x02030405, 0xfffffffe, 4096}, back;
    char raw[XS_HEADER_SIZE + 1];
    uint32_t words[4];

    xs_header_store(raw + 1, &h); /* unaligned */
    xs_header_load(&back, raw + 1);
    CHECK(memcmp(&h, &back, sizeof(h)) == 0);
    memcpy(words, raw + 1, sizeof(words));
    CHECK(words[0] == 1 && words[1] == 0x02030405 && words[2] == 0xfffffffe &&
          words[3] == 4096);
}

static void test_table(void)
{
    for (uint32_t type = 0; type < 40; type++) {
        const struct xs_op_info *op = xs_op_info(type);
        bool known = type <= XS_OP_SET_QUOTA && type != XS_OP_WATCH_EVENT &&
                     type != XS_OP_ERROR && type != 20;

        CHECK_EQ(op != NULL, known);
        if (op == NULL)
            continue;
        CHECK(op->name != NULL && op->strings_min <= op->strings_max);
        CHECK(!(op->flags & XS_OPF_WRITES) || (op->flags & XS_OPF_TREE));
    }
    CHECK(xs_op_info(UINT32_MAX) == NULL);
}

/* Shapes: one string means one NUL, at the end; else NULs are counted, the rest is not. */
static void test_shapes(size_t steps)
{
    char payload[12];
    uint32_t strings;

    for (check_step = 0; check_step < steps; check_step++) {
        const struct xs_op_info *op = xs_op_info(any_below(XS_OP_COUNT));
        size_t n = any_below(sizeof(payload));
        uint32_t nuls = 0;
        bool good;

        if (op == NULL)
            continue;
        for (size_t i = 0; i < n; i++) {
            payload[i] = one_in(3) ? 0 : 'x';
            nuls += payload[i] == 0;
        }
        CHECK_EQ(xs_wire_count_strings(payload, n), nuls);
        if (op->flags & XS_OPF_ONE_STRING)
            good = nuls == 1 && payload[n - 1] == 0;
        else
            good =
                nuls >= op->strings_min && (op->strings_max == 255 || nuls <= op->strings_max);
        CHECK_EQ(xs_wire_check(op, payload, n, &strings), good);
        if (!good)
            continue;
        CHECK(strings <= nuls);

        const char *p = payload, *s;
        for (uint32_t i = 0; i < strings; i++) {
            const char *start = p;
            size_t len = xs_wire_next(&p, &s);
            CHECK(s == start && p == start + len + 1 && p <= payload + n);
        }
    }
}

/* A row that no operation has: its bounds hold all the same. */
static void test_bounds(void)
{
    const struct xs_op_info op = {"X", XS_OPF_KNOWN, 1, 2};
    uint32_t strings;

    CHECK(!xs_wire_check(&op, "abc", 3, &strings));
    CHECK(xs_wire_check(&op, "a\0b", 3, &strings) && strings == 1);
    CHECK(xs_wire_check(&op, "a\0b", 4, &strings) && strings == 2);
    CHECK(!xs_wire_check(&op, "a\0b\0", 5, &strings));
}

static void test_numbers(size_t steps)
{
    static const struct {
        const char *text;
        int64_t value;
    } lenient[] = {
        {"", 0},    {"0", 0},      {"17", 17}, {" \t\n\v\f\r17", 17}, {"+5", 5},   {"-5", -5},
        {"--5", 0}, {"12abc", 12}, {"abc", 0}, {"0x10", 0},           {"010", 10}, {" - 5", 0},
        {"5 6", 5}, {"\x80", 0},
    };
    char text[24];
    uint32_t domid;

    for (size_t i = 0; i < sizeof(lenient) / sizeof(*lenient); i++)
        CHECK_EQ(xs_wire_number(lenient[i].text, strlen(lenient[i].text)), lenient[i].value);
    CHECK(xs_wire_number("99999999999999999999999", 23) > INT64_C(1) << 61);
    CHECK(xs_wire_number("-99999999999999999999999", 24) < -(INT64_C(1) << 61));

    CHECK(xs_wire_domid("", 0, &domid) && domid == 0);
    CHECK(xs_wire_domid("65535", 5, &domid) && domid == 65535);
    CHECK(xs_wire_domid("00007", 5, &domid) && domid == 7);
    CHECK(!xs_wire_domid("65536", 5, &domid));
    CHECK(!xs_wire_domid("4294967296", 10, &domid));
    CHECK(!xs_wire_domid("99999999999999999999", 20, &domid));
    CHECK(!xs_wire_domid("-1", 2, &domid) && !xs_wire_domid(" 1", 2, &domid));
    CHECK(!xs_wire_domid("1 ", 2, &domid) && !xs_wire_domid("0x1", 3, &domid));
    for (unsigned byte = 0; byte < 256; byte++) {
        text[0] = (char)byte;
        CHECK_EQ(xs_wire_domid(text, 1, &domid), byte >= '0' && byte <= '9');
    }

    for (check_step = 0; check_step < steps; check_step++) {
        uint64_t v = any64() >> any_below(64);
        char want[24];
        size_t n = (size_t)sprintf(want, "%llu", (unsigned long long)v);

        CHECK_EQ(xs_wire_put_number(text, v), n + 1);
        CHECK(memcmp(text, want, n + 1) == 0);
        if (v < UINT64_C(1) << 61)
            CHECK_EQ(xs_wire_number(text, n), (int64_t)v);
        CHECK_EQ(xs_wire_domid(text, n, &domid), v <= 65535);
        if (v <= 65535)
            CHECK_EQ(domid, v);
    }
    CHECK_EQ(xs_wire_put_number(text, UINT64_MAX), 21);
    CHECK(strcmp(text, "18446744073709551615") == 0);
}

static void test_errors(void)
{
    for (int i = 0; i < XS_ERROR_COUNT; i++)
        CHECK_EQ(xs_error_from_name(xs_error_name(i), strlen(xs_error_name(i))), i);
    CHECK(strcmp(xs_error_name(-1), "EINVAL") == 0);
    CHECK(strcmp(xs_error_name(XS_ERROR_COUNT), "EINVAL") == 0);
    CHECK(strcmp(xs_error_name(INT_MAX), "EINVAL") == 0);
    CHECK_EQ(xs_error_from_name("EQUOTA", 6), XS_EINVAL);
    CHECK_EQ(xs_error_from_name("ENOEN", 5), XS_EINVAL);
    CHECK_EQ(xs_error_from_name("", 0), XS_EINVAL);
}

/* What a parsed list prints is what it was parsed from. */
static void test_perms_text(size_t steps)
{
    static struct xs_perm entry[XS_PERMS_MAX], back[XS_PERMS_MAX];
    static char text[XS_PERMS_MAX * 8];
    struct xs_permtab table;

    CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    for (check_step = 0; check_step < steps; check_step++) {
        uint32_t count = 1 + any_below(one_in(50) ? XS_PERMS_MAX : 5);
        struct xs_perms *p, *q;

        for (uint32_t i = 0; i < count; i++)
            entry[i] = (struct xs_perm){(uint8_t)any_below(4), 0,
                                        (uint16_t)(any64() >> any_below(16))};
        CHECK_EQ(xs_perms_intern(&table, entry, count, &p), XS_OK);
        CHECK_EQ(xs_perms_intern(&table, entry, count, &q), XS_OK);
        CHECK(p == q && p->refs == 2 && table.count == 1);
        xs_perms_unref(&table, q);

        size_t n = xs_perms_text_len(p);
        xs_perms_text(p, text);
        CHECK_EQ(xs_wire_count_strings(text, n), count);
        CHECK_EQ(xs_perms_parse(text, count, back), XS_OK);
        CHECK(memcmp(entry, back, count * sizeof(*entry)) == 0);
        xs_perms_unref(&table, p);
        CHECK_EQ(table.count, 0);
    }
    CHECK_EQ(xs_perms_parse(text, XS_PERMS_MAX + 1, back), XS_EINVAL);
    xs_permtab_destroy(&table);
    CHECK_EQ(mem.total.blocks, 0);
}

static void test_perms_spelling(void)
{
    static const struct {
        const char *text;
        int domid; /* -1: not legal */
    } rows[] = {
        {"r0", 0},    {"w65535", 65535}, {"b017", 15}, {"n0x1F", 31},        {"r00", 0},
        {"r0Xf", 15}, {"r", -1},         {"", -1},     {"x1", -1},           {"r65536", -1},
        {"r-1", -1},  {"r 1", -1},       {"r08", -1},  {"r0x", -1},          {"r1x", -1},
        {"R1", -1},   {"r0xg", -1},      {"r1 ", -1},  {"r99999999999", -1}, {"r0x10000", -1},
    };
    struct xs_perm entry;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        int rc = xs_perms_parse(rows[i].text, 1, &entry);

        check_step = i;
        CHECK_EQ(rc == XS_OK, rows[i].domid >= 0);
        if (rc == XS_OK)
            CHECK_EQ(entry.domid, rows[i].domid);
    }
    for (unsigned byte = 1; byte < 256; byte++) {
        char text[] = {(char)byte, '1', 0};
        CHECK_EQ(xs_perms_parse(text, 1, &entry) == XS_OK, strchr("nrwb", (int)byte) != NULL);
    }
}

/* Access, by the rules read aloud. */
static void test_perms_access(size_t steps)
{
    struct xs_permtab table;
    struct xs_perm entry[4];

    CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    for (check_step = 0; check_step < steps; check_step++) {
        uint32_t count = 1 + any_below(4), domid = any_below(5);
        uint32_t target = one_in(2) ? XS_DOMID_INVALID : any_below(5);
        struct xs_perms *p;
        unsigned want;

        for (uint32_t i = 0; i < count; i++)
            entry[i] = (struct xs_perm){
                (uint8_t)any_below(4), i > 0 && one_in(5) ? XS_PERM_IGNORED : 0,
                i > 0 && one_in(8) ? XS_DOMID_ANY : (uint16_t)any_below(5)};
        want = entry[0].access;
        for (uint32_t i = count; i-- > 1;)
            if (!entry[i].flags && (entry[i].domid == domid || entry[i].domid == XS_DOMID_ANY ||
                                    entry[i].domid == target))
                want = entry[i].access;
        if (entry[0].domid == domid || entry[0].domid == target)
            want = XS_ACCESS_READ | XS_ACCESS_WRITE | XS_ACCESS_OWNER;
        CHECK_EQ(xs_perms_intern(&table, entry, count, &p), XS_OK);
        CHECK_EQ(xs_perms_access(p, domid, target), want);
        for (uint32_t i = 0; i < count; i++)
            CHECK(p->mentions & xs_perms_mention(entry[i].domid));
        xs_perms_unref(&table, p);
    }
    xs_permtab_destroy(&table);
}

/* Many lists at once, with memory running out now and then. */
static void test_permtab(size_t steps)
{
    enum { LISTS = 600 };
    static struct xs_perms *held[LISTS];
    static uint32_t refs[LISTS];
    struct xs_permtab table;
    size_t different = 0;

    mem.fail_at = mem.calls + 1;
    CHECK_EQ(xs_permtab_init(&table, &mem), XS_ENOMEM);
    mem.fail_at = 0;
    xs_permtab_destroy(&table); /* what never was can be destroyed */
    CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    for (check_step = 0; check_step < steps; check_step++) {
        uint32_t i = any_below(LISTS);
        struct xs_perm entry = {(uint8_t)(i % 4), 0, (uint16_t)i};
        struct xs_perms *p;

        if (refs[i] > 0 && one_in(3)) {
            xs_perms_unref(&table, held[i]);
            different -= --refs[i] == 0;
        } else {
            mem.fail_at = one_in(4) ? mem.calls + 1 + any_below(2) : 0;
            int rc = xs_perms_intern(&table, &entry, 1, &p);
            CHECK(rc == XS_OK || (rc == XS_ENOMEM && mem.fail_at != 0 && refs[i] == 0));
            mem.fail_at = 0;
            if (rc == XS_OK) {
                CHECK(refs[i] == 0 || p == held[i]);
                held[i] = p;
                different += refs[i]++ == 0;
            }
        }
        CHECK_EQ(table.count, different);
    }
    for (size_t i = 0; i < LISTS; i++)
        while (refs[i] > 0) {
            refs[i]--;
            xs_perms_unref(&table, held[i]);
        }
    CHECK_EQ(table.count, 0);
    xs_permtab_destroy(&table);
    CHECK_EQ(mem.total.blocks, 0);
}

/* "No domain" is nobody, also where a list names a domain of that number. */
static void test_no_target(void)
{
    struct xs_permtab table;
    struct xs_perm entry[2] = {{0, 0, XS_DOMID_INVALID}, {XS_ACCESS_READ, 0, XS_DOMID_INVALID}};
    struct xs_perms *owned, *named;

    CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    CHECK_EQ(xs_perms_intern(&table, entry, 1, &owned), XS_OK);
    entry[0].domid = 1;
    CHECK_EQ(xs_perms_intern(&table, entry, 2, &named), XS_OK);
    CHECK_EQ(xs_perms_access(owned, 5, XS_DOMID_INVALID), 0);
    CHECK_EQ(xs_perms_access(named, 5, XS_DOMID_INVALID), 0);
    xs_permtab_destroy(&table); /* with the lists that are still in use */
    CHECK_EQ(mem.total.blocks, 0);
}

/* Lists with the same hash of 32 bits are different lists, whatever their lengths: among so many
 * there are some. */
static void test_perms_collisions(void)
{
    enum { LISTS = 1 << 18 };
    struct xs_perms **held = must_alloc(LISTS * sizeof(struct xs_perms *));
    struct xs_permtab table;
    size_t same = 0, shorter = 0;

    CHECK_EQ(xs_permtab_init(&table, &mem), XS_OK);
    for (uint32_t i = 0; i < LISTS; i++) {
        struct xs_perm entry[2] = {{i & 3, 0, (uint16_t)(i >> 2)},
                                   {1, 0, (uint16_t)(i * 0x85ebca6bu >> 15)}};
        uint32_t count = i % 4 == 0 ? 1 : 2;

        mem.fail_at = i == 256 ? mem.calls + 2 : 0; /* a table that cannot grow works on */
        CHECK_EQ(xs_perms_intern(&table, entry, count, &held[i]), XS_OK);
        CHECK(held[i]->count == count && held[i]->refs == 1);
        CHECK(memcmp(held[i]->entry, entry, held[i]->count * sizeof(*entry)) == 0);
        for (const struct xs_perms *p = held[i]->next; p != NULL; p = p->next)
            if (p->hash == held[i]->hash)
                *(p->count == held[i]->count ? &same : &shorter) += 1;
    }
    CHECK_EQ(table.count, LISTS);
    CHECK(same > 0 && shorter > 0);
    for (uint32_t i = 0; i < LISTS; i++)
        xs_perms_unref(&table, held[i]);
    CHECK_EQ(table.count, 0);
    xs_permtab_destroy(&table);
    free(held);
    CHECK_EQ(mem.total.blocks, 0);
}

static void test_mem(void)
{
    struct xs_account who = {0};
    size_t cap = 0;
    void *array = NULL;
    char *p = xs_mem_zalloc(&mem, &who, 100);

    CHECK(p != NULL && p[0] == 0 && p[99] == 0);
    CHECK_EQ(who.bytes, 100);
    mem.fail_at = mem.calls + 1;
    CHECK(xs_mem_resize(&mem, &who, p, 100, 200) == NULL);
    CHECK_EQ(who.bytes, 100);
    p = xs_mem_resize(&mem, &who, p, 100, 200); /* only the one failed */
    CHECK(p != NULL && p[99] == 0);
    CHECK_EQ(who.bytes, 200);
    CHECK_EQ(who.blocks, 1);
    CHECK_EQ(mem.total.bytes, 200);
    xs_mem_free(&mem, &who, p, 200);
    xs_mem_free(&mem, &who, NULL, 200);

    mem.fail_at = mem.calls + 2;
    mem.fail_sticky = true;
    p = xs_mem_alloc(&mem, NULL, 10);
    CHECK(p != NULL);
    for (int i = 0; i < 3; i++)
        CHECK(xs_mem_alloc(&mem, NULL, 10) == NULL);
    mem.fail_at = 0;
    mem.fail_sticky = false;
    xs_mem_free(&mem, NULL, p, 10);

    for (size_t need = 1; need < 1000; need++) {
        CHECK_EQ(xs_mem_grow(&mem, &who, &array, &cap, need, 8), XS_OK);
        CHECK(cap >= need);
        CHECK_EQ(who.bytes, cap * 8);
    }
    mem.fail_at = mem.calls + 1;
    CHECK_EQ(xs_mem_grow(&mem, &who, &array, &cap, cap + 1, 8), XS_ENOMEM);
    mem.fail_at = 0;
    CHECK_EQ(who.bytes, cap * 8);
    xs_mem_free(&mem, &who, array, cap * 8);
    CHECK_EQ(who.bytes, 0);
    CHECK_EQ(who.blocks, 0);
    CHECK_EQ(mem.total.blocks, 0);
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    test_mem();
    test_headers();
    test_table();
    test_shapes(steps);
    test_bounds();
    test_numbers(steps);
    test_errors();
    test_perms_text(steps);
    test_perms_spelling();
    test_perms_access(steps);
    test_permtab(steps);
    test_no_target();
    test_perms_collisions();
    return 0;
}
