"""`python -m sottovoce.demos.miniature`."""

import sys

from sottovoce.demos.miniature.commands import main

sys.exit(main())
