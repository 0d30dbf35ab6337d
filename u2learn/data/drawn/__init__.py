"""Pictures drawn by a program, with their labels: what the book uses where no real data is found."""
