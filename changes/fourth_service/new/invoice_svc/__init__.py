"""Issues invoices: one for each order, numbered from 1 without gaps."""
