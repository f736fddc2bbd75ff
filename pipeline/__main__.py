"""``python -m pipeline`` is ``srdet``."""

import sys

from pipeline.cli import main

sys.exit(main())
