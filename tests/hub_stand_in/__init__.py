"""A stand-in for the Hugging Face Hub: real clients push to it and load from it, and a test reads what they left.

repositories.py holds what the Hub holds, api.py answers what clients ask, server.py serves it on this machine and is
what tests see: HubStandIn. Standard library only.
"""

from .repositories import Blob, Commit, Repository
from .server import HubStandIn, Request

__all__ = ["Blob", "Commit", "HubStandIn", "Repository", "Request"]
