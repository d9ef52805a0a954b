"""The `subscribers` of the naive publisher's tree."""
