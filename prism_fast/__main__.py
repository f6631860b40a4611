"""``python -m prism_fast``."""

from prism_fast.cli.main import main

if __name__ == "__main__":
    main()
