"""Other ways in: a pass for a compiler pipeline, the backend of torch.compile, one pair of layers, and ``verify``.

May import everything but ``cli``. Start with ``fuse_pass.py``.
"""
