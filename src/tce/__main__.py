"""`python -m tce` is the same as `tce`."""

import sys

from tce.cli import main

sys.exit(main())
