/*
 * The scripts. Costs nothing clever: a template is walked once per request, which the client pays,
 * not the server that is measured.
 *
 * The storm is one virtual machine's life as a toolstack writes it: 141 requests in six
 * transactions and 32 requests outside. Counted: 1 + 33 (domain), 8 (second transaction),
 * 3 x (2 + 20) (block devices), 4 + 29 (shutdown).
 */
#define _GNU_SOURCE
#include "script.h"

#include "proto.h"

#include <stdio.h>
#include <string.h>

#define GUEST "/local/domain/%g"
#define DOM "/local/domain/%d"
#define FRONT(dev) DOM "/device/vbd/" dev
#define BACK(dev) "/local/domain/0/backend/vbd/%d/" dev
#define HOTPLUG(dev) "/xapi/%u/hotplug/vbd/" dev
#define PRIVATE(dev) "/xapi/%u/private/vbd/" dev
#define FAILURE(dev) DOM "/error/device/vbd/" dev

/* Domains that were never introduced may not own nodes everywhere, so domain 0 owns them all. */
#define READABLE "n0,r%d"
#define WRITABLE "n0,b%d"

#define TX_START                             \
    {                                        \
        MSG_TRANSACTION_START, 0, NULL, NULL \
    }
#define TX_END(how)                                \
    {                                              \
        MSG_TRANSACTION_END, STEP_IN_TX, NULL, how \
    }
#define TX_MKDIR(path)                    \
    {                                     \
        MSG_MKDIR, STEP_IN_TX, path, NULL \
    }
#define TX_PERMS(path, perms)                  \
    {                                          \
        MSG_SET_PERMS, STEP_IN_TX, path, perms \
    }
#define TX_WRITE(path, value)              \
    {                                      \
        MSG_WRITE, STEP_IN_TX, path, value \
    }
#define TX_EXISTS(path)                                   \
    {                                                     \
        MSG_READ, STEP_IN_TX | STEP_ABSENT_OK, path, NULL \
    }
#define TX_RM(path)                                     \
    {                                                   \
        MSG_RM, STEP_IN_TX | STEP_ABSENT_OK, path, NULL \
    }
#define TX_DIR(path, perms) TX_MKDIR(path), TX_PERMS(path, perms)
#define NOW_RM(path)                       \
    {                                      \
        MSG_RM, STEP_ABSENT_OK, path, NULL \
    }
#define TEN(step)                                                                           \
    step("0"), step("1"), step("2"), step("3"), step("4"), step("5"), step("6"), step("7"), \
        step("8"), step("9")
#define DOMAIN_PATH(who)                  \
    {                                     \
        MSG_GET_DOMAIN_PATH, 0, who, NULL \
    }

#define DEVICE_ATTACH(dev)                                                                     \
    DOMAIN_PATH("0"), DOMAIN_PATH("%d"), TX_START, TX_EXISTS(FRONT(dev)),                      \
        TX_EXISTS(BACK(dev)), TX_RM(FRONT(dev)), TX_RM(BACK(dev)),                             \
        TX_DIR(FRONT(dev), WRITABLE), TX_DIR(BACK(dev), READABLE), TX_DIR(HOTPLUG(dev), "n0"), \
        TX_WRITE(FRONT(dev) "/backend", BACK(dev)), TX_WRITE(FRONT(dev) "/backend-id", "0"),   \
        TX_WRITE(BACK(dev) "/frontend", FRONT(dev)), TX_WRITE(BACK(dev) "/frontend-id", "%d"), \
        TX_WRITE(BACK(dev) "/online", "1"), TX_MKDIR(PRIVATE(dev)),                            \
        TX_WRITE(PRIVATE(dev) "/backend-kind", "vbd"),                                         \
        TX_WRITE(PRIVATE(dev) "/backend-id", "0"), TX_END("T")

#define DEVICE_DETACH(dev)                                                                     \
    {MSG_READ, 0, FRONT(dev) "/backend", BACK(dev)}, {MSG_WRITE, 0, BACK(dev) "/online", "0"}, \
        {MSG_DIRECTORY, 0, BACK(dev), NULL}, NOW_RM(FRONT(dev)), NOW_RM(BACK(dev)),            \
        NOW_RM(FAILURE(dev)), NOW_RM(HOTPLUG(dev))

