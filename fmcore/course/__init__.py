"""What only notebooks need: the look of figures, plots, widgets, predictions, cards, claims and exercise checks.

Nothing else in fmcore imports this package. Chapters write

    from fmcore.course import card, checks, claims, plotting, predict, style, widgets
"""
