"""What is made of trained runs: tables of accuracies, the redundancy of heads, the cost of layers, and figures."""
