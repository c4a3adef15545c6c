"""Affines, linear maps and filters: arithmetic on tensors, without any graph or module.

Imports nothing of ours. Start with ``affine.py`` and ``linear_map.py``.
"""
