"""What every request is judged by before it is served: its host, its origin, its size, and who stands between.

Each gate is a rule without I/O of its own; `nexus.http.edge` asks them in order.
"""
