"""The SVR of a primal: its training set, its two quadratic programs, and their solutions."""
