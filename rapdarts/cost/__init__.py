"""Costs of networks: counted for a network, expected for a mixture of networks, and priced in a loss."""
