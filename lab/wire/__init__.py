"""The wires of a service: the lab's own TCP proxies before its REST port and between it and the broker.

They do harm on purpose (`weather`), drawn by a seed and counted. They run inside the supervisor and pass
loopback traffic only; they know nothing of HTTP or NATS, so that both styles are hit by the same rule.
"""
