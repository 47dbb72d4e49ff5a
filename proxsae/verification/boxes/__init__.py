"""Rigorous bounds over boxes, by interval and affine arithmetic, for the formulas that no exact proof reads."""