static const struct step storm_steps[] = {
    DOMAIN_PATH("%d"),
    /* The domain's own directory and those that the guest may read or write. */
    TX_START,
    TX_RM(DOM),
    TX_DIR(DOM, READABLE),
    TX_EXISTS("/vm/%u"),
    TX_WRITE("/vm/%u/uuid", "%u"),
    TX_WRITE("/vm/%u/name", "machine-%d"),
    TX_WRITE("/vm/%u/domains/%d", DOM),
    TX_MKDIR("/vss/%u"),
    TX_WRITE(DOM "/vm", "/vm/%u"),
    TX_WRITE(DOM "/vss", "/vss/%u"),
    TX_WRITE(DOM "/name", "machine-%d"),
    TX_DIR(DOM "/cpu", READABLE),
    TX_DIR(DOM "/memory", READABLE),
    TX_DIR(DOM "/device", WRITABLE),
    TX_DIR(DOM "/error", WRITABLE),
    TX_DIR(DOM "/drivers", WRITABLE),
    TX_DIR(DOM "/control", WRITABLE),
    TX_DIR(DOM "/attr", WRITABLE),
    TX_DIR(DOM "/data", WRITABLE),
    TX_DIR(DOM "/messages", WRITABLE),
    TX_DIR(DOM "/vm-data", WRITABLE),
    TX_END("T"),
    /* What the firmware and the tools in the guest look for. */
    TX_START,
    TX_WRITE(DOM "/vm-data/xsdata", "{}"),
    TX_WRITE(DOM "/platform/acpi", "1"),
    TX_WRITE(DOM "/bios-strings/bios-vendor", "Xen"),
    TX_WRITE(DOM "/action-request", "none"),
    TX_WRITE(DOM "/control/feature-shutdown", "1"),
    TX_WRITE(DOM "/unique-domain-id", "%u"),
    TX_END("T"),
    DEVICE_ATTACH("51712"),
    DEVICE_ATTACH("51728"),
    DEVICE_ATTACH("51744"),
    /* Shutdown: asked for in a transaction, cleaned up without one. */
    TX_START,
    TX_EXISTS(DOM),
    TX_WRITE(DOM "/control/shutdown", "poweroff"),
    TX_END("T"),
    {MSG_DIRECTORY, 0, DOM "/device/vbd", NULL},
    DEVICE_DETACH("51712"),
    DEVICE_DETACH("51728"),
    DEVICE_DETACH("51744"),
    {MSG_DIRECTORY, 0, DOM, NULL},
    {MSG_READ, 0, DOM "/vm", "/vm/%u"},
    {MSG_READ, 0, DOM "/vss", "/vss/%u"},
    NOW_RM("/vm/%u"),
    NOW_RM("/vss/%u"),
    NOW_RM(DOM),
    NOW_RM("/local/domain/0/backend/vbd/%d"),
};

_Static_assert(sizeof(storm_steps) / sizeof(storm_steps[0]) == 141,
               "one machine, 141 requests");

static const struct step storm_before[] = {
    {MSG_MKDIR, 0, "/local/domain/0/backend/vbd", NULL},
    {MSG_MKDIR, 0, "/vm", NULL},
    {MSG_MKDIR, 0, "/vss", NULL},
    {MSG_MKDIR, 0, "/xapi", NULL},
};

static const struct step storm_after[] = {NOW_RM("/xapi")};
/* For each machine of a storm that did not come to its end. */
static const struct step storm_undo[] = {NOW_RM(DOM), NOW_RM("/vm/%u"), NOW_RM("/vss/%u"),
                                         NOW_RM("/local/domain/0/backend/vbd/%d")};

static const struct step read_steps[] = {{MSG_READ, 0, "%0", "%v0"}};
static const struct step write_steps[] = {{MSG_WRITE, 0, "%0", "%v0"}};
static const struct step directory_steps[] = {{MSG_DIRECTORY, 0, "%p", NULL}};
static const struct step perms_steps[] = {{MSG_GET_PERMS, 0, "%0", NULL}};
static const struct step abort_steps[] = {TX_START, TX_END("F")};

static const struct step commit_steps[] = {
    TX_START,
    {MSG_READ, STEP_IN_TX, "%0", "%v0"},
    {MSG_READ, STEP_IN_TX, "%1", "%v1"},
    TX_WRITE("%2", "%v2"),
    TX_WRITE("%3", "%v3"),
    TX_END("T"),
};

/* What Debian's test-xenstore does, case by case: on one node, or on a directory of ten. */
#define ONE_OF_TEN(name)              \
    {                                 \
        MSG_WRITE, 0, "%r/" name, "x" \
    }
