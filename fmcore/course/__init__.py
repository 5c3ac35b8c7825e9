"""What only notebooks need: figures, widgets, predictions, cards, claims and exercise checks.

Nothing else in fmcore imports this package. Chapters write

    from fmcore.course import card, checks, claims, plotting, predict, style, widgets
"""
