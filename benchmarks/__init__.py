"""What Pongee costs beside plain FastAPI, and others: ``python -m benchmarks``.

Server processes with the same endpoints, one load generator in C, one core for either. All sides
are measured in one run, in turn, and the tables show medians and ratios. Linux only: CPU time and
memory are read from the kernel, from outside the server. `benchmarks.workloads` says what is
measured and what is aimed at; ``python -m benchmarks.stalled`` is a separate run.
"""
