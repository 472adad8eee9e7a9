"""Parts of pages that are longer than a screen of code, or stand on several pages."""
