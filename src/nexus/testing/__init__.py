"""The fakes that tests use, ours and yours: a misbehaving provider, a replay server, makers of images and series.

Read `script` (what a fake sees and answers), `wire` (the contract of a wire format) and one of `wires/`, then
`faults`, `upstream` (the server) and `replay`. Nothing in the product imports them but the commands that run them.
"""
