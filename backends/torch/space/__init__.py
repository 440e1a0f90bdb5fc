"""Where the values of x lie: one file per space, behind the protocol in `protocol.py`; `engines.py` chooses one."""
