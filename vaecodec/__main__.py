"""`python -m vaecodec`: the command line."""

from vaecodec.cli import main

if __name__ == "__main__":
    main()
