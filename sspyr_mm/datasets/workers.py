"""Start of a loader's worker."""

import os
import signal
import threading

from mmengine.registry import FUNCTIONS


@FUNCTIONS.register_module()
def answer_to_parent_only(worker_id: int) -> None:
    """Lets a worker outlive Ctrl-C and SIGTERM that are sent to all processes of a run.

    Terminals, torchrun and Slurm signal whole process groups. The main process finishes its iteration and saves a
    checkpoint (:class:`InterruptHook`), for which it needs its workers. They end when the main process tells them to,
    by SIGTERM or otherwise, or when it is gone.

    Args:
        worker_id: Number of the worker, as a ``DataLoader`` gives it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows: torch's own handling stays
        return
    # Blocked, so that it can be waited for: a handler would not learn who the sender is.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
