"""The commands of the command line, one a file that is named as the command; `proxsae.cli` lists them."""
