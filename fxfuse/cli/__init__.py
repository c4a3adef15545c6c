"""The command ``fxfuse`` and the HTML page.

May import everything; nothing imports it. Start with ``main.py``.
"""