static const struct step one_read_steps[] = {{MSG_READ, 0, "%r", "%c0"}};
static const struct step one_write_steps[] = {{MSG_WRITE, 0, "%r", "%c0"}};
static const struct step one_rm_steps[] = {{MSG_WRITE, 0, "%r/x", "x"},
                                           {MSG_RM, 0, "%r/x", NULL}};
static const struct step ten_steps[] = {TEN(ONE_OF_TEN)};
static const struct step ten_list_steps[] = {{MSG_DIRECTORY, 0, "%r", NULL}};
static const struct step ten_rm_steps[] = {TEN(ONE_OF_TEN), {MSG_RM, 0, "%r", NULL}};
static const struct step nothing_steps[] = {TX_START, TX_END("T")};
static const struct step change_steps[] = {
    TX_START, {MSG_READ, STEP_IN_TX, "%r", NULL}, TX_WRITE("%r", "%vN"), TX_END("T")};
static const struct step change_abort_steps[] = {
    TX_START, {MSG_READ, STEP_IN_TX, "%r", NULL}, TX_WRITE("%r", "%vN"), TX_END("F")};
/* Somebody else writes what the transaction has read, so it must fail. */
static const struct step conflict_steps[] = {
    TX_START,
    {MSG_READ, STEP_IN_TX, "%r", "%c0"},
    {MSG_WRITE, 0, "%r", "another"},
    TX_WRITE("%r", "mine"),
    {MSG_TRANSACTION_END, STEP_IN_TX | STEP_CONFLICT, NULL, "T"},
    {MSG_WRITE, 0, "%r", "%c0"},
};

static const struct step mkdir_rm_steps[] = {
    {MSG_MKDIR, 0, "%r/m%l-%n", NULL},
    {MSG_RM, 0, "%r/m%l-%n", NULL},
};

/* A hundred nodes for each domain. */
static const struct step grow_steps[] = {{MSG_WRITE, 0, "/bench/d/%h/%k", "%vN"}};
static const struct step grown_steps[] = {{MSG_READ, 0, "/bench/d/%h/%k", "%vN"}};
/* A device appears in a directory that a backend watches. */
static const struct step device_steps[] = {
    {MSG_WRITE, 0, "%r/%n/0/frontend", "/local/domain/%n/device/vif/0"},
    {MSG_WRITE, 0, "%r/%n/0/frontend-id", "%n"},
    {MSG_WRITE, 0, "%r/%n/0/online", "1"},
    {MSG_WRITE, 0, "%r/%n/0/state", "1"},
};
static const struct step watcher_steps[] = {{MSG_WATCH, 0, "%r", "t"}};
static const struct step control_steps[] = {{MSG_CONTROL, STEP_ANY, "%r", NULL}};
static const struct step create_steps[] = {{MSG_WRITE, 0, "%N", "%vN"}};
static const struct step flat_steps[] = {{MSG_WRITE, 0, "%r/%n", "%vN"}};
static const struct step flat_rm_steps[] = {{MSG_RM, 0, "%r/%n", NULL}};
static const struct step list_steps[] = {{MSG_DIRECTORY, STEP_LIST, "%r", NULL}};
static const struct step rm_steps[] = {{MSG_RM, STEP_ABSENT_OK, "%r", NULL}};
static const struct step mkdir_steps[] = {{MSG_MKDIR, 0, "%r", NULL}};
static const struct step sibling_steps[] = {TX_START, TX_MKDIR("/bench/siblings/%l"),
                                            TX_END("T")};
static const struct step sibling_before[] = {{MSG_MKDIR, 0, "/bench/siblings", NULL}};
static const struct step sibling_after[] = {NOW_RM("/bench/siblings")};
static const struct step probe_before[] = {{MSG_WRITE, 0, "/bench/probe", "value"}};
static const struct step probe_steps[] = {{MSG_READ, 0, "/bench/probe", "value"}};
/* What a toolstack does for a guest, the guest's own view of it, and its end. */
static const struct step arrive_steps[] = {
    {MSG_INTRODUCE, 0, "%g", "1000,3"},          {MSG_MKDIR, 0, GUEST, NULL},
    {MSG_SET_PERMS, 0, GUEST, "n0,r%g"},         {MSG_MKDIR, 0, GUEST "/data", NULL},
    {MSG_SET_PERMS, 0, GUEST "/data", "n%g,r0"}, {MSG_WRITE, 0, GUEST "/data/0", "%c0"},
    {MSG_WRITE, 0, GUEST "/data/1", "%c1"},      {MSG_WRITE, 0, GUEST "/data/2", "%c2"},
    {MSG_WRITE, 0, GUEST "/data/3", "%c3"},
};
static const struct step depart_steps[] = {NOW_RM(GUEST)};
/* Domain 1 is the hostile one, if any is. */
static const struct step again_steps[] = {{MSG_INTRODUCE, 0, "1", "1000,3"}};
static const struct step probe_tx_steps[] = {
    TX_START,
    {MSG_READ, STEP_IN_TX, "/local/domain/1/data/0", "%c0"},
    TX_WRITE("/bench/probe", "value"),
    TX_END("T"),
};
static const struct step watch_steps[] = {{MSG_WATCH, 0, "/bench/elsewhere/%l/%n", "t%n"}};

