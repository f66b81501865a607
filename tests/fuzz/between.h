/*
 * Included before csrc/ring.c in a build for fuzzing: gives the other side of the ring a word
 * at every place where the code looks at shared memory, which is when a hostile domain would
 * change it. Nothing else is different.
 */
#ifndef FUZZ_BETWEEN_H
#define FUZZ_BETWEEN_H

#include <string.h>

void xs_fuzz_between(int place);

#define __atomic_load_n(p, order) (xs_fuzz_between(0), __atomic_load_n(p, order))
#define __atomic_thread_fence(order) (xs_fuzz_between(1), __atomic_thread_fence(order))
#define memcpy(to, from, n) (xs_fuzz_between(2), memcpy(to, from, n))

#endif
