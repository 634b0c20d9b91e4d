"""JSON from files that anybody may have written."""

import json
from typing import Any


def parse_json(data: bytes | str, what: str) -> Any:
    """A JSON value; ValueError names ``what`` if it is none, or is nested without measure."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is damaged: it is no JSON ({str(error)[:200]}).") from error
