"""The `duet` command: it starts the system, loads it, breaks it and audits it.

It speaks to the services as any client does, over HTTP; it imports none of them.
"""
