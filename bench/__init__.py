"""How fast the filters are. ``python -m bench`` answers every question of this folder and writes ``bench/results/``.

A question is one file that defines ``QUESTION``; it is found by being here.
"""
