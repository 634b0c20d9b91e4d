"""Why a cluster or a node of it fails, and what mends that.

Ray, the stores and the systems below have a kind of error each; here they are told apart by
their words. What no line knows keeps its own words, and no cure is made up.
"""

import re

CAUSES = {
    "token": "authentication token|AuthToken|Unauthenticated|AuthenticationError",
    "version": "Version mismatch",
    "code": "No module named|cannot import name|failed to import|Can't get attribute"
    "|cannot open shared object",
    "memory": "out of memory|OutOfMemory|Cannot allocate memory|MemoryError",
    "gone": "node has died|node was terminated|too many heartbeats|doesn't exist any more",
    "silent": "no answer within",
    "died": "actor died|actor is dead|worker died|ActorUnavailable|actor is unavailable",
    "credentials": "ACCESS_DENIED|ACCESS_KEY|SIGNATURE_DOES|_TOKEN during|HTTP code 40[13]"
    "|AccessDenied|credentials|Forbidden|Unauthorized|refuses the user",
    "rights": "Permission denied|Operation not permitted",
    "readonly": "Read-only file system",
    "full": "No space left|quota exceeded|has no space",
    "away": "Connection refused|timed out|resolve host|Name or service not known|unreachable"
    "|Temporary failure in name|does not answer|No route to host",
    "missing": "does not exist|is not there|is not here|No such file|no dataset.json"
    "|is missing",
    "damaged": "sha256|cannot be read|is damaged|has [0-9]+ bytes",
}
"""Name of a cause -> words of the errors that it makes; the first that fits is it."""

CURES = {
    "token": "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the token "
    "that the cluster was started with",
    "version": "Install the same constraints.txt on both",
    "code": "Give it the environment of constraints.txt, or the image of clusters/Dockerfile",
    "memory": "End what fills its memory, or give it more",
    "gone": "Start Ray there again, or wait until `ray status` does not list it any more",
    "silent": "It is busy or stuck: look at its load, start Ray there again, or wait longer "
    "with --cluster.timeout-s",
    "died": "Ray's logs there say why: /tmp/ray/session_latest/logs",
    "credentials": "Start Ray there with the same credentials of the store in its environment",
    "rights": "Let the user that Ray runs as there read and write it",
    "readonly": "Mount it there so that it can be written",
    "full": "Make room there",
    "away": "Open the way there from that node: address, proxy, firewall",
    "damaged": "Copy it again from a node that has it whole",
}
"""Name of a cause -> what mends it, wherever it is met."""


def cause_of(words: str) -> str:
    """The name of the cause of an error with these words; "" where none is known."""
    found = (c for c, pattern in CAUSES.items() if re.search(pattern, words, re.IGNORECASE))
    return next(found, "")
