"""What the rules that merge layers share.

Start with ``merger.py``.
"""
