#!/usr/bin/env python3
"""hyperqueue_load.py tasks|gangs COUNT NODES: prints how many a second HyperQueue ran.

Server, workers and client live in this process; the Python package has no journal, so nothing here is durable.
"""
import sys, time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi.protocol import ResourceRequest


def of_true(count, **options):
    job = Job(max_fails=0)
    for _ in range(count):
        job.program(["true"], stdout=None, stderr=None, **options)
    return job


def main():
    what, count, nodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with LocalCluster() as cluster:
        if what == "tasks":
            cluster.start_worker(WorkerConfig(cores=2))
            options = {}
        else:
            for _ in range(8):
                cluster.start_worker(WorkerConfig(cores=8))
            options = {"resources": ResourceRequest(n_nodes=nodes)}
        client = cluster.client()
        client.wait_for_jobs([client.submit(of_true(10, **options))])
        began = time.perf_counter()
        client.wait_for_jobs([client.submit(of_true(count, **options))])
        print(count / (time.perf_counter() - began), flush=True)


main()
