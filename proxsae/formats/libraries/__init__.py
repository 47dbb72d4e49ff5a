"""The formats of other libraries, a file each; :mod:`proxsae.formats.registry` finds them."""
