"""Grade a class: `python -m tools.grading SUBMISSIONS`.

From the lowest room up; each uses only those above it in this list.

    worker        the process in which a submission runs
    sandbox       the grader's end of it: starts it sealed, asks, ends it
    answers       what is in a submitted notebook
    meter         what a process costs
    judge         the network of the project, on secret eyes
    run           the tests of an assignment on one notebook, and their verdicts
    submissions   who handed in what
    report        tables and feedback pages, as text
    pool          a whole class: many processes, results kept, files written
    board         the leaderboard of the project, a page for all
    __main__      the command
"""
