"""`python -m nexus`: the command line."""

from nexus.cli.main import app

if __name__ == "__main__":
    app(prog_name="nexus")
