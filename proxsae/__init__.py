"""proxsae."""
