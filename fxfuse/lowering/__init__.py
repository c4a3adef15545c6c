"""Fused models as a few kernels that ship with torch, fast in plain eager mode.

Reads the graph by the views of ``operators``; it may import everything but api, frontends and cli.  Start with
``lower``: ``reading`` is the only file that looks into a graph, ``plan`` decides what each kernel takes in, ``cpu`` and
``gpu`` make the kernels, ``flat`` writes the forward, ``runner`` runs it or the model itself; ``module`` and ``parts``
are what comes back.
"""
