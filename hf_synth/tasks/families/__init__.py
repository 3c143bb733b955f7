"""What tasks of one kind share. A folder beside the tasks: the registry takes each file of that one for a task."""
