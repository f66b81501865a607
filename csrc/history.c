#include "history.h"

#include "err.h"

void xs_history_init(struct xs_history *h, struct xs_tree *tree)
{
    memset(h, 0, offsetof(struct xs_history, authors));
    h->tree = tree;
}

void xs_history_destroy(struct xs_history *h)
{
    xs_history_forget(h, UINT64_MAX, SIZE_MAX);
    xs_mem_free(h->tree->mem, &h->account, h->spare, sizeof(*h->spare));
    h->spare = NULL;
}

int xs_history_reserve(struct xs_history *h)
{
    if (h->spare == NULL)
        h->spare = xs_mem_alloc(h->tree->mem, &h->account, sizeof(*h->spare));
    return h->spare == NULL ? XS_ENOMEM : XS_OK;
}

void xs_history_count(struct xs_history *h, const struct xs_author *author)
{
    h->number++;
    h->authors[h->author_count++ & (XS_AUTHORS - 1)] = *author;
}

void xs_history_record(struct xs_history *h, const struct xs_author *author,
                       struct xs_node *before, struct xs_node *after)
{
    struct xs_commit *c = h->spare;

    xs_assert(c != NULL);
    h->spare = NULL;
    c->number = h->number;
    c->author = *author;
    c->before = before;
    c->after = after;
    c->newer = NULL;
    c->older = h->newest;
    if (h->newest != NULL)
        h->newest->newer = c;
    else
        h->oldest = c;
    h->newest = c;
    h->count++;
}

void xs_history_extend(struct xs_history *h, const struct xs_author *author,
                       struct xs_node *after)
{
    struct xs_commit *c = h->newest;

    c->number = h->number;
    c->author = *author;
    xs_tree_drop(h->tree, c->after);
    c->after = after;
}

bool xs_history_forget(struct xs_history *h, uint64_t number, size_t most)
{
    while (h->oldest != NULL && h->oldest->number <= number) {
        struct xs_commit *c = h->oldest;

        if (most-- == 0)
            return true;
        h->oldest = c->newer;
        if (h->oldest != NULL)
            h->oldest->older = NULL;
        else
            h->newest = NULL;
        h->count--;
        xs_tree_drop(h->tree, c->before);
        xs_tree_drop(h->tree, c->after);
        xs_mem_free(h->tree->mem, &h->account, c, sizeof(*c));
    }
    return false;
}

const struct xs_author *xs_history_author(const struct xs_history *h, uint64_t stamp)
{
    uint64_t end = h->author_count, lo = end > XS_AUTHORS ? end - XS_AUTHORS : 0, hi = end;

    /* Stamps grow with commits: the first author whose last stamp is not below this one. */
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (h->authors[mid & (XS_AUTHORS - 1)].stamp < stamp)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == end || (end > XS_AUTHORS && lo == end - XS_AUTHORS))
        return NULL; /* not counted yet, or perhaps given before the oldest one we know */
    return &h->authors[lo & (XS_AUTHORS - 1)];
}
