"""Planted bugs: gradients that are wrong as people get them wrong, each with the cause that a report should suggest."""
