/*
 * The checks that tests rely on notice each kind of broken structure, and structures tell what
 * has the same hash apart.
 *
 * What is broken is mended again, and must be found sound before and after.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "pathset.h"
#include "trie.h"
#include "watchtrie.h"

enum { KIDS = 200 };

static struct xs_mem mem;
static struct xs_tree tree;
static struct xs_watches watched;
static struct xs_perms *mine, *theirs;
static struct xs_node *top;

static void write(const char *text, struct xs_perms *perms)
{
    struct xs_path path;
    struct xs_found found;

    xs_path_set(&path, text, strlen(text));
    CHECK_EQ(xs_tree_seek(&tree, top, &path, &found), XS_OK);
    CHECK_EQ(xs_tree_prepare_write(&tree, &top, &path, perms, 1), XS_OK);
    xs_tree_commit(&tree, "v");
}

static struct xs_node *node(const char *text)
{
    struct xs_path path;
    struct xs_found found;

    xs_path_set(&path, text, strlen(text));
    xs_tree_find(top, &path, &found);
    CHECK(found.node != NULL);
    return found.node;
}

/* ---- the tree --------------------------------------------------------------------- */

/* Whether the check sees the tree as it is now. */
#define SOUND() CHECK_EQ(xs_tree_check(&tree, top), XS_OK)
#define BROKEN() CHECK_EQ(xs_tree_check(&tree, top), XS_EIO)

/* A field has another value for a moment. */
#define BREAK(field, value)                 \
    do {                                    \
        __typeof__(field) keep_ = field;    \
        SOUND();                            \
        field = (__typeof__(field))(value); \
        BROKEN();                           \
        field = keep_;                      \
        SOUND();                            \
    } while (0)

static void swap(struct xs_slot *a, struct xs_slot *b)
{
    struct xs_slot keep = *a;

    *a = *b;
    *b = keep;
}

static void test_blocks(struct xs_dir *d)
{
    BREAK(d->count, 0);
    BREAK(d->count, d->cap + 1);
    BREAK(d->cap, XS_DIR_SLOTS + 1);
    BREAK(d->refs, 0);
    BREAK(d->names_bytes, d->names_bytes + 1);
    BREAK(d->nodes, d->nodes + 1);
    BREAK(d->bytes, d->bytes + 1);
    BREAK(d->mentions, 0);
    if (d->mixed)
        BREAK(d->mixed, 0);
    else
        BREAK(d->owner, d->owner + 1);
}

static void test_tree(void)
{
    char text[32];
    struct xs_perm entry[1] = {{0, 0, 0}};

    CHECK_EQ(xs_tree_init(&tree, &mem), XS_OK);
    CHECK_EQ(xs_perms_intern(&tree.perms, entry, 1, &mine), XS_OK);
    entry[0].domid = 1;
    CHECK_EQ(xs_perms_intern(&tree.perms, entry, 1, &theirs), XS_OK);
    CHECK_EQ(xs_tree_new(&tree, mine, &top), XS_OK);
    for (size_t i = 0; i < KIDS; i++) {
        sprintf(text, "/wide/kid%03zu", i);
        write(text, i % 2 ? mine : theirs);
    }
    write("/few/ab", mine);
    write("/few/abc", mine);
    write("/few/b", mine);

    struct xs_dir *few = node("/few")->kids, *wide = node("/wide")->kids;
    test_blocks(top->kids);
    test_blocks(few);
    test_blocks(wide);
    CHECK(wide->level == 1 && wide->count > 2);
    struct xs_dir *child = wide->slot[1].dir;
    BREAK(child->cap, XS_DIR_SLOTS + 1);
    BREAK(child->level, 1);
    BREAK(wide->slot[1].key, UINT64_MAX);
    /* A bound in the middle of the block before it: some names are not found any more. */
    BREAK(wide->slot[1].key, wide->slot[0].dir->slot[3].key);

    struct xs_slot *slot = few->slot;
    SOUND();
    swap(&slot[1], &slot[2]); /* "b" before "abc" */
    BROKEN();
    swap(&slot[1], &slot[2]);
    swap(&slot[0], &slot[1]); /* "abc" before "ab" */
    BROKEN();
    swap(&slot[0], &slot[1]);
    BREAK(slot[0].key, slot[0].key + 1);
    BREAK(slot[0].node->refs, 0);
}

