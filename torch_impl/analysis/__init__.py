"""What is made of trained runs: tables, head redundancy, efficiency, pictures."""
