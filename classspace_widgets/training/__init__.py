"""How the bundled models are trained and measured. The package itself needs none of this."""
