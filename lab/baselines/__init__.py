"""What people usually write: the conductor and the publisher of a good tutorial.

`duet bench conductor` measures the real conductor's price against this one, and `duet faults` shows what that
price buys: there both run as arms beside the durable styles (`lab/arms`).
They retry nothing and take no notice of an Idempotency-Key; the conductor forgets an order with the request.
They import neither a service nor servicekit, so that a change there can neither help nor hurt them.
"""
