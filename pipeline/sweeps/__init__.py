"""What ``srdet tune`` is made of: the space, the checks, the strategy, a trial, the board."""
