"""Point-in-time aggregates over sorted arrays, with no engine in them.

``axis`` finds the rows of a window, ``visibility`` the rows known at an instant, ``ranges`` folds
columns over them, ``exact`` adds without rounding, ``chunk`` makes features of it all, ``columns``
and ``arrow`` speak Arrow. The meaning is that of docs/window-contract.md.
"""
