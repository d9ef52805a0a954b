"""Sends the order confirmation: records one for each order, then delivers it over SMTP."""
