"""Speed against the strongest peers on this machine, and only where the numbers are right.

One table of cases, which the tests run too at small sizes. Every case first checks its own result and its peers'; a red
check shows no speed. ``run`` is the runner, ``measure`` how a case is timed, ``targets`` what is asked of the figures;
every group of cases is a file.
"""

from lsc_ext.bench.machine import machine
from lsc_ext.bench.run import GROUPS, SCHEMA, cases, run_bench

__all__ = ["GROUPS", "SCHEMA", "cases", "machine", "run_bench"]
