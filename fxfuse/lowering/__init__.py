"""Fused models as a few kernels that ship with torch, fast in plain eager mode.

Reads the graph by the views of ``operators``; it may import everything but api, frontends and cli.  Start with
``lower``: ``reading`` is the only file that looks into a graph, ``plan`` decides what each kernel takes in, ``cpu``,
``gpu`` and ``reference`` make the kernels, ``flat`` writes the forward, ``module`` is what comes back.
"""
