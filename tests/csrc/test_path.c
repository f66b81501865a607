/*
 * Paths: which bytes are legal, how they are cut, how they are ordered.
 *
 * The order of removals must be a strict weak order, for qsort, and post-order: what lies
 * below a path comes before it, siblings stand in byte order.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "path.h"

enum { SET = 60, TEXT = 64 };

static struct xs_path path;

/* The rules, once more and slowly. */
static bool legal(const char *p, size_t n)
{
    static const char word[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@";

    if (n == 0 || n > XS_PAYLOAD_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == 0 || strchr(word, p[i]) == NULL)
            return false;
        if (i > 0 && p[i] == '/' && p[i - 1] == '/')
            return false;
    }
    return n == 1 || p[n - 1] != '/';
}

static void test_bytes(void)
{
    static const char *const around[] = {"%c", "/%c", "/a%cb", "/a/%c/b", "a%c", "@%c", "%ca"};
    char text[16];

    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t i = 0; i < sizeof(around) / sizeof(*around); i++) {
            size_t n = (size_t)sprintf(text, around[i], (int)byte);

            CHECK_EQ(xs_path_parse(&path, text, n, 0), legal(text, n) ? XS_OK : XS_EINVAL);
        }
}

static size_t random_text(char *out, size_t max)
{
    static const char some[] = "ab/-@09AZ_z/ab/";
    size_t n = 1 + any_below((uint32_t)max);

    for (size_t i = 0; i < n; i++)
        out[i] = one_in(40) ? (char)any64() : some[any_below(sizeof(some) - 1)];
    return n;
}

/* The names of a path are its text cut at the slashes. */
static void check_names(void)
{
    struct xs_name name;
    size_t at = 0;
    bool more = true;

    xs_path_first(&path, &name);
    for (size_t i = 0; i <= path.len; i++) {
        if (i < path.len && path.buf[i] != '/')
            continue;
        if (i == path.len && path.len == 1 && path.buf[0] == '/')
            break; /* the root has one name, which is empty */
        CHECK(more);
        CHECK_EQ(name.len, i - at);
        CHECK_EQ(name.end, i);
        CHECK(memcmp(name.p, path.buf + at, name.len) == 0);

        uint64_t key = 0;
        for (size_t k = 0; k < 8; k++)
            key = key << 8 | (k < name.len ? (uint8_t)name.p[k] : 0);
        CHECK(name.key == key);
        CHECK(xs_name_key(name.p, name.len) == key);
        CHECK_EQ(xs_name_path_len(&name), i == 0 ? 1 : i);
        more = xs_path_next(&path, &name);
        at = i + 1;
    }
    CHECK(!more || path.len == 1);
}

static void test_parse(size_t steps)
{
    static char text[8192];

    for (check_step = 0; check_step < steps; check_step++) {
        size_t n = random_text(text, one_in(50) ? 5000 : 30);
        uint32_t domid = any_below(65536);
        char home[32];
        size_t home_len = (size_t)sprintf(home, "/local/domain/%u/", domid);

        if (one_in(20))
            for (size_t i = 0; i < n; i++)
                text[i] = "a/"[i % 2];
        CHECK_EQ(xs_path_parse(&path, text, n, domid), legal(text, n) ? XS_OK : XS_EINVAL);
        if (!legal(text, n))
            continue;
        if (text[0] == '/' || text[0] == '@') {
            home_len = 0;
        } else {
            CHECK(memcmp(path.buf, home, home_len) == 0);
            CHECK_EQ(xs_path_home(&path), home_len);
        }
        CHECK_EQ(path.base_len, home_len);
        CHECK_EQ(path.len, home_len + n);
        CHECK(memcmp(path.buf + home_len, text, n) == 0);
        check_names();

        size_t up = path.len;
        while (up > 0 && path.buf[up - 1] != '/')
            up--;
        up = up > 1 ? up - 1 : path.len == 1 ? 0 : up;
        CHECK_EQ(xs_path_parent_len(&path), up);
        if (up > 0) {
            CHECK(xs_path_is_below(path.buf, path.len, path.buf, up));
            CHECK(!xs_path_is_below(path.buf, up, path.buf, path.len));
            CHECK_EQ(xs_path_depth_below(&path, up), 1);
        }
        CHECK(!xs_path_is_below(path.buf, path.len, path.buf, path.len));
        CHECK_EQ(xs_path_depth_below(&path, path.len), 0);
    }
}

