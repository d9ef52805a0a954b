"""Keeps points balances: one ledger entry for each order of a member of the rewards programme."""
