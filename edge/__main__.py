"""`python -m edge` is `ringlog`."""

from edge.cli import main

main()
