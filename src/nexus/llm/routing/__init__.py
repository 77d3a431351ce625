"""Which deployment serves a call.

`fitting` and `abilities` say what a model cannot do, `router` puts deployments in order by what `standing` knows
of them, `delivery` tries them in turn, `continuation` goes on after the first words, `health` looks before anyone asks.
"""
