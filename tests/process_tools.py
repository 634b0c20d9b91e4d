"""What another process gets of a value of ours: the one place where tests unpickle."""

import pickle
from typing import TypeVar

Value = TypeVar("Value")


def sent(value: Value, most: int | None = None) -> Value:
    """The value as a worker process gets it; its bytes are made here, and no stranger's.

    ``most``: they are fewer than so many.
    """
    data = pickle.dumps(value)
    assert most is None or len(data) < most
    return pickle.loads(data)
