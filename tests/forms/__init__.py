"""Tests of what holds in every form of graph, and of what is special to one."""
