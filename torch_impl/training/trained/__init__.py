"""What is made of finished runs: predictions, published weights, exports."""
