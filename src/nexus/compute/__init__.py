"""Floor 1: work in other processes of this machine.

Read in this order: `settings`, `errors`, `process` (the few system calls), `child` (what runs on the
far side), `pool` (calls into crash-proof children), `supervisor` (long-lived programs kept running).
"""
