"""Grade a class: `python -m tools.grading`.

From the lowest room up; each uses only those above it in this list.

    worker        the process in which a submission runs
    seal          where that process is: what it may see and use
    sandbox       the grader's end of it: starts it sealed, asks, ends it
    answers       what is in a submitted notebook
    meter         what a process costs
    judge         the network of the project, on secret eyes
    run           the tests of an assignment on one notebook, and their verdicts
    submissions   who handed in what
    sheets        tables, as any spreadsheet saves them
    store         the file in which the grades are
    gradebook     the grades of a course: what was found, and what people entered
    imports       points by hand and the roster, from tables
    report        tables and feedback pages, as text
    platforms     the same as Moodle, Canvas and nbgrader take them
    marking       the page for what a person looks at
    board         the leaderboard of the project, a page for all
    pool          a whole class: many processes, results kept
    __main__      the commands
"""
