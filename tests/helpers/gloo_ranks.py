"""Gloo ranks on one machine: processes that outlive a test, so that they import torch once.

Every job makes a process group of its own from a file, with a time-out, and destroys it afterwards. A rank that fails
or hangs takes all of them down; the next job starts new ones.
"""

import datetime
import pickle
import tempfile
import traceback
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist
from commands import no_shared_instances
from torch import multiprocessing

TIMEOUT_S = 120


def _serve(connection):
    torch.set_num_threads(1)
    while True:
        function, rank, world_size, store_file, args = pickle.loads(connection.recv_bytes())
        try:
            store = dist.FileStore(store_file, world_size)
            timeout = datetime.timedelta(seconds=TIMEOUT_S)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
            with no_shared_instances():
                result = function(rank, world_size, *args)
            dist.barrier()  # a rank that leaves early would take its connections along
            dist.destroy_process_group()
            # Pickled here: torch's own way of sending tensors shares memory, which ends with the rank.
            connection.send_bytes(pickle.dumps((True, result)))
        except BaseException:
            connection.send_bytes(pickle.dumps((False, traceback.format_exc())))
            return


class GlooRanks:
    """Runs functions on ranks; `close` ends the processes."""

    def __init__(self):
        self._processes, self._connections = [], []

    def run(self, world_size, function, *args):
        """[function(rank, world_size, *args) of each rank]; the function must be importable."""
        context = multiprocessing.get_context("spawn")
        while len(self._processes) < world_size:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        with tempfile.TemporaryDirectory() as folder:
            store_file = str(Path(folder) / "store")
            used = self._connections[:world_size]
            for rank, connection in enumerate(used):
                job = (function, rank, world_size, store_file, args)
                connection.send_bytes(pickle.dumps(job))
            return self._collect(used)

    def _collect(self, used):
        pending = {connection: rank for rank, connection in enumerate(used)}
        results = [None] * len(used)
        while pending:
            # Whoever answers first is read first: of a failed rank the others only see that it is gone.
            ready = wait(list(pending), TIMEOUT_S)
            if not ready:
                self._fail(f"no answer from ranks {sorted(pending.values())} in {TIMEOUT_S} s")
            for connection in ready:
                rank = pending.pop(connection)
                try:
                    ok, results[rank] = pickle.loads(connection.recv_bytes())
                except (EOFError, ConnectionError):
                    ok, results[rank] = False, "died"
                if not ok:
                    self._fail(f"rank {rank} of {len(used)}: {results[rank]}")
        return results

    def _fail(self, message):
        self.close()
        raise AssertionError(message)

    def close(self):
        """Ends all processes."""
        for process in self._processes:
            process.terminate()
            process.join()
        self._processes, self._connections = [], []
