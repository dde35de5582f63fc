"""Runs the `textdiff` command as `python -m textdiff`, for systems where it is not on the path."""

from textdiff.cli.main import main

if __name__ == "__main__":
    main()