#define SCRIPT(name, steps, before, after, help)                             \
    {                                                                        \
        name, help, steps, sizeof(steps) / sizeof((steps)[0]), before, after \
    }

static const struct script scripts[] = {
    SCRIPT("read", read_steps, NULL, NULL, "READ a leaf of the tree"),
    SCRIPT("write", write_steps, NULL, NULL, "WRITE a leaf of the tree"),
    SCRIPT("directory", directory_steps, NULL, NULL, "DIRECTORY of 32 children"),
    SCRIPT("perms", perms_steps, NULL, NULL, "GET_PERMS of a leaf of the tree"),
    SCRIPT("one-read", one_read_steps, "one-write", NULL, "READ --path"),
    SCRIPT("one-write", one_write_steps, NULL, NULL, "WRITE --path"),
    SCRIPT("one-rm", one_rm_steps, NULL, NULL, "WRITE a child of --path, and RM of it"),
    SCRIPT("ten-list", ten_list_steps, "ten", NULL, "DIRECTORY of --path with ten children"),
    SCRIPT("ten-rm", ten_rm_steps, NULL, NULL, "WRITE ten children of --path, and RM of it"),
    SCRIPT("nothing", nothing_steps, NULL, NULL, "an empty transaction"),
    SCRIPT("change", change_steps, "one-write", NULL,
           "a transaction: READ and WRITE of --path"),
    SCRIPT("change-abort", change_abort_steps, "one-write", NULL, "the same, aborted"),
    SCRIPT("conflict", conflict_steps, "one-write", NULL, "the same, while another one writes"),
    SCRIPT("mkdir-rm", mkdir_rm_steps, "mkdir", NULL, "MKDIR and RM of one child below --path"),
    SCRIPT("abort", abort_steps, NULL, NULL, "TRANSACTION_START and abort"),
    SCRIPT("commit", commit_steps, NULL, NULL, "a transaction of two READs and two WRITEs"),
    SCRIPT("grow", grow_steps, NULL, NULL, "WRITE a hundred nodes for each domain"),
    SCRIPT("grown", grown_steps, NULL, NULL, "READ them"),
    SCRIPT("device", device_steps, "mkdir", NULL, "four WRITEs below --path"),
    SCRIPT("control", control_steps, NULL, NULL, "CONTROL with the words --path, any answer"),
    SCRIPT("create", create_steps, NULL, NULL, "build the tree: one leaf per operation"),
    SCRIPT("flat", flat_steps, NULL, NULL, "create children 0, 1, 2 ... of --path"),
    SCRIPT("flat-rm", flat_rm_steps, NULL, NULL, "remove them one by one"),
    SCRIPT("list", list_steps, NULL, NULL, "the whole listing of --path"),
    SCRIPT("rm", rm_steps, NULL, NULL, "RM of --path"),
    SCRIPT("siblings", sibling_steps, "siblings-before", "siblings-after",
           "each connection creates a child of one parent in a transaction, all at once"),
    SCRIPT("storm", storm_steps, "storm-before", "storm-after",
           "starts and stops of simulated machines, 141 requests each"),
    /* Not for the command line from here on. */
    SCRIPT("mkdir", mkdir_steps, NULL, NULL, NULL),
    SCRIPT("ten", ten_steps, NULL, NULL, NULL),
    SCRIPT("watcher", watcher_steps, NULL, NULL, NULL),
    SCRIPT("siblings-before", sibling_before, NULL, NULL, NULL),
    SCRIPT("siblings-after", sibling_after, NULL, NULL, NULL),
    SCRIPT("storm-before", storm_before, NULL, NULL, NULL),
    SCRIPT("storm-after", storm_after, NULL, NULL, NULL),
    SCRIPT("storm-undo", storm_undo, NULL, NULL, NULL),
    SCRIPT("probe-before", probe_before, NULL, NULL, NULL),
    SCRIPT("probe", probe_steps, NULL, NULL, NULL),
    SCRIPT("probe-tx", probe_tx_steps, NULL, NULL, NULL),
    SCRIPT("arrive", arrive_steps, NULL, NULL, NULL),
    SCRIPT("depart", depart_steps, NULL, NULL, NULL),
    SCRIPT("again", again_steps, NULL, NULL, NULL),
    SCRIPT("watch", watch_steps, NULL, NULL, NULL),
};

