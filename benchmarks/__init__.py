"""Speed and memory, as ratios measured in one run; never asserted by a clock in tests."""
