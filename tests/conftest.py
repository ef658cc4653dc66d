import torch
from hypothesis import HealthCheck, settings

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("tests")
torch.set_num_threads(1)  # tests are small, and run in parallel
