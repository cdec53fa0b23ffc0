"""What operators' commands do in a queue; never called by workers on their way.

entries       finds, shows, requeues, releases and deletes single entries
inspection    opens a queue to look at it, making and mending nothing
pause_mark    the file that pauses a queue on all hosts
"""
