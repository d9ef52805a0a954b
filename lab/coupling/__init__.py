"""Coupling, computed: who knows whom, by the code, and who learns what, by running it.

Two styles are compared by what one service has to know of another (its name, its address, its schema), not by
how many lines connect them. It refuses to give one number for a style: each count names the services that it
counts.
"""
