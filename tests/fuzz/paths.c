/* Paths: any bytes, from any domain, against the rules read aloud. The first two bytes are the
 * domain; what follows is a path, or two, with a NUL between them, whose order is compared. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_path.c"
#undef main

static size_t naive_depth(const char *p, size_t n, size_t above)
{
    size_t depth = 0;

    if (above == 1 && p[0] == '/')
        return n == 1 ? 0 : 1 + naive_depth(p, n, 2);
    for (size_t i = above; i < n; i++)
        depth += i + 1 < n && p[i] == '/';
    return depth;
}

static size_t naive_home(const char *p, size_t n)
{
    size_t at = 14;

    if (n < 16 || memcmp(p, "/local/domain/", 14) != 0)
        return 0;
    while (at < n && p[at] >= '0' && p[at] <= '9')
        at++;
    return at > 14 && at < 20 && at < n && p[at] == '/' ? at + 1 : 0;
}

static bool naive_below(const char *p, size_t n, const char *above, size_t m)
{
    if (m == 1 && above[0] == '/')
        return n > 1 && p[0] == '/';
    return n > m && memcmp(p, above, m) == 0 && p[m] == '/';
}

/* Everything that can be asked about a path that is legal. */
static void look(const char *text, size_t n, uint32_t domid)
{
    char home[32];
    size_t home_len = (size_t)sprintf(home, "/local/domain/%u/", domid), up, end;

    if (text[0] == '/' || text[0] == '@')
        home_len = 0;
    CHECK_EQ(path.base_len, home_len);
    CHECK_EQ(path.len, home_len + n);
    CHECK(memcmp(path.buf, home, home_len) == 0);
    CHECK(memcmp(path.buf + home_len, text, n) == 0);
    for (size_t i = 0; i < XS_PATH_PAD; i++)
        CHECK_EQ(path.buf[path.len + i], 0);
    CHECK_EQ(xs_path_is_special(&path), text[0] == '@');
    check_names();
    CHECK_EQ(xs_path_home(&path), naive_home(path.buf, path.len));

    up = path.len;
    while (up > 0 && path.buf[up - 1] != '/')
        up--;
    up = up > 1 ? up - 1 : path.len == 1 ? 0 : up;
    CHECK_EQ(xs_path_parent_len(&path), up);
    for (end = 1; end < path.len; end++)
        if (path.buf[end] == '/' || (end == 1 && path.buf[0] == '/')) {
            CHECK(xs_path_is_below(path.buf, path.len, path.buf, end));
            CHECK_EQ(xs_path_depth_below(&path, end), naive_depth(path.buf, path.len, end));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xs_path copy;
    const char *text = (const char *)data + 2, *other;
    size_t n, m;
    uint32_t domid;
    int order;

    if (size < 3) {
        CHECK_EQ(xs_path_parse(&path, text, 0, 0), XS_EINVAL);
        return 0;
    }
    domid = data[0] | (uint32_t)data[1] << 8;
    n = strnlen(text, size - 2);
    other = text + n + 1;
    m = n + 2 < size - 1 ? size - 3 - n : 0;
    CHECK_EQ(xs_path_parse(&path, text, size - 2, domid),
             legal(text, size - 2) ? XS_OK : XS_EINVAL);
    CHECK_EQ(xs_path_parse(&path, text, n, domid), legal(text, n) ? XS_OK : XS_EINVAL);
    if (!legal(text, n))
        return 0;
    look(text, n, domid);
    memset(&copy, 0xff, sizeof(copy));
    xs_path_set(&copy, path.buf, path.len);
    CHECK(copy.len == path.len && memcmp(copy.buf, path.buf, path.len + XS_PATH_PAD) == 0);
    if (!legal(other, m))
        return 0;

    /* Two paths: below and in order. */
    {
        static char a[XS_PATH_MAX + 1], b[XS_PATH_MAX + 1];
        size_t an = path.len, bn;

        memcpy(a, path.buf, an);
        a[an] = 0;
        CHECK_EQ(xs_path_parse(&path, other, m, domid), XS_OK);
        bn = path.len;
        memcpy(b, path.buf, bn);
        b[bn] = 0;
        CHECK_EQ(xs_path_is_below(a, an, b, bn), naive_below(a, an, b, bn));
        CHECK_EQ(xs_path_is_below(b, bn, a, an), naive_below(b, bn, a, an));
        if (an == 1 || bn == 1)
            return 0; /* the root is never among what a removal sorts */
        order = xs_path_order_removal(a, an, b, bn);
        CHECK_EQ(order, naive(a, b));
        CHECK_EQ(xs_path_order_removal(b, bn, a, an), -order);
    }
    return 0;
}
