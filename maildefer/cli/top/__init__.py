"""The screen of `maildefer top`: it shows what the page of `web` does, and pauses and resumes queues.

    app         what each key does, and what is shown after it
    views       the screens: all at a glance, a queue's entries, one entry
    terminal    the terminal: keys one by one, drawing, and as it was before at any end

Imports point down: app > views, terminal.
"""
