"""The core: every network of the family in one small library of C++, with a C interface.

``building`` compiles ``source/``, ``library`` finds and loads the result.
"""
