"""The same requests for three daemons, ours and Debian's two, whose answers are compared.

steps ── what may happen, and the random choice of it; a list of steps is a script
line ─── one connection's end: bytes there and back, replies and events told apart
house ── one daemon with its guests: carries steps out, shows its tree, is swept clean
table ── every difference that is meant: whose, why, how it is recognised, what follows
judge ── what one daemon showed beside what ours showed; asks the table about differences
run ──── scripts one after the other; a difference that is not in the table, made small
"""
