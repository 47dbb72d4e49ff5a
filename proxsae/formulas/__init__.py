"""The functions that a formula may call, and the readers of formulas: arrays, Numba, LaTeX; checks of whole numbers."""
