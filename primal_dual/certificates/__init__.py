"""Certificates: that attention is the optimum of an SVR, without solving it."""
