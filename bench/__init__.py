"""Benchmarks: a load client, an echo floor, and a runner that puts servers side by side."""
