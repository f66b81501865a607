"""The program ``xsd``: the daemon and the tools in one, and the ``xenstore-*`` names.

``main`` decides which tool was meant, ``catalogue`` describes each tool once, for parsing, help and
completion alike. Each tool's code is imported only when it runs: a tool that prints one value
should not load the others, let alone the daemon.
"""
