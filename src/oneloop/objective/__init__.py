"""The mathematics: pure functions of tensors, one file per piece that a paper may change.

Nothing here knows a model, a device, a file or another process. Masked slots are selected away with `where`,
never multiplied away: 0 · inf is NaN.
"""
