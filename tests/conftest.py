"""What all tests share: PyTorch on one thread, which is the fastest for arrays as small as theirs."""

import torch

torch.set_num_threads(1)
