"""The embedded mailbox: an SMTP server that keeps what it accepts, and a page to read it.

It takes mail for everybody and delivers none. A 250 means that the message is on disk. It is for trying the
system out on one machine: it speaks no TLS, asks for no password, and belongs on loopback only.

Two local parts are there to try out failures: `bounce@…` is refused for good (550), `defer@…` for now (451).
"""
