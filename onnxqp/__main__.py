"""`python -m onnxqp`"""

import sys

from onnxqp.cli import main

if __name__ == "__main__":
    sys.exit(main())
