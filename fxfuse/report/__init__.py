"""What was decided and why: the closed list of reasons, the report, the errors.

Imports nothing of ours. Start with ``reasons.py``, then ``report.py``.
"""
