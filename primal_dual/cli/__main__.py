"""python -m primal_dual.cli"""

from primal_dual.cli import main

main()
