"""Streamlit's own command, `python -m app.web.server run PAGE …`, in a process that ends without a word."""

from app.cli import leave


def main() -> None:
    """Serve until told to end."""
    from streamlit.web.cli import main as streamlit

    try:
        streamlit()
    except SystemExit as ended:
        leave(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    leave(0)


if __name__ == "__main__":
    main()
