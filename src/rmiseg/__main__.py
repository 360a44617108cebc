"""`python -m rmiseg`, the same as `rmiseg`."""

import sys

from rmiseg.cli.main import main

sys.exit(main())
