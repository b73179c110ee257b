"""`python -m llmctl`, and the `llmctl` command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, or this rank's share of a stage when started as a rank."""
    from llmctl import cli

    sys.exit(cli.rank_main() if "LLMCTL_TASK" in os.environ else cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
