"""Training the bundled model of photographs. The photographs are not part of the package."""
