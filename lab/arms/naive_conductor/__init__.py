"""The `checkout` of the naive conductor's tree."""
