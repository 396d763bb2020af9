"""What a load generator does with its connections: one module for each kind of load."""
