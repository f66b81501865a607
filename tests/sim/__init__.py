"""A deterministic simulator: one seed makes a world, in which the engine runs beside the oracle.

steps ── what may happen, and the random choice of it; a list of steps is a trace
page ─── the guest's side of a ring
peer ─── a client as both sides have it, and what is on its way in between
stage ── engine and oracle side by side; carries a step out on both and compares
settings ─ how the daemon of a world is set up: each draws its own
fairness ─ who has to wait because of others: blame (who pays for a conflict), priority (who is
           held back for whom) and writerate (what a write costs), each written down naively
run ──── a seed from its first step to its end; replaying, shrinking, the corpus
"""
