"""What Pongee costs beside plain FastAPI: ``python -m benchmarks``.

Two server processes, the same endpoints, the same server settings, one load generator. Both sides
are measured in one run, in turn, and the table shows medians and ratios. Linux only: CPU time and
memory are read from the kernel, from outside the server.
"""
