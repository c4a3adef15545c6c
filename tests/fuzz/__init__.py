"""Random models over every row of the table of operators, and what must hold for each of them."""
