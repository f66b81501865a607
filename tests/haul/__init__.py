"""Hours of mixed load on one daemon: after each round everything must be as it was at the start.

figures ── what a daemon holds, by whom it is asked; what must come back exactly, and what nearly
house ──── one real daemon on a fake Xen: its figures, its logs, its end
crowd ──── clients and guests that come, do anything and go, out of a seed
acts ───── the parts of a round: loads of the C client, each beside a crowd
run ────── rounds one after the other, and what is judged after each and at the end
"""
