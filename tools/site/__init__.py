"""``./dev docs``: the documentation as a site of static files, made by Sphinx.

``conf.py`` is Sphinx' configuration, and says why it is as it is; ``navigation`` reads
``docs/index.md``, which is the home page and the navigation; ``root`` is copied to the site's top.
"""
