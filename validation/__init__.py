"""How good a card is: scores against held-out reference sets, tables and figures."""
