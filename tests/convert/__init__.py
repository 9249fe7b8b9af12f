"""Models of other libraries, built small."""