static void test_nodes(void)
{
    struct xs_node *few = node("/few"), *leaf = node("/few/b");
    struct xs_dir *kids = top->kids;
    struct xs_perms *none;

    BREAK(leaf->stamp, tree.stamp + 1);
    BREAK(leaf->kids_stamp, tree.stamp + 1);
    BREAK(few->kids->refs, 0);
    top->kids = NULL;
    BROKEN();
    top->kids = kids;

    /* A list without entries, of the same weight as before. */
    none = must_alloc(sizeof(*none) + sizeof(struct xs_perm));
    memcpy(none, mine, sizeof(*none) + sizeof(struct xs_perm));
    none->count = 0;
    leaf->perms = none;
    leaf->value_len += 8;
    BROKEN();
    leaf->perms = mine;
    leaf->value_len -= 8;
    SOUND();
    free(none);

    /* Without memory nothing is said about the tree. */
    mem.fail_at = mem.calls + 1;
    CHECK_EQ(xs_tree_check(&tree, top), XS_ENOMEM);
    mem.fail_at = 0;
    SOUND();
}

/* ---- the watch index ---------------------------------------------------------------- */

#undef SOUND
#undef BROKEN
#define SOUND() CHECK(xs_watches_check(&watched))
#define BROKEN() CHECK(!xs_watches_check(&watched))

static struct xs_watch *add(struct xs_watch_owner *owner, const char *text, const char *token)
{
    struct xs_path path;
    struct xs_watch *x;

    xs_path_set(&path, text, strlen(text));
    CHECK_EQ(xs_watches_add(&watched, owner, &path, text, strlen(text), token, strlen(token),
                            -1, &x),
             XS_OK);
    return x;
}

static struct xs_watch *find(struct xs_watch_owner *owner, const char *text, const char *token)
{
    struct xs_path path;

    xs_path_set(&path, text, strlen(text));
    return xs_watches_find(&watched, owner, &path, token, strlen(token));
}

/* Gives a watch another hash, as if it had it. */
static void rehash_watch(struct xs_watch *x, uint64_t hash)
{
    struct xs_watch **link = &watched.watches[x->hash & (watched.watch_buckets - 1)];

    while (*link != x)
        link = &(*link)->hash_next;
    *link = x->hash_next;
    x->hash = hash;
    link = &watched.watches[hash & (watched.watch_buckets - 1)];
    x->hash_next = *link;
    *link = x;
}

static void rehash_point(struct xs_watchpoint *p, uint64_t hash)
{
    struct xs_watchpoint **link = &watched.points[p->hash & (watched.point_buckets - 1)];

    while (*link != p)
        link = &(*link)->hash_next;
    *link = p->hash_next;
    p->hash = hash;
    link = &watched.points[hash & (watched.point_buckets - 1)];
    p->hash_next = *link;
    *link = p;
}

static void test_watches(void)
{
    static const char *const paths[] = {"/a", "/b", "/c", "/d", "/e", "/f"};
    struct xs_account account = {0};
    struct xs_watch_owner owner = {.account = &account, .id = 1};
    struct xs_watchpoint *least;

    CHECK_EQ(xs_watches_init(&watched, &mem, 7), XS_OK);
    for (size_t i = 0; i < 6; i++)
        add(&owner, paths[i], "t");
    BREAK(watched.root->first, NULL);
    BREAK(watched.root->hash, watched.root->hash + 1);
    BREAK(watched.root->first->point, NULL);
    BREAK(watched.point_count, watched.point_count + 1);
    BREAK(watched.watch_count, watched.watch_count + 1);
    for (least = watched.root; least->left != NULL;)
        least = least->left;
    CHECK(least != watched.root);
    BREAK(least->up->hash, 0);  /* what is above has the greater hash */
    BREAK(least->path[1], 'z'); /* "/a" would come last */
    while (owner.first != NULL)
        xs_watches_remove(&watched, owner.first);
}

