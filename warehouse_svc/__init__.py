"""Prepares shipments: one for each order, from stock that is allocated all or nothing."""
