"""Initialisation of a data loader's workers."""

import os
import signal
import threading

from mmengine.registry import FUNCTIONS


@FUNCTIONS.register_module()
def answer_to_parent_only(worker_id: int) -> None:
    """Keeps a worker running when Ctrl-C or SIGTERM is sent to all processes of a run.

    Terminals, torchrun and Slurm signal whole process groups. The main process finishes its iteration and saves a
    checkpoint (:class:`InterruptHook`), for which it needs its workers. A worker exits when the main process terminates
    it or has exited.

    Args:
        worker_id: Index of the worker; not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows: torch's own handling is kept
        return
    # Blocked, so that a thread can wait for it: a handler does not receive the process id of the sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