const struct script *script_find(const char *name)
{
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        if (strcmp(scripts[i].name, name) == 0) {
            return &scripts[i];
        }
    }
    return NULL;
}

const struct script *script_at(uint32_t i)
{
    if (i >= sizeof(scripts) / sizeof(scripts[0]) || scripts[i].help == NULL) {
        return NULL;
    }
    return &scripts[i];
}

struct text {
    char *at;
    size_t cap;
    size_t len;
};

static void text_put(struct text *t, const char *bytes, size_t n)
{
    if (n > t->cap - t->len) {
        n = t->cap - t->len;
    }
    memcpy(t->at + t->len, bytes, n);
    t->len += n;
}

static void text_number(struct text *t, uint64_t n)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + n % 10u);
        n /= 10u;
    } while (n > 0);
    text_put(t, digits + at, sizeof(digits) - at);
}

static void text_leaf_directory(struct text *t, uint64_t leaf)
{
    text_put(t, "/bench/t/", 9);
    text_number(t, leaf >> 10);
    text_put(t, "/", 1);
    text_number(t, leaf >> 5 & 31u);
}

static void text_leaf(struct text *t, uint32_t domid, uint64_t leaf)
{
    if (domid != 0) {
        text_put(t, "data/", 5);
        text_number(t, leaf % GUEST_LEAVES);
        return;
    }
    text_leaf_directory(t, leaf);
    text_put(t, "/", 1);
    text_number(t, leaf & 31u);
}

/* The leaf's number in decimal, cut or filled up to `bytes`. */
static void text_value(struct text *t, uint64_t leaf, uint32_t bytes)
{
    size_t begin = t->len;

    text_number(t, leaf);
    if (t->len - begin > bytes) {
        t->len = begin + bytes;
    }
    while (t->len - begin < bytes && t->len < t->cap) {
        t->at[t->len++] = 'x';
    }
}

static uint64_t blank_leaf(const struct blanks *b, char which)
{
    return which >= '0' && which < '0' + KEYS ? b->key[which - '0'] : b->sequence;
}

size_t template_fill(char *out, size_t cap, const char *tmpl, const struct blanks *b)
{
    struct text t = {out, cap, 0};
    char uuid[48];
    int n;

    for (const char *c = tmpl; *c != '\0'; c++) {
        if (*c != '%' || c[1] == '\0') {
            text_put(&t, c, 1);
            continue;
        }
        switch (*++c) {
        case 'n':
            text_number(&t, b->sequence);
            break;
        case 'h':
            text_number(&t, b->sequence / 100u);
            break;
        case 'k':
            text_number(&t, b->sequence % 100u);
            break;
        case 'l':
            text_number(&t, b->lane);
            break;
        case 'd':
            text_number(&t, MACHINE_FIRST + b->lane);
            break;
        case 'p':
            if (b->domid != 0) {
                text_put(&t, "data", 4);
            } else {
                text_leaf_directory(&t, b->key[0]);
            }
            break;
        case 'g':
            text_number(&t, b->domid != 0 ? b->domid : b->sequence + 1);
            break;
        case 'c':
            text_value(&t, (uint64_t)(*++c - '0'), b->value_bytes);
            break;
        case 'r':
            text_put(&t, b->root, strlen(b->root));
            break;
        case 'u':
            n = snprintf(uuid, sizeof(uuid), "%08x-7773-4000-8000-%012x", b->lane * 2654435761u,
                         b->lane);
            text_put(&t, uuid, (size_t)n);
            break;
        case 'v':
            if (c[1] != '\0') {
                c++;
            }
            text_value(&t, blank_leaf(b, *c), b->value_bytes);
            break;
        default:
            text_leaf(&t, b->domid, blank_leaf(b, *c));
            break;
        }
    }
    return t.len;
}
