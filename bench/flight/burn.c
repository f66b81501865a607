/*
 * Work that slows a machine: writes through more memory than the caches hold, until it is ended.
 * What shares the CPU gets half of it and finds its caches cold; what runs on the neighbouring
 * ones shares memory and the last caches with it.
 *
 * usage: burn [CPU]
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

enum { WORDS = 4 << 20, STRIDE = 8 };

static volatile uint64_t memory[WORDS];

int main(int argc, char **argv)
{
    /* Never longer than who started it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
        return 1;
    }
    if (argc > 1) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET((size_t)strtoul(argv[1], NULL, 10), &set);
        if (sched_setaffinity(0, sizeof(set), &set) != 0) {
            perror("burn");
            return 1;
        }
    }
    for (uint64_t turn = 0;; turn++) {
        for (uint32_t i = 0; i < WORDS; i += STRIDE) {
            memory[i] = memory[(i * 7u + 64u) % WORDS] + turn;
        }
    }
}
