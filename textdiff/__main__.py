"""Makes `python -m textdiff` the same as the `textdiff` command, which not every system has on its path."""

from textdiff.cli import main

if __name__ == "__main__":
    main()
