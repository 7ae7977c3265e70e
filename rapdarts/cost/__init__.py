"""Costs of networks: counted for a network, expected for a mixture of networks, and penalised in a loss."""
