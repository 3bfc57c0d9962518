"""Views: one ESM file a picture, with a shell for JupyterLab and one for Panel."""
