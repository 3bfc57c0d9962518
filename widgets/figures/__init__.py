"""Pure pictures: ``info(trace, at)`` -> a NamedTuple -> ``figure``, ``svg`` or ``rows`` of it.

``at`` is anything with ``.round`` and ``.node``; ``figure`` gives a plotly dict that looks the same
in plotly.js 3 and 4; ``svg`` is the static twin; ``rows`` is the data behind both.
"""
