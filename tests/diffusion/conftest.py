"""One thread: the tensors here are small, and two threads on a busy machine wait for each other ten times longer than they compute."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
