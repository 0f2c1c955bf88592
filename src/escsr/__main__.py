"""``python -m escsr`` is the same as ``escsr``."""

from escsr.cli import main

if __name__ == "__main__":
    main()
