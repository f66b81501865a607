"""The mutation check: small faults in the C library and the core, one at a time; who notices?"""
