"""The `checkout` of the naive publisher's tree."""
