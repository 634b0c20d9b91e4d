"""What the server of loader processes imports first: it leaves the command's process group.

Signals to the group, such as those of a closing terminal, then end no loader process before the
run that it feeds has saved. They end with the process that wants the batches all the same.
"""

import os

os.setsid()
