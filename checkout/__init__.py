"""The checkout service: the public API, and in the orchestrated style the conductor."""
