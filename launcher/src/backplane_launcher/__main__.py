"""`python -m backplane_launcher`, for where the command is not on the path."""

import sys

from backplane_launcher.cli import main

sys.exit(main())
