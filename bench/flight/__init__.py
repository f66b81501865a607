"""Flights: what a run of the benchmarks leaves behind, and what is made of it."""
