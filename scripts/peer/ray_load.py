#!/usr/bin/env python3
"""ray_load.py GANGS: prints, for gangs of 4 and of 8 nodes, how many a second Ray ran.

Eight raylets on this machine, each declaring 8 GPUs. A gang is a placement group with one bundle of 8 GPUs on each of its
nodes and one empty task in each bundle. All are asked for at once, and each is removed when its tasks have ended. Ray keeps
its state in memory, so nothing here is durable.
"""
import os, sys, time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

MEMORY_BYTES = 80 << 20


@ray.remote(num_gpus=8, num_cpus=0)
def empty():
    return 0


def run(gangs, nodes):
    began = time.perf_counter()
    groups = [placement_group([{"GPU": 8}] * nodes, strategy="STRICT_SPREAD") for _ in range(gangs)]
    tasks = []
    for group in groups:
        strategy = [PlacementGroupSchedulingStrategy(group, at) for at in range(nodes)]
        tasks.append([empty.options(scheduling_strategy=each).remote() for each in strategy])
    for group, of_group in zip(groups, tasks):
        ray.get(of_group, timeout=120)
        remove_placement_group(group)
    return gangs / (time.perf_counter() - began)


def main():
    gangs = int(sys.argv[1])
    cluster = Cluster(initialize_head=True, head_node_args={
        "num_cpus": 2, "num_gpus": 0, "include_dashboard": False, "object_store_memory": MEMORY_BYTES})
    for _ in range(8):
        cluster.add_node(num_cpus=16, num_gpus=8, object_store_memory=MEMORY_BYTES)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    # The first tasks start the workers' processes.
    run(1, 8)
    print(run(gangs, 4), run(gangs, 8), flush=True)
    ray.shutdown()
    cluster.shutdown()


main()
