"""Plumbing that knows no order: settings, logs, web, storage, batching. It imports no service."""
