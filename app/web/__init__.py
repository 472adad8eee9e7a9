"""The dashboard: `main.py` is what Streamlit runs, `pages` what a person sees."""
