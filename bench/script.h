/*
 * Scripts: what one simulated client does, as a table of requests.
 *
 * An operation is one run through a script. A script is a list of steps, a step is a request type
 * and templates for its path and its argument. In a template
 *
 *     %0 .. %3   path of the leaf whose number is key 0 .. 3 of this operation
 *     %v0..%v3   the value that this leaf has; always the same, so any READ can be checked
 *     %N, %vN    the same for the leaf whose number is the sequence number of the operation
 *     %n         sequence number of the operation       %l   number of the lane
 *     %p         directory of the leaf of key 0         %r   path given on the command line
 *     %d         domid of the lane's simulated machine  %u   its uuid
 *     %g         domid of the guest                     %c0..%c3  value of leaf 0 .. 3
 *     %h, %k     hundreds of the sequence number, and what is left
 *
 * and in the argument of SET_PERMS, and in all of CONTROL, a comma stands for NUL. The argument of a READ, if there is
 * one, is the value expected. Leaf i of the tree is /bench/t/<i/1024>/<i/32%32>/<i%32>: every
 * directory but the first has at most 32 children, however large the tree. On a guest's ring leaf
 * i is data/<i> in its own home, and there are GUEST_LEAVES of them. Over a socket the guest is
 * the one that the operation's sequence number chooses.
 */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

enum {
    STEP_IN_TX = 1,     /* sent with the id of the lane's transaction */
    STEP_ABSENT_OK = 2, /* ENOENT is an answer like any other */
    STEP_LIST = 4,      /* DIRECTORY, continued with DIRECTORY_PART when it does not fit */
    STEP_CONFLICT = 8,  /* EAGAIN is the answer that must come */
    STEP_ANY = 16,      /* whatever the answer: not every server knows this */
};

enum { KEYS = 4, GUEST_LEAVES = 4, MACHINE_FIRST = 100, MACHINES_MAX = 15000 };

struct step {
    uint8_t type;
    uint8_t flags;
    const char *path;
    const char *arg;
};

struct script {
    const char *name;
    const char *help;
    const struct step *steps;
    uint32_t count;
    const char *before; /* script run once, unmeasured, before this one; or NULL */
    const char *after;
};

/* What the templates of one operation are filled from. */
struct blanks {
    uint64_t key[KEYS];
    uint64_t sequence;
    uint32_t domid; /* of the guest that sends this; 0: a socket */
    uint32_t lane;
    uint32_t value_bytes;
    const char *root;
};

/* NULL when there is no script of this name. */
const struct script *script_find(const char *name);

/* The i-th script that a user may name, or NULL after the last. */
const struct script *script_at(uint32_t i);

/* Writes the template filled in, without NUL, into out[cap]; returns its length, at most cap. */
size_t template_fill(char *out, size_t cap, const char *tmpl, const struct blanks *b);

#endif
