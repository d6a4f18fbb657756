"""Trains a small linear model with DistributedDataParallel over gloo.

Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun or Muster set them. Saves its state
to MUSTER_OUTPUT_DIR (or the current folder) at the end and when it receives SIGUSR1.
"""

import argparse
import os
import signal
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

stop = False


def ask_to_stop(_signal, _frame):
    global stop
    stop = True


def save(model, step):
    folder = os.environ.get("MUSTER_OUTPUT_DIR", ".")
    torch.save({"model": model.module.state_dict(), "step": step}, os.path.join(folder, "model.pt"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps

    signal.signal(signal.SIGUSR1, ask_to_stop)
    dist.init_process_group("gloo", init_method="env://")
    rank, size = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    truth = torch.arange(8.0)
    data = torch.Generator().manual_seed(1000 + rank)

    loss, step = None, 0
    for step in range(1, steps + 1):
        inputs = torch.randn(32, 8, generator=data)
        loss = torch.nn.functional.mse_loss(model(inputs).squeeze(1), inputs @ truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # All ranks stop at the same step, whoever was told first.
        stopping = torch.tensor([float(stop)])
        dist.all_reduce(stopping)
        if rank == 0 and (step % 50 == 0 or step == steps):
            print(f"step {step}/{steps} loss {loss.item():.6f}", flush=True)
        if stopping.item() > 0:
            break

    weights = model.module.weight.detach().clone()
    dist.all_reduce(weights)
    same = torch.allclose(weights / size, model.module.weight.detach(), atol=1e-5)
    print(f"rank {rank}/{size} weights {'agree' if same else 'DIFFER'} after step {step}", flush=True)
    if rank == 0:
        save(model, step)
    dist.destroy_process_group()
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
