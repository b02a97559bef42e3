"""What a search gives: portfolio, bundle, picture, explanations. Nothing here needs Ray."""
