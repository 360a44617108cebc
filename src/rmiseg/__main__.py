"""`python -m rmiseg`, the same as `rmiseg`."""

import sys

from rmiseg.cli import main

sys.exit(main())
