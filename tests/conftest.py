"""What holds for every test."""

import os

# Tests run beside each other and start processes of their own: OpenMP threads that wait for a
# shared core would make each of them several times slower. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
