"""Write what a run leaves on the disk: record, checkpoints, TensorBoard events.

Read ``run_record.py`` first.
"""
