"""How warm an idle model is kept: by what each level costs and when its next request is likely."""
