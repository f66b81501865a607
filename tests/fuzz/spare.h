/*
 * Included before the engine's module in a build for fuzzing: an engine's root struct, most of a
 * megabyte, is kept for the next engine, for each input has one of its own and to map such a
 * struct takes longer than to run most of them. What is kept is poisoned meanwhile.
 */
#ifndef FUZZ_SPARE_H
#define FUZZ_SPARE_H

#include <stdlib.h>

void *xs_fuzz_calloc(size_t n, size_t size);
void xs_fuzz_free(void *p);

#define calloc(n, size) xs_fuzz_calloc(n, size)
#define free(p) xs_fuzz_free(p)

#endif
