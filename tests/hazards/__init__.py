"""What makes a fold silently wrong: every test breaks exactly one precondition of a fold.

Each hazard has a number, and each file names the numbers that it tests.

- ``sharing``: 1. a layer called twice; 2. one norm after two layers; 3. one parameter of two modules; 4. a parameter
  read elsewhere; 5. a value used more than once.
- ``shapes``: 6. a norm of one axis after a linear layer; 7. inputs without a batch; 8. constants along another axis;
  9. transposed and grouped convolutions.
- ``modes``: 10. training mode; 11. no weights, other options; 12. other norms; 13. subclasses with a forward of their
  own; 14. parametrizations; 15. hooks; 16. changes in place.
- ``arithmetic``: 17. the side and the options of an operation; 18. names of new constants; 19. chains.
- not here: 20. zero padding; 21. pools and activations; 22. slices; 23. the affine of a LayerNorm. These are tests of
  rules: ``tests/rules/test_fold_downstream.py``, ``test_walk.py`` and ``test_walk_joins.py``.
- ``merging``: 24. branches that do not fit; 25. merges that cost more than they save. More are in
  ``tests/rules/test_merge_*.py``.
- ``numbers``: 26. half precision; 27. overflow; 28. dtypes and devices.
- ``result``: 29. the argument is untouched; 30. attributes, hooks, calls; 31. what people do afterwards; 32. other
  sizes.
- ``tracing``: 33. questions that a forward asks; 34. other arguments; 35. parents that cannot be traced; 36. code that
  was not traced and calls a module again. ``untraced``: more of 35, what such code sets; ``recorded``: more of 36, with
  example inputs.
"""
