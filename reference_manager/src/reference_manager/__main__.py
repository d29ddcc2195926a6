"""``python -m reference_manager`` is ``jobnik-manager``."""

import sys

from reference_manager.cli import main

sys.exit(main())
