"""The conductors that `duet bench conductor` measures the real one against.

Both are the code that a good tutorial would show: one validated body, one shared client, one gather.
They keep no journal, retry nothing and forget an order with the process: that is what the real conductor's
price buys.
They import no service, so that a change there can neither help nor hurt them.
"""
