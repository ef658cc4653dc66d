"""The SVR of a primal: its training set, its two quadratic programs, their solutions, and certificates."""
