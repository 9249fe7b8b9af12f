"""Training the bundled model of photographs. The photographs themselves are not part of the package."""
