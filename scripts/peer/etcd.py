"""etcd with three members."""
import asyncio, os, time, urllib.request
from .common import Processes, metric, wait_for


class Etcd:
    def __init__(self, folder):
        self.processes = Processes()
        folder.mkdir()
        base = 24000 + os.getpid() % 500 * 10
        peers = {f"m{i}": f"http://127.0.0.1:{base + i}" for i in (1, 2, 3)}
        self.clients = {f"m{i}": f"127.0.0.1:{base + 3 + i}" for i in (1, 2, 3)}
        cluster = ",".join(f"{name}={url}" for name, url in peers.items())
        try:
            for name, url in peers.items():
                client = f"http://{self.clients[name]}"
                self.processes.start(
                    "etcd", "--name", name, "--data-dir", folder / name, "--listen-client-urls", client, "--advertise-client-urls",
                    client, "--listen-peer-urls", url, "--initial-advertise-peer-urls", url, "--initial-cluster", cluster,
                    "--log-level", "error", log=folder / f"{name}.log")
            wait_for(self.healthy, "etcd")
        except BaseException:
            self.processes.stop()
            raise

    def healthy(self):
        try:
            self.put_rate(1, 0.05)
            return True
        except Exception:
            return False

    def leader(self):
        for address in self.clients.values():
            text = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
            if metric(text, "etcd_server_is_leader") == 1:
                return address, metric(text, "etcd_disk_wal_fsync_duration_seconds_count")
        raise RuntimeError("etcd has no leader")

    def put_rate(self, in_flight, seconds, value_bytes=1024):
        """Closed loop of puts at the leader; puts a second, and puts for each sync of its log."""
        address, before = self.leader()
        count, took = asyncio.run(put_loop(address, in_flight, seconds, os.urandom(value_bytes)))
        syncs = self.leader()[1] - before
        return count / took, count / max(1, syncs)

    def stop(self):
        self.processes.stop()


def field(number, value):
    """A length-delimited field of a protobuf message."""
    size, out = len(value), bytes([number << 3 | 2])
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size]) + value


async def put_loop(address, in_flight, seconds, value):
    import grpc
    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        began = time.perf_counter()

        async def lane(number):
            nonlocal done
            count = 0
            while time.perf_counter() - began < seconds:
                await put(field(1, b"peers/%d/%d" % (number, count % 1000)) + field(2, value))
                count, done = count + 1, done + 1

        await asyncio.gather(*(lane(number) for number in range(in_flight)))
        return done, time.perf_counter() - began
