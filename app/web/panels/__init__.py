"""Parts of pages that are longer than a screen."""
