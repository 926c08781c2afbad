"""`python -m bench`."""

import signal
import sys

from bench.command import main

if __name__ == "__main__":
    # Ends by an exception, so that a bench's server ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
