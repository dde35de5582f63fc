"""Injects faults and prints how often each claim held: `python scripts/robustness.py`."""

from robustness.main import main

if __name__ == "__main__":
    main()