static void test_home(void)
{
    static const struct {
        const char *text;
        uint32_t home;
    } rows[] = {
        {"/local/domain/0", 0},
        {"/local/domain/0/", 16},
        {"/local/domain/0/a", 16},
        {"/local/domain/65535/a", 20},
        {"/local/domain/123456/a", 0},
        {"/local/domain//a", 0},
        {"/local/domain/1x/a", 0},
        {"/local/domain/", 0},
        {"/local/domains/1/a", 0},
        {"/", 0},
        {"@a/1", 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        xs_path_set(&path, rows[i].text, strlen(rows[i].text));
        CHECK_EQ(xs_path_home(&path), rows[i].home);
    }
}

static void test_depth(void)
{
    static const struct {
        const char *text;
        uint32_t len, depth;
    } rows[] = {
        {"/", 1, 0},    {"/a", 1, 1},       {"/a/b", 1, 2},
        {"/a/b", 2, 1}, {"/a/b/c/d", 4, 2}, {"@releaseDomain/3", 14, 1},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        xs_path_set(&path, rows[i].text, strlen(rows[i].text));
        CHECK_EQ(xs_path_depth_below(&path, rows[i].len), rows[i].depth);
    }
}

/* The order of removals, by names. */
static int naive(const char *a, const char *b)
{
    for (;;) {
        size_t an = strcspn(a, "/"), bn = strcspn(b, "/"), n = an < bn ? an : bn;
        int c = memcmp(a, b, n);

        if (c == 0)
            c = (an > bn) - (an < bn);
        if (c != 0)
            return c < 0 ? -1 : 1;
        if (a[an] == 0 || b[bn] == 0)
        /* whichever goes on is below the other, and comes first */
#ifdef CANARY
            return (a[an] != 0) - (b[bn] != 0);
#else
            return (b[bn] != 0) - (a[an] != 0);
#endif
        a += an + 1;
        b += bn + 1;
    }
}

static void test_order(size_t rounds)
{
    static char set[SET][TEXT];
    static int less[SET][SET];

    for (check_step = 0; check_step < rounds; check_step++) {
        size_t count = 0;

        while (count < SET) {
            size_t n = random_text(set[count], 9);

            set[count][0] = one_in(8) ? '@' : '/';
            set[count][n] = 0;
            if (n > 1 && legal(set[count], n))
                count++;
        }
        for (size_t i = 0; i < SET; i++)
            for (size_t k = 0; k < SET; k++) {
                const char *a = set[i], *b = set[k];

                less[i][k] = xs_path_order_removal(a, strlen(a), b, strlen(b));
                CHECK_EQ(less[i][k], naive(a, b));
                CHECK_EQ(less[i][k] == 0, strcmp(a, b) == 0);
                if (xs_path_is_below(a, strlen(a), b, strlen(b)))
                    CHECK(less[i][k] < 0);
            }
        for (size_t i = 0; i < SET; i++)
            for (size_t k = 0; k < SET; k++) {
                CHECK_EQ(less[i][k], -less[k][i]);
                for (size_t m = 0; m < SET; m++)
                    if (less[i][k] < 0 && less[k][m] < 0)
                        CHECK(less[i][m] < 0);
            }
        /* No name is below a special one that it only begins with. */
        CHECK(xs_path_order_removal("@", 1, "@a", 2) < 0);
        for (size_t i = 0; i < SET; i++) /* everything of the tree comes before its root */
            if (set[i][0] == '/')
                CHECK(xs_path_order_removal(set[i], strlen(set[i]), "/", 1) < 0);
    }
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    test_bytes();
    test_home();
    test_depth();
    test_parse(steps);
    test_order(1 + steps / 200);
    return 0;
}
