"""The commands that print fastecho's figures; README.md beside this file tells the method.

Here live measurements only. Nothing in the package `fastecho` may import from here, and nothing
here is installed with it.
"""