/* Each of these differs from what is looked for in one thing, but has its hash. */
static void test_same_hash(void)
{
    struct xs_account account = {0};
    struct xs_watch_owner owner = {.account = &account, .id = 1};
    struct xs_watch_owner other = {.account = &account, .id = 2};
    struct xs_watch *x = add(&owner, "/p/q", "token");
    uint64_t hash = x->hash, point_hash = x->point->hash;
    struct xs_path path;

    xs_watches_remove(&watched, x);
    rehash_watch(add(&other, "/p/q", "token"), hash);
    rehash_watch(add(&owner, "/p/q", "long token"), hash);
    rehash_watch(add(&owner, "/p/q", "nekot"), hash);
    rehash_watch(add(&owner, "/p/qq", "token"), hash);
    rehash_watch(add(&owner, "/p/r", "token"), hash);
    CHECK(find(&owner, "/p/q", "token") == NULL);
    x = add(&owner, "/p/q", "token");
    CHECK(x->hash == hash && find(&owner, "/p/q", "token") == x);
    while (owner.first != NULL)
        xs_watches_remove(&watched, owner.first);
    while (other.first != NULL)
        xs_watches_remove(&watched, other.first);

    rehash_point(add(&owner, "/p/qq", "token")->point, point_hash);
    rehash_point(add(&owner, "/p/r", "token")->point, point_hash);
    xs_path_set(&path, "/p/q", 4);
    CHECK(xs_watches_point(&watched, &path) == NULL);
    x = add(&owner, "/p/q", "token");
    CHECK(xs_watches_point(&watched, &path) == x->point);
    while (owner.first != NULL)
        xs_watches_remove(&watched, owner.first);
    CHECK_EQ(account.blocks, 0);
}

/* The same for what a transaction has seen. */
static void test_same_hash_seen(void)
{
    struct xs_pathset set = {0}, probe = {0};
    struct xs_seen *e;
    uint32_t mask;

    CHECK_EQ(xs_pathset_add(&probe, &mem, NULL, "/a", 2, 1), XS_OK);
    uint64_t hash = xs_pathset_next(&probe, NULL)->hash;
    for (size_t i = 0; i < 2; i++) {
        const char *path = i == 0 ? "/b" : "/longer";

        CHECK_EQ(xs_pathset_add(&set, &mem, NULL, path, strlen(path), 1), XS_OK);
        mask = (uint32_t)set.table_size - 1;
        e = (struct xs_seen *)(void *)set.buf;
        for (uint32_t at = 0; at <= mask; at++)
            set.table[at] = 0;
        set.table[hash & mask] = 1;
        e->hash = hash;
        CHECK(!xs_pathset_has(&set, "/a", 2));
        CHECK_EQ(xs_pathset_add(&set, &mem, NULL, "/a", 2, 1), XS_OK);
        CHECK(xs_pathset_has(&set, "/a", 2));
        CHECK_EQ(set.count, 2);
        xs_pathset_free(&set, &mem, NULL);
    }
    xs_pathset_free(&probe, &mem, NULL);
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    test_tree();
    test_nodes();
    test_watches();
    test_same_hash();
    test_same_hash_seen();
    xs_watches_destroy(&watched);
    xs_tree_drop(&tree, top);
    xs_perms_unref(&tree.perms, mine);
    xs_perms_unref(&tree.perms, theirs);
    xs_tree_destroy(&tree);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
