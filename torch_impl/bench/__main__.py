"""python -m torch_impl.bench: the speed and memory of attention."""

import sys

from torch_impl.bench.attention_speed import main

sys.exit(main())
