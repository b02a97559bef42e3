"""Figures of a search: plain numbers, and the charts that are drawn from them."""
