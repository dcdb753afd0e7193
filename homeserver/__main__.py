"""`python -m homeserver` is the same as `restante`."""

from __future__ import annotations

from homeserver.cli.program import main

if __name__ == "__main__":
    main()
