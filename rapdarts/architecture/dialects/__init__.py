"""Dialects: parsers that turn genotypes of other programs into trees with the structure of our JSON format.

`find` looks for genotypes in a text and chooses one; `cells_of` turns the value found into a tree of cells. Both are
tolerant: they accept a genotype in any of its printed forms. Texts are parsed, never evaluated. `rapdarts.architecture.reading` then
checks the tree strictly, in the same way for every dialect.
"""
