"""How the answers to the exercises are judged: a file for each chapter, a function for each exercise.

`chapter_03.exercise_2(answer)` prints a line that says whether an answer to exercise 2 of chapter 03 is right, and what
is wrong with it if it is not. Sheets call it as `checks.exercise("03.2", answer)`, so that a sheet holds no reference.
"""
