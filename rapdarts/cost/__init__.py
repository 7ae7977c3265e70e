"""What networks cost: counted for a network that exists, expected for a mixture of them, and priced in a loss."""
