"""`python -m sottovoce.runtime` is the command `sottovoce`."""

import sys

from sottovoce.runtime.cli import main

sys.exit(main())
