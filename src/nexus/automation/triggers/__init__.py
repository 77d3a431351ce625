"""What can start a workflow, one file a kind; see `automation/trigger.py`."""
