"""What a formula may call, and who reads it: arrays, Numba, LaTeX."""
