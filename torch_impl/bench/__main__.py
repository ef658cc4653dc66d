"""python -m torch_impl.bench: the speed and memory of attention."""

from torch_impl.bench.attention_speed import main

main()
