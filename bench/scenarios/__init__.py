"""One file for each question that the bench can ask."""
