"""Pure pictures: ``info(trace, at)`` -> NamedTuple -> ``figure(info)``, ``svg(info)``, ``rows(info)``.

``at`` is anything with ``.round`` and ``.node``; ``figure`` gives a plotly dict that looks the same
in plotly.js 3 and 4; ``svg`` is the static twin; ``rows`` is the data behind both.
"""
