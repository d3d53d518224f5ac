"""`python -m image2video.cli`."""

import sys

from image2video.cli.app import main

sys.exit(main())
