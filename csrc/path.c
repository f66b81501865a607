#include "path.h"

#include "err.h"

enum { BAD, WORD, SLASH };

static const uint8_t class_of[256] = {
    ['A'] = WORD, ['B'] = WORD, ['C'] = WORD, ['D'] = WORD, ['E'] = WORD, ['F'] = WORD,
    ['G'] = WORD, ['H'] = WORD, ['I'] = WORD, ['J'] = WORD, ['K'] = WORD, ['L'] = WORD,
    ['M'] = WORD, ['N'] = WORD, ['O'] = WORD, ['P'] = WORD, ['Q'] = WORD, ['R'] = WORD,
    ['S'] = WORD, ['T'] = WORD, ['U'] = WORD, ['V'] = WORD, ['W'] = WORD, ['X'] = WORD,
    ['Y'] = WORD, ['Z'] = WORD, ['a'] = WORD, ['b'] = WORD, ['c'] = WORD, ['d'] = WORD,
    ['e'] = WORD, ['f'] = WORD, ['g'] = WORD, ['h'] = WORD, ['i'] = WORD, ['j'] = WORD,
    ['k'] = WORD, ['l'] = WORD, ['m'] = WORD, ['n'] = WORD, ['o'] = WORD, ['p'] = WORD,
    ['q'] = WORD, ['r'] = WORD, ['s'] = WORD, ['t'] = WORD, ['u'] = WORD, ['v'] = WORD,
    ['w'] = WORD, ['x'] = WORD, ['y'] = WORD, ['z'] = WORD, ['0'] = WORD, ['1'] = WORD,
    ['2'] = WORD, ['3'] = WORD, ['4'] = WORD, ['5'] = WORD, ['6'] = WORD, ['7'] = WORD,
    ['8'] = WORD, ['9'] = WORD, ['-'] = WORD, ['_'] = WORD, ['@'] = WORD, ['/'] = SLASH,
};

static const char home_prefix[] = "/local/domain/";
enum { HOME_PREFIX_LEN = sizeof(home_prefix) - 1 };

/* Writes /local/domain/<domid>/ and returns its length. */
static uint32_t put_home(char *out, uint32_t domid)
{
    char digits[10];
    uint32_t n = 0, len = HOME_PREFIX_LEN;

    memcpy(out, home_prefix, HOME_PREFIX_LEN);
    do {
        digits[n++] = (char)('0' + domid % 10);
        domid /= 10;
    } while (domid != 0);
    while (n != 0)
        out[len++] = digits[--n];
    out[len++] = '/';
    return len;
}

int xs_path_parse(struct xs_path *out, const char *p, size_t n, uint32_t base_domid)
{
    uint32_t at = 0;

    if (n == 0 || n > XS_PAYLOAD_MAX)
        return XS_EINVAL;
    if (p[0] != '/' && p[0] != '@')
        at = put_home(out->buf, base_domid);
    out->base_len = at;

    unsigned prev = BAD;
    for (size_t i = 0; i < n; i++) {
        unsigned c = class_of[(uint8_t)p[i]];

        if (c == BAD || (c == SLASH && prev == SLASH))
            return XS_EINVAL;
        out->buf[at + i] = p[i];
        prev = c;
    }
    if (prev == SLASH && n > 1)
        return XS_EINVAL;
    out->len = at + (uint32_t)n;
    memset(out->buf + out->len, 0, XS_PATH_PAD);
    return XS_OK;
}

void xs_path_set(struct xs_path *out, const char *p, size_t n)
{
    memmove(out->buf, p, n);
    memset(out->buf + n, 0, XS_PATH_PAD);
    out->len = (uint32_t)n;
    out->base_len = 0;
}

uint32_t xs_path_home(const struct xs_path *path)
{
    uint32_t i = HOME_PREFIX_LEN;

    if (path->len < HOME_PREFIX_LEN || memcmp(path->buf, home_prefix, HOME_PREFIX_LEN) != 0)
        return 0;
    while (i < path->len && i < HOME_PREFIX_LEN + 5 && path->buf[i] >= '0' &&
           path->buf[i] <= '9')
        i++;
    if (i == HOME_PREFIX_LEN || i >= path->len || path->buf[i] != '/')
        return 0;
    return i + 1;
}

uint32_t xs_path_parent_len(const struct xs_path *path)
{
    uint32_t i = path->len;

    while (i > 0 && path->buf[i - 1] != '/')
        i--;
    if (i == 0 || path->len == 1)
        return 0;
    return i == 1 ? 1 : i - 1;
}

bool xs_path_is_below(const char *below, size_t n, const char *above, size_t m)
{
    if (m == 1 && above[0] == '/')
        return n > 1 && below[0] == '/';
    return n > m && below[m] == '/' && memcmp(below, above, m) == 0;
}

uint32_t xs_path_depth_below(const struct xs_path *path, size_t n)
{
    uint32_t depth = 0;

    if (path->len == n)
        return 0;
    if (n == 1 && path->buf[0] == '/') /* its slash already stands before the first name */
        depth = 1;
    for (size_t i = n; i < path->len; i++)
        depth += path->buf[i] == '/';
    return depth;
}

int xs_path_order_removal(const char *a, size_t an, const char *b, size_t bn)
{
    size_t n = an < bn ? an : bn, i = 0;

    while (i < n && a[i] == b[i])
        i++;
    if (i == an || i == bn) {
        if (an == bn)
            return 0;
        /* One is the beginning of the other: below comes first, a longer name later. */
        const char *longer = an > bn ? a : b;
        bool below = longer[i] == '/' || (i == 1 && longer[0] == '/');
        return (an > bn) == below ? -1 : 1;
    }
    /* Names end at '/', which must order before every character of a name. */
    unsigned ca = a[i] == '/' ? 0 : (uint8_t)a[i], cb = b[i] == '/' ? 0 : (uint8_t)b[i];
    return ca < cb ? -1 : 1;
}
