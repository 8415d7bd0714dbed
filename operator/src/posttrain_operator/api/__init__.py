"""The four kinds as users write them and as the operator answers them."""
