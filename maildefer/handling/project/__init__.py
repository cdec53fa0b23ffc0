"""A project on disk: where it is, its settings, its modules, its queues.

    finder          finds the project's folder and its settings and boot modules
    module_loader   imports user modules; every failure names its place and its remedy
    settings        the settings module, checked, and what a pool needs of it as plain data
    mail_settings   what the settings say about mail: relay, templates, keys, servers that are believed
    monitoring_settings   what they say about how a pool is watched; setting_place: where a setting stands
    named_functions functions that a setting names; after_fork
    misspelled      names in the settings module that are nearly those of settings
    queue_paths     the absolute path, and the queue, that a path means
    test_store      the store that tests use in the place of the project's queues

Imports point down: test_store, mail_settings > queue_paths, misspelled > settings, named_functions >
module_loader, monitoring_settings > setting_place > finder.
"""
