"""Files that are read and written, and small real data sets."""
