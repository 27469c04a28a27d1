"""``python -m lsc_ext``."""

import sys

from lsc_ext.cli import main

sys.exit(main())
