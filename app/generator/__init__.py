"""The model in a process of its own: one for all who ask, who may stop a text in the middle and outlive its death."""

from app.generator.job import Job, Stopped, WorkerDied
from app.generator.worker import Worker

__all__ = ["Job", "Stopped", "Worker", "WorkerDied"]
