"""`python -m bench`, from the top of the checkout."""

import sys

from bench.run import main

sys.exit(main(sys.argv[1:]))
