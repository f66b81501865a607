/*
 * Guests: created, introduced over a socket as a toolstack would, given a home with leaves of
 * their own, and destroyed again. Machines: created and destroyed. None of it is measured.
 */
#ifndef BENCH_GUESTS_H
#define BENCH_GUESTS_H

#include "host.h"

void guests_arrive(const struct options *o, struct host *h, uint32_t count);

/* Destroys one of them; returns when the daemon has let go of it. */
void guests_expel(const struct options *o, struct host *h, uint32_t domid);

/* Returns when the daemon has let go of all of them. */
void guests_depart(const struct options *o, struct host *h);

/* Domains 1 .. count exist, and nobody introduces them: machines that a toolstack is only about
 * to start. */
void machines_arrive(const struct options *o, struct host *h, uint32_t count);

/* They are gone, and the daemon has heard of it. */
void machines_depart(const struct options *o, struct host *h);

#endif
