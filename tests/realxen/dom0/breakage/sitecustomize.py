"""Makes the daemon wrong on purpose, as XSD_BREAK says, so that a run can show that it notices.

Python imports a module of this name as it starts, when it is on the path.
"""

import os

from xsd.xen.real import RealHost

match os.environ["XSD_BREAK"]:
    case "no-release":
        # News of domains that shut down or died is thrown away.
        RealHost.event = lambda self, port: None  # type: ignore[method-assign]
    case "leak-rings":
        # The rings of domains that are gone stay mapped, their event channels bound.
        RealHost.release = lambda self, domid: None  # type: ignore[method-assign]
