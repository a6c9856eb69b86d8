"""`mfg-envs`, and `python -m mfg_envs`: see the swarm. Needs the extra `render`."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from mfg_envs.viewer.cli import main as run
    except ImportError as error:
        sys.exit(f"error: {error}; the command line comes with: pip install 'mfg-envs[render]'")
    run()


if __name__ == "__main__":
    main()
