"""PyTorch's AdamW, for networks that are not compiled together with it."""

from __future__ import annotations

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """The same, without loading TorchDynamo, which is a third of what the process of a trial costs to start.

    PyTorch marks these methods for its compiler, and loads it to do so, whether or not anything is compiled:
    a second of a processor and 70 MB in each process that trains. Here they are as they are written.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
