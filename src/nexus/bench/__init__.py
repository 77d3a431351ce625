"""Floor 6: the benchmarks behind every figure that we claim, one file each in `benches/`.

Read `bench` for the contract. A benchmark runs real processes and prints medians; peers run beside
ours in the same run, in environments of their own.
"""
